//! The lab: two clusters with the same addresses, each in network namespaces of its own, of which only the gateways share a network. The true
//! programs run in it, joined as a user would join them. Needs root, iproute2, nftables, dig, tshark and PostgreSQL (`make deps-test`).

mod capture;
mod clusters;
mod image;
mod talk;

use clusters::{Clusters, NAME, PORT};
use std::{
    io::Read,
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
        let log = std::fs::read_to_string(clusters.two.path("sidecar-access.log")).unwrap_or_default();
        let named = log.lines().any(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
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
    let (mut stream, _) = open(&clusters.one.pod, vip).expect("a connection");
    stream.set_read_timeout(Some(REVOKED)).expect("a timeout");
    // Nobody tells the removed cluster: its gateways go on from their last state, and would carry the connection on.
    clusters.one.kill("agent");
    let (cut_here, cut_there) = (revoked(&clusters.one), revoked(&clusters.two));
    clusters.user(&["cluster", "remove", "c1", "--yes"]);
    let start = Instant::now();
    let read = stream.read(&mut [0; 16]);
    let timed_out = matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out && !matches!(read, Ok(1..)), "the open connection lives on: {read:?}");
    assert!(start.elapsed() < REVOKED, "closed only after {:?}", start.elapsed());
    for _ in 0..5 {
        let again = open(&clusters.one.pod, vip);
        assert!(again.is_err(), "a new connection of a revoked cluster was served");
    }
    assert!(start.elapsed() < REVOKED, "refused only after {:?}", start.elapsed());
    let look = || {
        let (here, there) = (revoked(&clusters.one), revoked(&clusters.two));
        std::future::ready((there > cut_there).then_some(()).ok_or(format!("c1: {here}, c2: {there}")))
    };
    until_ok("c2's own gateways cut the connection", SOON, look).await;
    eprintln!("revoked: c1 logged {cut_here} before and {} after", revoked(&clusters.one));
}

/// How many connections the gateways of the cluster ended or refused as revoked, by their own access logs.
fn revoked(cluster: &clusters::Cluster) -> usize {
    let logs = ["ingress", "sidecar"].into_iter().flat_map(|role| cluster.access_log(role));
    logs.filter(|line| line["reason"] == "revoked").count()
}
