//! What strangers and peers can make grow has a bound, and what is refused is counted with its reason.

use crate::world::{Gateway, LONG, NAME, PORT, World, ask, echo};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tombolo_gateway::{config::Config, reason::Reason};
use tombolo_model::{GatewayRole, health::Health, snapshot::EndToEnd};
use tombolo_mtls::{Credentials, Expect, client_config, server_config};
use tombolo_runtime::task;
use tombolo_testkit::wait::until;

async fn world(tweak: impl Fn(&mut Config)) -> World {
    let mut world = World::with(&["c1", "c2"], tweak).await;
    world.app("c2", echo).await;
    world.publish();
    world
}

pub(crate) fn workload(world: &World, account: &str) -> Credentials {
    let ca = &world.sites["c1"].ca;
    ca.credentials(&ca.workload("default", account))
}

pub(crate) async fn tls(world: &World, credentials: &Credentials) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(world.sites["c1"].egress.tunnel).await.unwrap();
    let expect = Expect::Gateway { cluster: None, role: GatewayRole::Egress };
    let config = client_config(&world.org.store(), credentials, expect, &[b"h2"]);
    tombolo_mtls::connect(tcp, config, "gateway".try_into().unwrap()).await.unwrap().0
}

async fn refused(gateway: &Gateway, reason: Reason, least: u64) {
    let count = || async { gateway.shared.metrics.tunnels_refused(reason) };
    until(reason.as_str(), LONG, count, |count| *count >= least).await;
    // Each has its line, with the reason and where it came from.
    let lines = || async { gateway.log() };
    let of_tunnels = |lines: &Vec<serde_json::Value>| {
        let such =
            |line: &&serde_json::Value| line["reason"] == reason.as_str() && line["client"].is_string();
        lines.iter().filter(such).count() as u64 >= least
    };
    until("the access log", LONG, lines, of_tunnels).await;
}

/// Waits for the other side to end the connection.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    rest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_in_their_handshake_take_no_place_of_a_tunnel() {
    let few = |config: &mut Config| {
        (config.limits.handshakes, config.limits.address_handshakes) = (6, 6);
        config.limits.tunnels = 8;
        config.timing.handshake = Duration::from_secs(3);
    };
    let world = world(few).await;
    let egress = &world.sites["c1"].egress;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    // They come without a word, until there is no more room for strangers.
    let mut silent = Vec::new();
    while egress.shared.metrics.tunnels_refused(Reason::Overloaded) < 20 {
        // One that is refused at once may see it while it connects.
        silent.extend(TcpStream::connect(egress.tunnel).await.ok());
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello", "who is known goes on");
    for stream in &mut silent {
        ended(stream).await;
    }
    refused(egress, Reason::Timeout, 6).await;
    drop(tls(&world, &workload(&world, "shopping")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_takes_a_part_of_the_handshakes() {
    let world = world(|config| config.limits.address_handshakes = 3).await;
    let egress = &world.sites["c1"].egress;
    let from = |ip: [u8; 4]| async move {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        socket.connect(egress.tunnel).await.ok()
    };
    let mut silent = Vec::new();
    while egress.shared.metrics.tunnels_refused(Reason::Overloaded) < 3 {
        silent.extend(from([127, 0, 0, 77]).await);
        tokio::task::yield_now().await;
    }
    // Another address has its own.
    drop(tls(&world, &workload(&world, "shopping")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_byte_by_byte_has_the_same_deadline() {
    let world = world(|config| config.timing.handshake = Duration::from_millis(700)).await;
    let (mut read, mut write) =
        TcpStream::connect(world.sites["c1"].egress.tunnel).await.unwrap().into_split();
    let dripping = task::spawn("drip", async move {
        // A client hello of 508 bytes, which never comes whole.
        let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 400]].concat();
        for byte in hello {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(ended(&mut read).await, b"");
    assert!(!dripping.is_finished(), "it was ended while it still sent");
    refused(&world.sites["c1"].egress, Reason::Timeout, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tunnel_is_refused_with_its_reason() {
    let world = world(|_| {}).await;
    let egress = &world.sites["c1"].egress;
    let mut plain = TcpStream::connect(egress.tunnel).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    ended(&mut plain).await;
    refused(egress, Reason::PeerUnreachable, 1).await;
    let mut inside = tls(&world, &workload(&world, "shopping")).await;
    inside.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    ended(&mut inside).await;
    refused(egress, Reason::BadRequest, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_takes_a_part_of_the_tunnels() {
    let world = world(|config| config.limits.peer_tunnels = 3).await;
    let egress = &world.sites["c1"].egress;
    let cart = workload(&world, "cart");
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(h2::client::handshake(tls(&world, &cart).await).await.unwrap());
    }
    let count = || async { egress.shared.tunnel_loads.of(cart.id()) };
    until("three tunnels", LONG, count, |count| *count == 3).await;
    let mut fourth = tls(&world, &cart).await;
    ended(&mut fourth).await;
    refused(egress, Reason::Overloaded, 1).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello", "others have their own");
    open.pop();
    until("two tunnels", LONG, count, |count| *count == 2).await;
    let (_send, connection) = h2::client::handshake(tls(&world, &cart).await).await.unwrap();
    let _alive = task::spawn("connection", connection);
    until("three again", LONG, count, |count| *count == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_without_streams_ends_and_one_with_a_stream_stays() {
    let world = world(|config| config.timing.idle_taken = Duration::from_millis(2500)).await;
    let mut busy = world.call("c1").await;
    let mut byte = [0];
    busy.write_all(b"x").await.unwrap();
    busy.read_exact(&mut byte).await.unwrap();
    let health = || world.sites["c1"].egress.shared.health.report();
    let alarms = task::spawn("alarms", {
        let shared = world.sites["c1"].egress.shared.clone();
        async move {
            // The prober's own tunnel has no streams either. That it is told to go is no alarm.
            loop {
                let report = shared.health.report();
                if let Some(state) =
                    report.values().flat_map(|peer| peer.values()).find(|s| s.error.is_some())
                {
                    return state.error.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let cart = workload(&world, "cart");
    for _ in 0..2 {
        let (_send, connection) = h2::client::handshake(tls(&world, &cart).await).await.unwrap();
        // In order, or the gateway closed before it heard this side's goodbye.
        let _ = timeout(LONG, connection).await.expect("it is told to end");
    }
    busy.write_all(b"x").await.unwrap();
    busy.read_exact(&mut byte).await.unwrap();
    assert!(health().values().flat_map(|peer| peer.values()).all(|state| state.health == Health::Healthy));
    assert!(!alarms.is_finished(), "{:?}", alarms.await);
    alarms.abort();
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn literal(name: &[u8], value: &str) -> Vec<u8> {
    [name, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// Streams that are opened and reset in one breath (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_taken_back_ends_its_tunnel_alone() {
    let world = world(|config| config.limits.cancelled = 50).await;
    let stream = tls(&world, &workload(&world, "cart")).await;
    let protocol = [&[0, 16][..], b"tombolo-protocol"].concat();
    let head =
        [literal(&[2], "CONNECT"), literal(&[1], &format!("{NAME}:{PORT}")), literal(&protocol, "1.0")];
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    flood.extend(frame(4, 0, 0, &[]));
    for number in 0..400 {
        flood.extend(frame(1, 4, number * 2 + 1, &head.concat()));
        flood.extend(frame(3, 0, number * 2 + 1, &8_u32.to_be_bytes()));
    }
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = task::spawn("flood", async move {
        let _ = write.write_all(&flood).await;
        let _ = write.flush().await;
        write
    });
    let answer = ended(&mut read).await;
    drop(writing.await);
    let mut rest = &answer[..];
    let mut goodbye = None;
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == 7 {
            goodbye = rest.get(13..17).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    assert_eq!(goodbye, Some(h2::Reason::ENHANCE_YOUR_CALM.into()));
    refused(&world.sites["c1"].egress, Reason::Overloaded, 1).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
}

/// A peer that says goodbye after each stream is dialled again, and no call is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_costs_no_call() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    let ca = &world.sites["c2"].ca;
    let config =
        server_config(&world.org.store(), &ca.credentials(&ca.gateway(GatewayRole::Ingress)), &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.spec.ingress.insert("c2".parse().unwrap(), [listener.local_addr().unwrap().to_string()].into());
    (world.spec.tunnelled, world.spec.end_to_end) = (false, EndToEnd::None);
    let (goodbyes, mut said) = tokio::sync::mpsc::channel(16);
    task::spawn("ingress", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, goodbyes) = (config.clone(), goodbyes.clone());
            task::spawn("one", async move {
                let Ok((tls, _)) = tombolo_mtls::accept(stream, config).await else { return };
                let mut connection = h2::server::handshake(tls).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let answer = http::Response::builder().header("tombolo-cluster", "c2").body(()).unwrap();
                    respond.send_response(answer, true).unwrap();
                    connection.graceful_shutdown();
                    let mut body = request.into_body();
                    task::spawn("body", async move { while body.data().await.is_some() {} });
                    let _ = goodbyes.send(()).await;
                }
            });
        }
    });
    world.publish();
    for _ in 0..5 {
        assert_eq!(ask(world.call("c1").await, b"").await.unwrap(), b"");
        said.recv().await.unwrap();
    }
    let line = world.sites["c1"].egress.line(5).await;
    assert_eq!((&line["reason"], &line["attempts"]), (&"ok".into(), &1.into()), "{line:#}");
}
