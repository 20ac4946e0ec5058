//! Something is broken, and the connection gets through all the same.

use crate::{
    wire::Wire,
    world::{LONG, VIP, World, ask, cluster, echo},
};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tombolo_gateway::config::{Config, Timing};
use tombolo_model::{Proximity, health::Health};

/// An address where nobody listens.
pub(crate) async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) async fn three_clusters(tweak: impl Fn(&mut Config)) -> World {
    let mut world = World::with(&["c1", "c2", "c3"], tweak).await;
    world.app("c2", echo).await;
    world.app("c3", echo).await;
    world.spec.proximity = [(cluster("c2"), Proximity::Zone), (cluster("c3"), Proximity::Elsewhere)].into();
    world
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
async fn a_silent_cluster_costs_a_quarter_second() {
    // No probe finds the silence here: the request itself must get over it.
    let mut world = three_clusters(|config| config.timing.dead = LONG * 10).await;
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    // Warm, so that only the silence is measured.
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    healthy(&world, "c3", |health| health == Health::Healthy).await;
    assert_eq!(served_by(&world).await, "c2");
    wire.cut(true);
    let begin = Instant::now();
    assert_eq!(served_by(&world).await, "c3");
    let took = begin.elapsed();
    // Not before the quarter second (`race` has the exact time, with a clock that stands still), and not because
    // the silent one was given up.
    let Timing { hedge, open, .. } = Timing::default();
    assert!((hedge..open).contains(&took), "{took:?}");
    let line = world.sites["c1"].egress.line(2).await;
    assert_eq!((&line["attempts"], &line["cluster"]), (&2.into(), &"c3".into()), "{line:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_cluster_is_out_within_a_second_and_back_slowly() {
    let mut world = three_clusters(|_| {}).await;
    // A wire that can be cut without a word, between the egress gateway and c2.
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    assert_eq!(served_by(&world).await, "c2");
    let Timing { probe, dead, .. } = Timing::default();
    assert!(probe + dead < Duration::from_secs(1), "the longest that a silence goes unseen");
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
    let gone = nobody().await;
    let mut resources = world.resources("c1");
    let both = [gone, world.sites["c1"].egress.tunnel].into();
    resources.insert(
        tombolo_model::snapshot::ResourceKey::new("gateways", ""),
        tombolo_model::snapshot::GatewayResource::Gateways { egress: both },
    );
    world.sites["c1"].sidecar.shared.apply(&resources).unwrap();
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
