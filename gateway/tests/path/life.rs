//! A gateway's own life: certificates rotate, bounds hold, and it ends in order.

use crate::world::{LONG, World, ask, echo};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_gateway::reason::Reason;
use tombolo_model::GatewayRole;
use tombolo_runtime::drain::Drained;
use tombolo_testkit::ca::valid;

async fn two_clusters() -> World {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    world
}

async fn exchange(client: &mut TcpStream) {
    let mut byte = [0];
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_drops_nothing_and_new_tunnels_use_the_new_certificate() {
    let world = two_clusters().await;
    let mut client = world.call("c1").await;
    exchange(&mut client).await;
    let egress = &world.sites["c1"].egress.shared;
    assert_eq!(egress.pool.len(), 1);
    // Every identity on the path gets a new certificate.
    for site in world.sites.values() {
        for (gateway, role) in [
            (&site.egress, GatewayRole::Egress),
            (&site.ingress, GatewayRole::Ingress),
            (&site.sidecar, GatewayRole::Sidecar),
        ] {
            let credentials = gateway.shared.credentials.own().unwrap();
            let mut validity = valid();
            validity.not_after += Duration::from_secs(60);
            let (chain, key) = site.ca.leaf(&site.ca.gateway(role), validity);
            credentials.set(&chain, key).unwrap();
        }
        for id in site.sidecar.shared.credentials.ids() {
            let mut validity = valid();
            validity.not_after += Duration::from_secs(60);
            let (chain, key) = site.ca.leaf(&id, validity);
            site.sidecar.shared.credentials.get(&id).unwrap().set(&chain, key).unwrap();
        }
    }
    exchange(&mut client).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    assert_eq!(egress.pool.len(), 1, "the old tunnel takes no new streams");
    exchange(&mut client).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let lines = world.sites["c1"].sidecar.line(2).await;
    assert_eq!(lines["reason"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_what_is_under_way() {
    let mut world = two_clusters().await;
    let mut client = world.call("c1").await;
    exchange(&mut client).await;
    let drain = world.sites.get_mut("c2").unwrap().ingress.drain.take().unwrap();
    let draining = tombolo_runtime::task::spawn("drain", drain.drain(LONG));
    // Wait until the gateway before has heard of it: a new connection finds no way.
    let refused = || async { ask(world.call("c1").await, b"hello").await.is_err() };
    tombolo_testkit::wait::until("goodbye", LONG, refused, |refused| *refused).await;
    exchange(&mut client).await;
    assert!(!draining.is_finished());
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(draining.await.unwrap(), Drained::All);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_finish_in_time_is_cut_and_says_so() {
    let world = two_clusters().await;
    let mut client = world.call("c1").await;
    exchange(&mut client).await;
    world.sites["c2"].ingress.shared.conns.end_all(Reason::Draining);
    assert!(client.read(&mut [0]).await.is_err());
    assert_eq!(world.sites["c2"].ingress.line(1).await["reason"], "draining");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_the_bound_are_refused() {
    let mut world = World::with(&["c1", "c2"], |config| config.limits.connections = 3).await;
    world.app("c2", echo).await;
    world.publish();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = world.call("c1").await;
        exchange(&mut client).await;
        open.push(client);
    }
    ask(world.call("c1").await, b"hello").await.unwrap_err();
    assert_eq!(world.sites["c1"].sidecar.line(1).await["reason"], "overloaded");
    drop(open);
    let served = || async { ask(world.call("c1").await, b"hello").await.is_ok() };
    tombolo_testkit::wait::until("room again", LONG, served, |served| *served).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_one_tunnel_get_another() {
    let few = |config: &mut tombolo_gateway::config::Config| {
        config.limits.streams = 8;
        config.limits.pool_streams = 4;
    };
    let mut world = World::with(&["c1", "c2"], few).await;
    world.app("c2", echo).await;
    world.publish();
    let mut open = Vec::new();
    for _ in 0..40 {
        let mut client = world.call("c1").await;
        exchange(&mut client).await;
        open.push(client);
    }
    let tunnels = world.sites["c1"].egress.shared.pool.len();
    assert!((5..=8).contains(&tunnels), "{tunnels}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_resets_leave_the_tunnel_to_the_others() {
    let mut world = World::new(&["c1", "c2"]).await;
    let serve = |mut stream: TcpStream| async move {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() && byte[0] != b'r' {
            let _ = stream.write_all(&byte).await;
        }
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    };
    world.app("c2", serve).await;
    world.publish();
    let mut steady = world.call("c1").await;
    exchange(&mut steady).await;
    for _ in 0..150 {
        let mut client = world.call("c1").await;
        client.write_all(b"r").await.unwrap();
        assert!(client.read(&mut [0]).await.is_err(), "reset");
        exchange(&mut steady).await;
    }
    assert_eq!(world.sites["c1"].egress.shared.pool.len(), 1);
}
