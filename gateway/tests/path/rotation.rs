//! Which clusters and addresses are used at all: those that a handshake has proved and that go on proving it; and what
//! one cluster says never keeps a request from another one.

use crate::{
    failover::{healthy, nobody, passed_over_and_remembered, served_by, three_clusters},
    wire::Wire,
    world::{LONG, World, ask, cluster, echo},
};
use http::{Response, StatusCode};
use std::time::Duration;
use tokio::net::TcpListener;
use tombolo_model::{GatewayRole, health::Health};
use tombolo_mtls::server_config;
use tombolo_runtime::task;
use tombolo_testkit::{
    ca::{over, valid},
    wait::until,
};

/// An ingress gateway that takes tunnels, answers pings, and says this to every request.
async fn saying(world: &World, site: &str, status: StatusCode, reason: &'static str) -> String {
    let ca = &world.sites[site].ca;
    let credentials = ca.credentials(&ca.gateway(GatewayRole::Ingress));
    let config = server_config(&world.org.store(), &credentials, &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    task::spawn("saying", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let config = config.clone();
            task::spawn("saying-tunnel", async move {
                let (tls, _) = tombolo_mtls::accept(tcp, config).await.unwrap();
                let mut tunnel = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((_, mut respond))) = tunnel.accept().await {
                    let response = Response::builder()
                        .status(status)
                        .header("tombolo-reason", reason)
                        .header("tombolo-hop", "ingress@c2");
                    let _ = respond.send_response(response.body(()).unwrap(), true);
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_cluster_says_keeps_nobody_from_another() {
    for (status, reason) in [
        (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "unsupported_version"),
        (StatusCode::FORBIDDEN, "revoked"),
        (StatusCode::BAD_REQUEST, "bad_request"),
        (StatusCode::BAD_REQUEST, "cancelled"),
    ] {
        let mut world = three_clusters(|_| {}).await;
        let address = saying(&world, "c2", status, reason).await;
        world.spec.ingress.insert(cluster("c2"), [address].into());
        world.publish();
        healthy(&world, "c2", |health| health == Health::Healthy).await;
        healthy(&world, "c3", |health| health == Health::Healthy).await;
        passed_over_and_remembered(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_was_never_reached_is_not_used() {
    let mut world = three_clusters(|_| {}).await;
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.spec.ingress.insert(cluster("c2"), [silent.local_addr().unwrap().to_string()].into());
    world.publish();
    healthy(&world, "c3", |health| health == Health::Healthy).await;
    for count in 1..=5 {
        assert_eq!(served_by(&world).await, "c3");
        let line = world.sites["c1"].egress.line(count).await;
        assert_eq!(line["attempts"], 1, "the nearer one was not asked: {line:#}");
    }
    // Also not where there is nobody else.
    world.spec.ingress.insert(cluster("c3"), [nobody().await.to_string()].into());
    world.publish();
    ask(world.call("c1").await, b"hello").await.unwrap_err();
    let line = world.sites["c1"].egress.line(6).await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"no_healthy_target".into(), &0.into()), "{line:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_waits_for_the_first_handshake() {
    // A hedge that is over at once: what is waited for is the handshake.
    let mut world =
        World::with(&["c1", "c2", "c3"], |config| config.timing.hedge = Duration::from_millis(1)).await;
    world.app("c2", echo).await;
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    wire.cut(true);
    // Another peer, of no use to the request: its first probe stays open, too, and then fails.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.spec.ingress = [
        (cluster("c2"), [wire.address.clone()].into()),
        (cluster("c3"), [other.local_addr().unwrap().to_string()].into()),
    ]
    .into();
    world.publish();
    let request = task::spawn("request", ask(world.call("c1").await, b"hello"));
    let egress = &world.sites["c1"].egress.shared;
    until("the request waits", LONG, || async { egress.conns.len() }, |count| *count == 1).await;
    drop(other);
    healthy(&world, "c3", |health| health == Health::Dead).await;
    wire.cut(false);
    assert_eq!(request.await.unwrap().unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_certificate_is_tried_at_once() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    let wire = Wire::to(world.sites["c2"].ingress.tunnel).await;
    world.spec.ingress.insert(cluster("c2"), [wire.address.clone()].into());
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    assert_eq!(wire.taken(), 1);
    let site = &world.sites["c1"];
    let own = site.egress.shared.credentials.own().unwrap();
    let (chain, key) = site.ca.leaf(own.id(), valid());
    own.set(&chain, key).unwrap();
    until("a second tunnel", LONG, || async { wire.taken() }, |taken| *taken == 2).await;
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    assert_eq!(served_by(&world).await, "c2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_new_tunnel_is_out_though_it_answers() {
    let mut world = World::with(&["c1", "c2"], |config| {
        config.timing.proof = Duration::from_millis(200);
        // No silence is ever found: the tunnel that stands answers.
        config.timing.dead = LONG;
    })
    .await;
    world.app("c2", echo).await;
    world.publish();
    healthy(&world, "c2", |health| health == Health::Healthy).await;
    let site = &world.sites["c2"];
    let theirs = site.ingress.shared.credentials.own().unwrap();
    let (chain, key) = site.ca.leaf(theirs.id(), over());
    theirs.set(&chain, key).unwrap();
    healthy(&world, "c2", |health| health == Health::Dead).await;
    let (chain, key) = site.ca.leaf(theirs.id(), valid());
    theirs.set(&chain, key).unwrap();
    healthy(&world, "c2", |health| health == Health::SlowStart).await;
    assert_eq!(served_by(&world).await, "c2");
}
