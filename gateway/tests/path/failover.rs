//! Something is broken, and the connection gets through all the same.

use crate::{
    wire::Wire,
    world::{Gateway, LONG, VIP, World, ask, cluster, echo},
};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tombolo_gateway::config::{Config, Timing};
use tombolo_model::{GatewayRole, Proximity, health::Health};
use tombolo_testkit::wait::until;

/// An address where nobody listens.
pub(crate) async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The sidecar of c1 knows another egress gateway besides the one there is.
fn two_egress(world: &World, other: std::net::SocketAddr) {
    let mut resources = world.resources("c1");
    let both = std::collections::BTreeSet::from([other, world.sites["c1"].egress.tunnel]).into();
    resources.insert(
        tombolo_model::snapshot::ResourceKey::new("gateways", ""),
        tombolo_model::snapshot::GatewayResource::Gateways { egress: both },
    );
    world.sites["c1"].sidecar.shared.apply(&resources).unwrap();
}

pub(crate) async fn three_clusters(tweak: impl Fn(&mut Config)) -> World {
    let mut world = World::with(&["c1", "c2", "c3"], tweak).await;
    world.app("c2", echo).await;
    world.app("c3", echo).await;
    world.spec.proximity = [(cluster("c2"), Proximity::Zone), (cluster("c3"), Proximity::Elsewhere)].into();
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_made_again_and_again() {
    let mut world =
        World::with(&["c1", "c2"], |config| config.timing.proof = Duration::from_millis(20)).await;
    world.app("c2", echo).await;
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    let connections = || async { wire.taken() };
    tombolo_testkit::wait::until("handshakes", LONG, connections, |count| *count > 5).await;
    // None of them counted as a failure.
    let report = world.sites["c1"].egress.shared.health.report();
    assert!(report[&cluster("c2")].values().all(|state| state.health == Health::Healthy), "{report:?}");
}

pub(crate) async fn served_by(world: &World) -> String {
    let before = world.sites["c1"].sidecar.log().len();
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    world.sites["c1"].sidecar.line(before + 1).await["cluster"].as_str().unwrap().to_owned()
}

pub(crate) async fn healthy(world: &World, name: &str, want: fn(Health) -> bool) {
    let look = || async { world.sites["c1"].egress.shared.health.report() };
    let good = |report: &std::collections::BTreeMap<_, std::collections::BTreeMap<String, _>>| {
        report.get(&cluster(name)).is_some_and(|peers| {
            peers.values().all(|state: &tombolo_wire::message::PeerState| want(state.health))
        })
    };
    tombolo_testkit::wait::until("health", LONG, look, good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_refuses_is_passed_over() {
    for tunnelled in [true, false] {
        let mut world = World::new(&["c1", "c2"]).await;
        world.app("c2", echo).await;
        let gone = nobody().await;
        world.sites.get_mut("c2").unwrap().endpoints.push(gone);
        world.spec.tunnelled = tunnelled;
        world.spec.end_to_end = tombolo_model::snapshot::EndToEnd::Some;
        world.publish();
        for _ in 0..10 {
            assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_the_refusal_says_so() {
    let mut world = World::new(&["c1", "c2"]).await;
    let gone = nobody().await;
    world.sites.get_mut("c2").unwrap().endpoints.push(gone);
    world.publish();
    ask(world.call("c1").await, b"hello").await.unwrap_err();
    let line = world.sites["c1"].sidecar.line(1).await;
    assert_eq!(
        (&line["reason"], &line["hop"]),
        (&"endpoint_refused".into(), &"sidecar@c2".into()),
        "{line:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_refuses_is_passed_over_at_once() {
    let mut world = three_clusters(|_| {}).await;
    let gone = nobody().await;
    world.sites.get_mut("c2").unwrap().endpoints = vec![gone];
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    healthy(&world, "c3", |health| health == Health::Healthy).await;
    passed_over_and_remembered(&world).await;
}

/// As in the moment after a cluster's sidecar died, before the others heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_would_answer_without_the_inner_session_is_passed_over() {
    let mut world = three_clusters(|_| {}).await;
    world.spec.plain = [cluster("c2")].into();
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    healthy(&world, "c3", |health| health == Health::Healthy).await;
    passed_over_and_remembered(&world).await;
}

/// The next request of c1 goes to c3 after c2 refused it, and soon some go there at once.
pub(crate) async fn passed_over_and_remembered(world: &World) {
    assert_eq!(served_by(world).await, "c3");
    let egress = &world.sites["c1"].egress;
    assert_eq!(egress.line(1).await["attempts"], 2);
    // A refusal counts for half a second at first, then for longer: on a busy machine not the very next request.
    let begin = Instant::now();
    loop {
        let before = egress.log().len();
        assert_eq!(served_by(world).await, "c3");
        if egress.line(before + 1).await["attempts"] == 1 {
            break;
        }
        assert!(begin.elapsed() < LONG, "c2's refusal is not remembered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_cluster_costs_a_quarter_second_and_then_nothing() {
    // Probes take longer to notice than the first call.
    let mut world = three_clusters(|config| config.timing.dead = Duration::from_secs(3)).await;
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    healthy(&world, "c3", |health| health == Health::Healthy).await;
    // It goes on taking connections and never says a word: what a machine that hangs looks like.
    wire.cut(true);
    let begin = Instant::now();
    assert_eq!(served_by(&world).await, "c3");
    let took = begin.elapsed();
    // `race` has the exact time, with a clock that stands still.
    let timing = Timing::default();
    assert!(
        (timing.hedge..timing.dial).contains(&took),
        "it waited for the silence, not for the dial: {took:?}"
    );
    let line = world.sites["c1"].egress.line(1).await;
    assert_eq!((&line["attempts"], &line["cluster"]), (&2.into(), &"c3".into()), "{line:#}");
    // Its prober finds it dead, and then nobody waits for it any more: c3 is asked first.
    healthy(&world, "c2", |health| health == Health::Dead).await;
    let c3 = || world.sites["c3"].ingress.log().len();
    let before = c3();
    assert_eq!(served_by(&world).await, "c3");
    let line = world.sites["c1"].egress.line(2).await;
    assert_eq!((&line["attempts"], &line["cluster"]), (&1.into(), &"c3".into()), "{line:#}");
    assert_eq!(c3(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_gateway_that_hangs_is_out_and_comes_back() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    let site = &world.sites["c1"];
    let second = Gateway::start(GatewayRole::Egress, &site.ca, |_| {}).await;
    second.shared.apply(&world.resources("c1")).unwrap();
    let wire = Wire::to(second.tunnel).await;
    two_egress(&world, wire.address.parse().unwrap());
    let state = || async {
        let report = site.sidecar.shared.egress_health.report();
        report.get(&cluster("c1")).and_then(|all| all.get(&wire.address)).map(|state| state.health)
    };
    until("found healthy", LONG, state, |health| *health == Some(Health::Healthy)).await;
    // Both carry calls, so that tunnels to both are there.
    let both = || async {
        ask(world.call("c1").await, b"hello").await.unwrap();
        !second.log().is_empty()
    };
    until("the second is used", LONG, both, |used: &bool| *used).await;
    wire.cut(true);
    until("found dead", LONG, state, |health| *health == Some(Health::Dead)).await;
    let before = site.sidecar.log().len();
    for count in 1..=10 {
        assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
        let line = site.sidecar.line(before + count).await;
        assert_eq!((&line["attempts"], &line["reason"]), (&1.into(), &"ok".into()), "{line:#}");
    }
    wire.cut(false);
    until("back", LONG, state, |health| *health == Some(Health::SlowStart)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_gateway_that_takes_no_handshake_costs_a_quarter_second() {
    // Nothing but the short silence may help: no probe, and no silence of an egress gateway that is reached.
    let patient = |config: &mut tombolo_gateway::config::Config| {
        config.timing.gateway_hedge = LONG * 2;
        config.timing.dead = LONG * 2;
        config.timing.dial = LONG;
    };
    let mut world = World::with(&["c1", "c2"], patient).await;
    world.app("c2", echo).await;
    world.publish();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    two_egress(&world, silent.local_addr().unwrap());
    let begin = Instant::now();
    // Side by side, so that the less loaded of the two is now the one and now the other.
    let calls = (0..6).map(|_| async { ask(world.call("c1").await, b"hello").await.unwrap() });
    assert!(futures::future::join_all(calls).await.iter().all(|answer| answer == b"hello"));
    let took = begin.elapsed();
    assert!((Timing::default().hedge..LONG).contains(&took), "{took:?}");
    let lines = world.sites["c1"].sidecar.log();
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_cluster_is_out_and_back_slowly() {
    let mut world = three_clusters(|_| {}).await;
    // A wire that can be cut without a word, between the egress gateway and c2.
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    assert_eq!(served_by(&world).await, "c2");
    wire.cut(true);
    healthy(&world, "c2", |health| health == Health::Dead).await;
    assert_eq!(served_by(&world).await, "c3");
    let line = world.sites["c1"].egress.line(2).await;
    assert_eq!(line["attempts"], 1, "nobody waits for it any more: {line:#}");
    wire.cut(false);
    healthy(&world, "c2", |health| health == Health::SlowStart).await;
    let mut far = 0;
    for _ in 0..20 {
        far += u32::from(served_by(&world).await == "c3");
    }
    assert!(far > 4, "the far cluster keeps a share at first: {far} of 20");
    let report = world.sites["c1"].egress.shared.health.report();
    assert!(report[&cluster("c2")].values().all(|state| state.handshake && state.rtt_us.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_egress_gateway_that_is_gone_is_passed_over() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    two_egress(&world, nobody().await);
    for _ in 0..10 {
        assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_go_to_is_said_at_once() {
    let world = World::new(&["c1", "c2"]).await;
    world.publish();
    ask(world.call("c1").await, b"hello").await.unwrap_err();
    let line = world.sites["c1"].sidecar.line(1).await;
    assert_eq!(
        (&line["reason"], &line["hop"]),
        (&"no_ready_endpoint".into(), &"egress@c1".into()),
        "{line:#}"
    );
    assert_eq!(line["original"], format!("{VIP}:8082"));
}
