//! The lab: two clusters with the same addresses, each in network namespaces of its own, of which only the gateways share a network. The true
//! programs run in it, joined as a user would join them. Needs root, iproute2, nftables, dig, tshark and PostgreSQL (`make deps-test`).

mod capture;
mod clusters;
mod image;
mod node;
mod partition;
mod talk;

use clusters::{Clusters, HOME, NAME, PORT};
use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    time::{Duration, Instant},
};
use talk::{application, exchange, greeting, open, payload};
use tombolo_testkit::wait::until_ok;

/// Several processes' worth of work, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);
/// How long a revoked cluster may still speak.
const REVOKED: Duration = Duration::from_secs(5);

/// One lab for all steps: it is dear to build, and the last steps leave it broken.
#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_with_the_same_addresses() {
    let mut clusters = Clusters::start().await;
    let vip = until_ok("the name has an address in c1", SOON, || {
        std::future::ready(clusters.one.resolve(NAME).ok_or("no answer"))
    })
    .await;
    let seen = || std::future::ready(greeting(&clusters.one.pod, vip));
    until_ok("c1's pod reaches the service", SOON, seen).await;

    only_gateways_share_a_network(&clusters);
    bytes_pass_unchanged(&clusters, vip);
    an_application_of_a_pod_reaches_the_name_over_both_families(&clusters);
    the_servers_log_names_the_caller(&clusters).await;
    the_link_shows_tls_1_3_and_no_names(&mut clusters, vip).await;
    partition::a_cluster_is_cut_off_from_the_controller(&clusters, vip).await;
    partition::two_clusters_are_cut_off_from_each_other(&clusters, vip).await;
    all_goes_on_without_the_controller(&mut clusters, vip).await;
    a_revoked_cluster_is_cut_off(&mut clusters, vip).await;
}

fn only_gateways_share_a_network(clusters: &Clusters) {
    for cluster in [&clusters.one, &clusters.two] {
        for gateway in ["198.51.100.1:15443", "198.51.100.2:15443", "198.51.100.254:8443"] {
            let address = gateway.parse().expect("an address");
            let reached = open(&cluster.pod, address);
            assert!(reached.is_err(), "{} reaches {gateway} past its gateways", cluster.name);
        }
    }
    let inner = ([10, 0, 0, 2], PORT).into();
    for (from, expected) in [(&clusters.one, "c1"), (&clusters.two, "c2")] {
        let heard = greeting(&from.gateway, inner).expect("a gateway reaches its own pod");
        assert_eq!(heard, expected, "10.0.0.2 is another pod in each cluster");
        a_plain_connection_passes_the_sidecar(from);
    }
}

/// It was redirected to the sidecar, which knows where it meant to go and not who it is.
fn a_plain_connection_passes_the_sidecar(cluster: &clusters::Cluster) {
    let plain = |line: &serde_json::Value| {
        line["direction"] == "inbound" && line["source"].is_null() && line["original"] == "10.0.0.2:7000"
    };
    let log = cluster.access_log("sidecar");
    assert!(log.iter().any(plain), "{} has no such line: {log:?}", cluster.name);
    let direct = open(&cluster.gateway, ([10, 0, 0, 2], clusters::INBOUND).into());
    assert!(direct.is_err(), "the sidecar's port takes redirected connections only");
    let nobody = open(&cluster.gateway, ([10, 0, 0, 2], clusters::NOBODY).into());
    assert!(nobody.is_err(), "where nobody listens a connection is reset");
}

fn bytes_pass_unchanged(clusters: &Clusters, vip: std::net::SocketAddr) {
    let sent = payload(3_000_000, b"");
    let (hello, back) = exchange(&clusters.one.pod, vip, &sent).expect("the exchange");
    assert_eq!(hello, "c2", "the server speaks first, and it is c2's");
    assert!(back == sent, "{} bytes came back of {}, or others", back.len(), sent.len());
}

/// By name, through the redirect, as another user than the sidecar's.
fn an_application_of_a_pod_reaches_the_name_over_both_families(clusters: &Clusters) {
    let pod = &clusters.one.pod;
    let v6 = clusters.one.resolve_v6(NAME).expect("the name has an IPv6 address");
    let (word, back) = exchange(pod, v6, &payload(300_000, b"")).expect("an exchange over IPv6");
    assert!(word == "c2" && back == payload(300_000, b""), "the bytes came back changed over IPv6");
    for family in ["-4", "-6"] {
        let heard = application(pod, family, NAME, "from a pod").expect("an application's connection");
        assert_eq!(heard, "c2from a pod", "{family}");
    }
}

async fn the_servers_log_names_the_caller(clusters: &Clusters) {
    let caller = "/cluster/c1/ns/default/sa/caller";
    let look = || {
        let log = clusters.two.access_log("sidecar");
        let named = log.iter().any(|line| {
            let source = line["source"].as_str().unwrap_or_default();
            line["source_verified"] == true && source.starts_with("spiffe://") && source.ends_with(caller)
        });
        std::future::ready(named.then_some(()).ok_or(log))
    };
    until_ok("c2's sidecar logs who called", SOON, look).await;
}

async fn the_link_shows_tls_1_3_and_no_names(clusters: &mut Clusters, vip: std::net::SocketAddr) {
    const MARKER: &[u8] = b"PAYLOAD-MARKER-OF-THE-LAB";
    let file = clusters.path("wan.pcapng");
    let recording = capture::Recording::start(&clusters.one.gateway, &file).await;
    // Tunnels are kept: a new egress gateway opens them anew, before the camera.
    clusters.one.restart("egress").await;
    let sent = payload(100_000, MARKER);
    let look = || std::future::ready(exchange(&clusters.one.pod, vip, &sent).map_err(|e| e.to_string()));
    let (_, back) = until_ok("an exchange through the new egress gateway", SOON, look).await;
    assert!(back == sent, "the bytes came back changed");
    recording.stop(2 * sent.len()).await;
    capture::assert_tls_1_3(&file, 2 * sent.len());
    let secrets: [&[u8]; 6] =
        [MARKER, NAME.as_bytes(), b"acme.example", b"spiffe://", b"default/sa", b"tombolo-source"];
    capture::assert_absent(&file, &secrets);
}

async fn all_goes_on_without_the_controller(clusters: &mut Clusters, vip: std::net::SocketAddr) {
    clusters.controller.kill();
    assert_eq!(clusters.one.resolve(NAME), Some(vip), "the name resolves as before");
    assert_eq!(greeting(&clusters.one.pod, vip).expect("a new connection"), "c2");
    clusters.one.restart("egress").await;
    clusters.two.restart("ingress").await;
    let look = || std::future::ready(greeting(&clusters.one.pod, vip));
    until_ok("restarted gateways serve without the controller", SOON, look).await;
    clusters.start_controller().await;
}

/// By the other cluster: the removed one has no say.
async fn a_revoked_cluster_is_cut_off(clusters: &mut Clusters, vip: std::net::SocketAddr) {
    // Whether both agents are back at the restarted controller is asked before the clock starts: a new name reaches them.
    clusters.user(&["gns", "create", "late", "--domain", "late.example.com"]);
    for cluster in [&clusters.one, &clusters.two] {
        let look = || std::future::ready(cluster.resolve("echo.late.example.com").ok_or("no answer"));
        until_ok("an agent is connected again", SOON, look).await;
    }
    let home = until_ok("the name has an address in c2", SOON, || {
        std::future::ready(clusters.two.resolve(HOME).ok_or("no answer"))
    })
    .await;
    let mut from = until_ok("a connection from c1", SOON, || {
        std::future::ready(open(&clusters.one.pod, vip).map(|(stream, _)| stream))
    })
    .await;
    let (mut to, word) =
        until_ok("a connection to c1", SOON, || std::future::ready(open(&clusters.two.pod, home))).await;
    assert_eq!(word, "c1");
    // Nobody tells the removed cluster: its gateways go on from their last state, and would carry the connections on.
    clusters.one.kill("agent");
    let before = revoked(&clusters.two);
    clusters.user(&["cluster", "remove", "c1", "--yes"]);
    let start = Instant::now();
    for (which, stream) in [("from", &mut from), ("to", &mut to)] {
        assert_ended(stream, which);
        assert!(start.elapsed() < REVOKED, "{which} it: closed only after {:?}", start.elapsed());
    }
    for _ in 0..5 {
        for (pod, address) in [(&clusters.one.pod, vip), (&clusters.two.pod, home)] {
            let again = open(pod, address);
            assert!(again.is_err(), "a new connection of or to a revoked cluster was served");
        }
    }
    assert!(start.elapsed() < REVOKED, "refused only after {:?}", start.elapsed());
    let look = || {
        let now = revoked(&clusters.two);
        std::future::ready((now.0 > before.0 && now.1 > before.1).then_some(()).ok_or((before, now)))
    };
    until_ok("c2's own gateways cut both connections", SOON, look).await;
}

/// The open connection gets no more bytes, and its end before long.
fn assert_ended(stream: &mut TcpStream, which: &str) {
    stream.set_read_timeout(Some(REVOKED)).expect("a timeout");
    let read = stream.read(&mut [0; 16]);
    let timed_out = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(!timed_out && !matches!(read, Ok(1..)), "the connection {which} it lives on: {read:?}");
}

/// How many connections into the cluster, and out of it, its gateways ended or refused as revoked, by their own access logs.
fn revoked(cluster: &clusters::Cluster) -> (usize, usize) {
    let count = |gateway: &str, direction: &str| {
        let both = [(gateway, "transit"), ("sidecar", direction)];
        let lines = both.into_iter().flat_map(|(role, direction)| {
            cluster.access_log(role).into_iter().filter(move |line| line["direction"] == direction)
        });
        lines.filter(|line| line["reason"] == "revoked").count()
    };
    (count("ingress", "inbound"), count("egress", "outbound"))
}
