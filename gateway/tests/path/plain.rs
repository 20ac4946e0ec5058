//! Callers without a proxy (capture mode `gateway`): an egress gateway takes their connections itself.

use crate::world::{LONG, NAME, PORT, World, ask, echo};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::net::{TcpListener, TcpStream};
use tombolo_gateway::capture::{self, Handle, Mode, Problems};
use tombolo_model::snapshot::EndToEnd;
use tombolo_runtime::drain;
use tombolo_testkit::wait::{until, until_ok};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The egress gateway of `c1` takes connections to the name at a port, of other addresses too; gives it.
async fn captured(world: &mut World, beside: &BTreeSet<IpAddr>) -> (SocketAddr, Handle, drain::Drain) {
    let free =
        TcpListener::bind((LOOPBACK, 0)).await.and_then(|socket| socket.local_addr()).expect("a free port");
    world.spec.captured_at = Some(free.port());
    world.publish();
    let (drain, watch) = drain::channel();
    let shared = world.sites["c1"].egress.shared.clone();
    let mut config = shared.config.clone();
    config.beside = beside.clone();
    let handle = capture::start(shared, Mode::of(&config), Problems::new(), watch).await.expect("captured");
    handle.followed(&world.sites["c1"].egress.shared).await;
    (free, handle, drain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_proxy_reaches_another_cluster() {
    for sidecars in [true, false] {
        let mut world = World::new(&["c1", "c2"]).await;
        world.app("c2", echo).await;
        world.spec.tunnelled = sidecars;
        world.spec.end_to_end = if sidecars { EndToEnd::All } else { EndToEnd::None };
        let (at, _handle, _drain) = captured(&mut world, &BTreeSet::new()).await;
        let client = TcpStream::connect(at).await.unwrap();
        assert_eq!(ask(client, b"hello").await.unwrap(), b"hello", "sidecars: {sidecars}");
        let line = world.sites["c1"].egress.line(1).await;
        assert_eq!(
            (&line["destination"], &line["cluster"]),
            (&format!("{NAME}:{PORT}").into(), &"c2".into())
        );
        assert_eq!(line["reason"], "ok");
        assert!(line["source"].is_null(), "nobody knows who it is: {line}");
        let line = world.sites["c2"].ingress.line(1).await;
        let source = line["source"].as_str().unwrap();
        assert!(source.ends_with("/cluster/c1/gateway/egress"), "the cluster answers for it: {source}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_may_not_call_is_refused_and_a_port_that_is_gone_is_closed() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.spec.callers = [crate::world::cluster("c2")].into();
    let (at, _handle, _drain) = captured(&mut world, &BTreeSet::new()).await;
    let answer = || async { ask(TcpStream::connect(at).await?, b"hello").await };
    // It is reset, which may be seen as soon as it is there: what the gateway says of it follows.
    let error = answer().await;
    assert!(error.is_err(), "{error:?}");
    assert_eq!(world.sites["c1"].egress.line(1).await["reason"], "not_a_caller");

    world.spec.callers.insert(crate::world::cluster("c1"));
    world.publish();
    assert_eq!(until_ok("an answer", LONG, answer).await, b"hello");
    world.spec.captured_at = None;
    world.publish();
    let _ = until("closed", LONG, || TcpStream::connect(at), Result::is_err).await;
}

/// A pod of a cluster with two address families has an address in each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_both_families_are_taken() {
    let other = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    let (at, _handle, _drain) = captured(&mut world, &[other].into()).await;
    for address in [at, SocketAddr::new(other, at.port())] {
        let client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(client, b"hello").await.unwrap(), b"hello", "{address}");
    }
    assert_eq!(world.sites["c1"].egress.line(2).await["reason"], "ok");
}
