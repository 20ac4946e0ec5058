//! A gateway that is about to end: what is quiet ends in order, what is under way with a reset.

use crate::world::{Gateway, LONG, World};
use std::{collections::BTreeMap, io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};
use tombolo_gateway::reason::Reason;
use tombolo_model::{GatewayRole, snapshot::EndToEnd};
use tombolo_testkit::wait::until;

/// Answers each byte with one, `w` not before it may.
async fn answer(mut stream: TcpStream, mut may: watch::Receiver<bool>) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).await.is_ok() {
        if byte[0] == b'w' {
            may.wait_for(|may| *may).await.unwrap();
        }
        if stream.write_all(&byte).await.is_err() {
            break;
        }
    }
}

async fn world(end_to_end: EndToEnd, may: &watch::Sender<bool>) -> World {
    let quick = |config: &mut tombolo_gateway::config::Config| {
        // gateways long before sidecars
        let gateway = matches!(config.role, GatewayRole::Egress | GatewayRole::Ingress);
        config.timing.quiet = Duration::from_millis(if gateway { 100 } else { 1000 });
    };
    let mut world = World::with(&["c1", "c2"], quick).await;
    (world.spec.tunnelled, world.spec.end_to_end) = (end_to_end == EndToEnd::All, end_to_end);
    let may = may.subscribe();
    world.app("c2", move |stream| answer(stream, may.clone())).await;
    world.publish();
    world
}

/// A connection on which these bytes were sent, each after the answer to the one before.
async fn kept(world: &World, bytes: &[u8]) -> TcpStream {
    let mut client = world.call("c1").await;
    for byte in bytes {
        client.write_all(&[*byte]).await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    }
    client
}

/// How it ends: in order, or with a reset; without a byte more.
async fn end(client: &mut TcpStream) -> Result<(), ErrorKind> {
    let end = tokio::time::timeout(LONG, client.read(&mut [0])).await.expect("an end");
    end.map(|length| assert_eq!(length, 0)).map_err(|error| error.kind())
}

/// What the log says of how many connections.
async fn log(gateway: &Gateway, count: usize) -> BTreeMap<(String, Option<String>), usize> {
    gateway.line(count).await;
    let mut ends = BTreeMap::new();
    for line in gateway.log() {
        let text = |what: &str| line[what].as_str().map(str::to_owned);
        *ends.entry((text("reason").unwrap(), text("detail"))).or_default() += 1;
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_quiet_ends_in_order_and_what_is_under_way_goes_on_until_it_is_cut() {
    for role in ["egress", "ingress"] {
        let may = watch::Sender::new(false);
        let world = world(EndToEnd::None, &may).await;
        // asked and not answered; answered once, so that nobody knows whether more comes; one of which the client says that it asks no more
        let mut asks = kept(&world, b"xx").await;
        asks.write_all(b"w").await.unwrap();
        let mut once = kept(&world, b"x").await;
        let mut half = kept(&world, b"xx").await;
        half.write_all(b"w").await.unwrap();
        half.shutdown().await.unwrap();
        let mut idle = kept(&world, b"xx").await;
        let gateway = if role == "egress" { &world.sites["c1"].egress } else { &world.sites["c2"].ingress };
        gateway.shared.conns.end_quiet();
        assert_eq!(end(&mut idle).await, Ok(()), "{role}");
        may.send_replace(true);
        let mut answer = [0];
        asks.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"w", "what was under way is answered, and only then it ends");
        assert_eq!(end(&mut asks).await, Ok(()), "{role}");
        half.read_exact(&mut answer).await.unwrap();
        assert_eq!(end(&mut half).await, Ok(()), "by its server");
        let others = || async { gateway.shared.conns.len() };
        until("one is left", LONG, others, |open| *open == 1).await;
        gateway.shared.conns.end_all(Reason::Draining);
        assert_eq!(end(&mut once).await, Err(ErrorKind::ConnectionReset), "{role}");
        let quiet = "this gateway ends, and nothing was under way".to_owned();
        let ends = [
            (("draining".to_owned(), None), 1),
            (("ok".to_owned(), None), 1),
            (("ok".to_owned(), Some(quiet)), 2),
        ];
        assert_eq!(log(gateway, 4).await, BTreeMap::from(ends), "{role}");
    }
}

/// An end without the session's own word would be a reset to the application: a gateway on the way leaves it to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_workloads_is_ended_in_order_by_their_sidecars_alone() {
    let may = watch::Sender::new(false);
    let world = world(EndToEnd::All, &may).await;
    let mut client = kept(&world, b"xx").await;
    let site = &world.sites["c1"];
    site.egress.shared.conns.end_quiet();
    site.sidecar.shared.conns.end_quiet();
    assert_eq!(end(&mut client).await, Ok(()));
    let line = site.egress.line(1).await;
    assert_eq!((&line["reason"], &line["detail"]), (&"ok".into(), &serde_json::Value::Null), "{line}");
}
