//! Who is let through, at each hop; and that a connection ends when its right ends.

use crate::{
    failover::healthy,
    world::{Gateway, LONG, NAME, PORT, World, ask, cluster, echo, service},
};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tombolo_gateway::{
    budget::Budget,
    config::{Config, Limits, Timing},
    conns::Conns,
    error::Refusal,
    head::{Connect, Destination, Inner},
    health::newcomers::AT_ONCE,
    pool::{Key, Pool},
    reason::Reason,
    trace::Trace,
    tunnel::Dialer,
};
use tombolo_model::{
    GatewayRole, Generation, SpiffeId,
    health::Health,
    snapshot::{EndToEnd, GatewayResource, RouteSpec},
};
use tombolo_mtls::Credentials;
use tombolo_testkit::wait::until;

/// A connection that is refused is reset, and the caller's log says why.
async fn refused(world: &World, why: &str, hop: Option<&str>) {
    let before = world.sites["c1"].sidecar.log().len();
    let error = ask(world.call("c1").await, b"hello").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    let line = world.sites["c1"].sidecar.line(before + 1).await;
    assert_eq!((&line["reason"], line["hop"].as_str()), (&why.into(), hop), "{line:#}");
}

async fn two_clusters() -> World {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_callers_may_call() {
    let mut world = two_clusters().await;
    world.spec.callers = [cluster("c2")].into();
    world.publish();
    refused(&world, "not_a_caller", Some("ingress@c2")).await;
    let line = world.sites["c2"].ingress.line(1).await;
    assert_eq!(line["source"], "spiffe://acme.tombolo.internal/cluster/c1/ns/default/sa/shopping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_accounts_of_a_service_may_answer() {
    let mut world = two_clusters().await;
    world.spec.account = "somebody-else";
    world.publish();
    refused(&world, "wrong_identity", None).await;
    assert_eq!(world.sites["c2"].sidecar.line(1).await["bytes_up"], 0, "the application got nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_the_inner_session_is_a_downgrade() {
    let mut world = two_clusters().await;
    world.spec.tunnelled = false;
    world.publish();
    refused(&world, "inner_refused", Some("egress@c1")).await;
    // Nor does the sidecar believe an egress gateway that lets it pass.
    world.spec.end_to_end = EndToEnd::Some;
    world.publish();
    world.spec.end_to_end = EndToEnd::All;
    world.sites["c1"].sidecar.shared.apply(&world.resources("c1")).unwrap();
    refused(&world, "inner_refused", None).await;
    world.spec.end_to_end = EndToEnd::Some;
    world.publish();
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
}

/// As when a node's proxy is replaced: the application goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_sidecar_leaves_its_application_is_reached_without_it() {
    let mut world = two_clusters().await;
    (world.spec.leaving, world.spec.end_to_end) = (true, EndToEnd::All);
    world.publish();
    // who has not heard of it yet demands the session with the application's sidecar, and gets it
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    assert_eq!(world.sites["c1"].sidecar.line(1).await["end_to_end"], true);
    let drain = world.sites.get_mut("c2").unwrap().sidecar.drain.take().unwrap();
    drain.drain(LONG).await;
    (world.spec.leaving, world.spec.end_to_end) = (false, EndToEnd::Some);
    world.publish();
    refused(&world, "peer_unreachable", Some("ingress@c2")).await;
    world.spec.leaving = true;
    world.publish();
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    assert_eq!(world.sites["c1"].sidecar.line(3).await["end_to_end"], false);
}

/// As when a cluster joins again: the egress gateway leads to it, and the sidecar hears of it a moment later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_the_sidecar_is_yet_to_hear_of_is_waited_for() {
    let world = two_clusters().await;
    world.publish();
    let site = &world.sites["c1"];
    let all = world.resources("c1");
    let mut older = all.clone();
    for resource in older.values_mut() {
        if let GatewayResource::Route(route) = resource {
            let route = RouteSpec { targets: Vec::new(), ..RouteSpec::clone(route) };
            *resource = GatewayResource::Route(route.into());
        }
    }
    site.sidecar.shared.apply(&older).unwrap();
    let late = async {
        let carried = || async { site.egress.shared.status(Generation::ZERO).connections };
        until("the egress gateway leads to it", LONG, carried, |count| *count > 0).await;
        site.sidecar.shared.apply(&all).unwrap();
    };
    let (answer, ()) = tokio::join!(ask(world.call("c1").await, b"hello"), late);
    assert_eq!(answer.unwrap(), b"hello");
    // for a moment, and no longer
    site.sidecar.shared.apply(&older).unwrap();
    refused(&world, "wrong_identity", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_workload_is_refused() {
    let world = two_clusters().await;
    world.publish();
    let site = &world.sites["c1"];
    let why = Refusal::new(Reason::UnknownWorkload, "uid 1 is nobody's");
    let error = ask(world.call_as(&site.sidecar, Err(why)).await, b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let line = site.sidecar.line(1).await;
    assert_eq!((&line["reason"], &line["detail"]), (&"unknown_workload".into(), &"uid 1 is nobody's".into()));
    let other = site.ca.workload("default", "no-certificate-here");
    let _ = ask(world.call_as(&site.sidecar, Ok(other)).await, b"x").await.unwrap_err();
    assert_eq!(site.sidecar.line(2).await["reason"], "no_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingress_of_another_cluster_is_not_believed() {
    let mut world = World::new(&["c1", "c2", "c3"]).await;
    world.app("c2", echo).await;
    // What is published as c2's ingress is c3's: stolen address, wrong certificate.
    let stolen = world.sites["c3"].ingress.tunnel.to_string();
    world.spec.ingress.insert(cluster("c2"), [stolen.clone()].into());
    world.publish();
    let health = || async { world.sites["c1"].egress.shared.health.report() };
    let report = until("probe", LONG, health, |report| {
        report.get(&cluster("c2")).is_some_and(|peers| peers[&stolen].error.is_some())
    });
    let report = report.await;
    let state = &report[&cluster("c2")][&stolen];
    assert!(!state.handshake, "{state:?}");
    let told = world.sites["c1"].egress.shared.status(Generation::default()).peers;
    assert_eq!(told[&cluster("c2")][&stolen].error, state.error, "of a gateway of ours all may know");
    refused(&world, "no_healthy_target", Some("egress@c1")).await;
}

/// A cluster names addresses, and others dial them: it is no scanner of their networks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_an_address_is_whether_a_gateway_is_there() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [talks, nobody] = [&open, &closed].map(|listener| listener.local_addr().unwrap().to_string());
    drop(closed);
    tombolo_runtime::task::spawn("talks", async move {
        while let Ok((mut stream, _)) = open.accept().await {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        }
    });
    world.spec.ingress.insert(cluster("c2"), [talks.clone(), nobody.clone()].into());
    world.publish();
    let shared = &world.sites["c1"].egress.shared;
    let health = || async { shared.health.report().remove(&cluster("c2")).unwrap_or_default() };
    let failed = |peers: &std::collections::BTreeMap<String, _>| {
        let failed = |state: &tombolo_wire::message::PeerState| state.error.is_some();
        peers.len() == 2 && peers.values().all(failed)
    };
    let known = until("probes", LONG, health, failed).await;
    assert_ne!(known[&talks].error, known[&nobody].error, "people of this cluster see what is wrong");
    let told = shared.status(Generation::default()).peers.remove(&cluster("c2")).unwrap();
    assert_eq!(told[&talks], told[&nobody], "others do not");
}

/// Where it was told that no peer can be, a gateway tries nothing. That is a rule, and no news of its network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_clusters_own_addresses_are_left_alone_and_all_may_know() {
    let own = |config: &mut Config| config.never_dial = vec!["192.0.2.0/24".parse().unwrap()];
    let mut world = World::with(&["c1", "c2"], own).await;
    world.spec.ingress.insert(cluster("c2"), ["192.0.2.7:15443".to_owned()].into());
    world.publish();
    let shared = &world.sites["c1"].egress.shared;
    let told = || async {
        let mut peers = shared.status(Generation::default()).peers;
        peers.remove(&cluster("c2"))?.remove("192.0.2.7:15443")?.error
    };
    let rule =
        |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains("this cluster's own"));
    until("the rule", LONG, told, rule).await;
}

/// Nor by names: what one leads to is dialled as if it had been named itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_no_way_around_the_pace() {
    let mut world = two_clusters().await;
    let name = format!("localhost:{}", world.sites["c2"].ingress.tunnel.port());
    world.spec.ingress.insert(cluster("c2"), [name.clone()].into());
    let shared = &world.sites["c1"].egress.shared;
    let now = tokio::time::Instant::now();
    for number in 1..AT_ONCE {
        assert!(shared.pool.pace().newcomers().admit(&cluster("c2"), &format!("192.0.2.1:{number}"), now));
    }
    world.publish();
    let error = || async {
        let state = shared.health.report().remove(&cluster("c2"))?.remove(&name)?;
        state.error
    };
    let waits = |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains("waits"));
    until("the pace", LONG, error, waits).await;
}

/// Dials a gateway as somebody, and asks for something.
async fn dial(
    world: &World,
    gateway: &Gateway,
    credentials: &Credentials,
    connect: &Connect,
) -> Result<(), Refusal> {
    let bundle = world.org.store();
    let (limits, timing) = (Limits::default(), Timing::default());
    let dialer = Dialer {
        limits,
        timing,
        conns: Conns::new(10),
        bundle,
        loopback: true,
        never: [].into(),
        budget: Budget::new(1 << 20, 1 << 20),
    };
    let key = Key {
        identity: credentials.id().clone(),
        address: gateway.tunnel.to_string().into(),
        cluster: gateway.cluster.clone(),
        role: gateway.shared.config.role,
    };
    let tunnel = Pool::new(dialer, 1).tunnel(&key, credentials).await?;
    tunnel.open(connect).await.map(drop)
}

fn to_service(source: Option<SpiffeId>) -> Connect {
    Connect {
        destination: Destination::Service(service(), PORT),
        source,
        trace: Trace::fresh(),
        inner: Inner::None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hop_takes_the_right_peers_only() {
    let mut world = World::new(&["c1", "c2"]).await;
    let app = world.app("c2", echo).await;
    world.publish();
    let (c1, c2) = (&world.sites["c1"], &world.sites["c2"]);
    let caller = c1.ca.workload("default", "shopping");
    let shopping = c1.ca.credentials(&caller);
    let egress_of_1 = c1.ca.credentials(&c1.ca.gateway(GatewayRole::Egress));
    let ingress_of_2 = c2.ca.credentials(&c2.ca.gateway(GatewayRole::Ingress));
    let ask_ingress = to_service(Some(caller.clone()));

    // A workload may not go past its egress gateway, and an egress gateway of another cluster not past the ingress.
    for (gateway, credentials) in [
        (&c2.ingress, &shopping),
        (&c2.sidecar, &egress_of_1),
        (&c2.egress, &shopping),
        (&c1.egress, &egress_of_1),
    ] {
        let refusal = dial(&world, gateway, credentials, &ask_ingress).await.unwrap_err();
        assert!(
            matches!(refusal.reason, Reason::PeerUnreachable | Reason::TunnelLost | Reason::WrongIdentity),
            "{refusal}"
        );
    }
    // A cluster speaks for its own workloads alone.
    let theirs = to_service(Some(c2.ca.workload("default", "catalog")));
    let refusal = dial(&world, &c2.ingress, &egress_of_1, &theirs).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::WrongIdentity, "{refusal}");
    let nobody = dial(&world, &c2.ingress, &egress_of_1, &to_service(None)).await.unwrap_err();
    assert_eq!(nobody.reason, Reason::BadRequest, "{nobody}");
    assert_eq!(dial(&world, &c2.ingress, &egress_of_1, &ask_ingress).await, Ok(()));

    // A sidecar serves its own endpoints alone, each as the service it is.
    let endpoint = |address, name: &str, port| Connect {
        destination: Destination::Endpoint(address, name.parse().unwrap(), port),
        ..ask_ingress.clone()
    };
    let outcome =
        async |connect| dial(&world, &c2.sidecar, &ingress_of_2, &connect).await.map_err(|r| r.reason);
    assert_eq!(outcome(endpoint(app, NAME, PORT)).await, Ok(()));
    assert_eq!(outcome(endpoint(app, NAME, 1)).await, Err(Reason::NotExported));
    assert_eq!(outcome(endpoint(app, "x.acme.example.com", PORT)).await, Err(Reason::NotExported));
    assert_eq!(outcome(endpoint(c1.egress.tunnel, NAME, PORT)).await, Err(Reason::NotExported));
    assert_eq!(outcome(ask_ingress.clone()).await, Err(Reason::BadRequest));

    // And each gateway brings it only those callers whose way leads through that gateway.
    let egress_of_2 = c2.ca.credentials(&c2.ca.gateway(GatewayRole::Egress));
    let own = c2.ca.workload("default", "shopping");
    for (gateway, source, expected) in [
        (&ingress_of_2, &caller, Ok(())),
        (&ingress_of_2, &own, Err(Reason::WrongIdentity)),
        (&egress_of_2, &own, Ok(())),
        (&egress_of_2, &caller, Err(Reason::WrongIdentity)),
    ] {
        let connect = Connect { source: Some(source.clone()), ..endpoint(app, NAME, PORT) };
        let result = dial(&world, &c2.sidecar, gateway, &connect).await.map_err(|r| r.reason);
        assert_eq!(result, expected, "{} for {source}", gateway.id());
    }
    let refusal = dial(&world, &c2.ingress, &egress_of_1, &endpoint(app, NAME, PORT)).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::BadRequest, "an ingress gateway opens no addresses");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_is_who_the_certificate_says_not_the_header() {
    let world = two_clusters().await;
    let mut world = world;
    world.spec.tunnelled = false;
    world.spec.end_to_end = EndToEnd::None;
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    let c1 = &world.sites["c1"];
    let shopping = c1.ca.credentials(&c1.ca.workload("default", "shopping"));
    let claim = to_service(Some(c1.ca.workload("default", "admin")));
    assert_eq!(dial(&world, &c1.egress, &shopping, &claim).await, Ok(()));
    let line = world.sites["c2"].ingress.line(1).await;
    assert_eq!(line["source"], "spiffe://acme.tombolo.internal/cluster/c1/ns/default/sa/shopping");
}

/// Opens a connection and takes a right away: each of the gateways, when it is the first to hear of it, ends the
/// connection at once and says the true cause.
async fn ends(take: fn(&mut World), why: &str, gateways: &[(&'static str, GatewayRole)]) {
    for (site, role) in gateways {
        let mut world = two_clusters().await;
        world.publish();
        let mut client = world.call("c1").await;
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        let begin = Instant::now();
        take(&mut world);
        let gateway = match role {
            GatewayRole::Egress => &world.sites[site].egress,
            GatewayRole::Ingress => &world.sites[site].ingress,
            GatewayRole::Sidecar | GatewayRole::Node => &world.sites[site].sidecar,
        };
        gateway.shared.apply(&world.resources(site)).unwrap();
        let end = client.read(&mut [0]).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        let line = gateway.line(1).await;
        assert_eq!(line["reason"], why, "{line:#}");
        world.publish();
        let error = ask(world.call("c1").await, b"hello").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "and new ones do not come up");
    }
}

const EVERYBODY: [(&str, GatewayRole); 4] = [
    ("c1", GatewayRole::Sidecar),
    ("c1", GatewayRole::Egress),
    ("c2", GatewayRole::Ingress),
    ("c2", GatewayRole::Sidecar),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_the_callers_cluster_ends_its_connections() {
    ends(|world| world.org.revoke(&cluster("c1")), "revoked", &EVERYBODY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_the_servers_cluster_ends_connections_to_it() {
    ends(|world| world.org.revoke(&cluster("c2")), "revoked", &EVERYBODY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_may_call_no_more_loses_its_connections() {
    let who = [("c2", GatewayRole::Ingress), ("c2", GatewayRole::Sidecar)];
    ends(|world| world.spec.callers = [cluster("c2")].into(), "not_a_caller", &who).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_table_alone_ends_nothing() {
    let mut world = two_clusters().await;
    world.publish();
    let mut client = world.call("c1").await;
    world.app("c2", echo).await;
    world.org.join("c9");
    world.publish();
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
}
