//! A reset of either end reaches the other as a reset, also where bytes are stuck on the way in both directions.

use crate::world::{LONG, World, echo};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tombolo_model::snapshot::EndToEnd;

/// How long a reset may be on its way behind bytes that nobody takes: some seconds at each hop, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(120);
/// How long nothing moves where everything is full.
const STILL: Duration = Duration::from_millis(500);
/// As much fits in any case: the windows of two tunnels. Before, such a pause is the machine's.
const LEAST: usize = 2 << 20;
const MODES: [(bool, EndToEnd); 2] = [(true, EndToEnd::All), (false, EndToEnd::None)];

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Writes until every buffer on the way is full, reading nothing.
async fn fill(stream: &mut TcpStream) {
    let (piece, mut sent) = (vec![7; 65_536], 0);
    loop {
        match timeout(STILL, stream.write(&piece)).await {
            Ok(Ok(length)) => sent += length,
            Ok(Err(error)) => panic!("it broke while it was filled: {error}"),
            Err(_) if sent >= LEAST => return,
            Err(_) => {}
        }
    }
}

/// A connection whose way is open: a byte of its server came.
async fn opened(world: &World) -> TcpStream {
    let mut client = world.call("c1").await;
    client.read_exact(&mut [0]).await.unwrap();
    client
}

/// Writes until that fails.
async fn write_on(stream: &mut TcpStream) -> ErrorKind {
    let piece = vec![7; 65_536];
    loop {
        if let Err(error) = stream.write_all(&piece).await {
            return error.kind();
        }
    }
}

/// Reads to the end.
async fn read_on(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(total),
            Ok(length) => total += length,
            Err(error) => return Err(error.kind()),
        }
    }
}

async fn world(mode: (bool, EndToEnd)) -> World {
    // nobody is late, and none of it is about who is
    let patient = |config: &mut tombolo_gateway::config::Config| {
        let timing = &mut config.timing;
        (timing.dead, timing.handshake, timing.open, timing.dial) = (LONG, LONG, LONG, LONG);
    };
    let mut world = World::with(&["c1", "c2"], patient).await;
    (world.spec.tunnelled, world.spec.end_to_end) = mode;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_with_both_ways_full() {
    for mode in MODES {
        let mut world = world(mode).await;
        let (heard, mut hears) = mpsc::channel(1);
        let server = move |mut stream: TcpStream| {
            let heard = heard.clone();
            // It only writes, and what the client sends stays where it is.
            async move { heard.send(write_on(&mut stream).await).await.unwrap() }
        };
        world.app("c2", server).await;
        world.publish();
        let mut client = opened(&world).await;
        fill(&mut client).await;
        let begin = Instant::now();
        reset(client);
        let end = timeout(SOON, hears.recv()).await.expect("the server hears of it");
        eprintln!("{mode:?}: {:?}", begin.elapsed());
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_behind_what_it_sent() {
    for mode in MODES {
        let mut world = world(mode).await;
        let (heard, mut hears) = mpsc::channel(1);
        let (go, goes) = tokio::sync::watch::channel(false);
        let server = move |mut stream: TcpStream| {
            let (heard, mut goes) = (heard.clone(), goes.clone());
            async move {
                stream.write_all(b"x").await.unwrap();
                goes.wait_for(|go| *go).await.unwrap();
                heard.send(read_on(&mut stream).await).await.unwrap();
            }
        };
        world.app("c2", server).await;
        world.publish();
        let mut client = opened(&world).await;
        fill(&mut client).await;
        reset(client);
        go.send_replace(true);
        let end = timeout(SOON, hears.recv()).await.expect("the server hears of it");
        assert_eq!(end, Some(Err(ErrorKind::ConnectionReset)), "{mode:?}: never an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_resets_with_both_ways_full() {
    for mode in MODES {
        for reads in [true, false] {
            let mut world = world(mode).await;
            let (filled, mut fills) = mpsc::channel(1);
            let (go, goes) = tokio::sync::watch::channel(false);
            let server = move |mut stream: TcpStream| {
                let (filled, mut goes) = (filled.clone(), goes.clone());
                async move {
                    fill(&mut stream).await;
                    filled.send(()).await.unwrap();
                    // a client that still writes would hear of the reset by that
                    goes.wait_for(|go| *go).await.unwrap();
                    reset(stream);
                }
            };
            world.app("c2", server).await;
            world.publish();
            let mut client = opened(&world).await;
            fill(&mut client).await;
            // What is read before would only make room for more.
            timeout(SOON, fills.recv()).await.expect("the server's way is full, too").unwrap();
            go.send_replace(true);
            let begin = Instant::now();
            let end = if reads {
                timeout(SOON, read_on(&mut client)).await.map(|end| end.unwrap_err())
            } else {
                timeout(SOON, write_on(&mut client)).await
            };
            eprintln!("{mode:?} {reads}: {:?}", begin.elapsed());
            assert_eq!(end.expect("the client hears of it"), ErrorKind::ConnectionReset, "{mode:?} {reads}");
        }
    }
}

/// Both ways full of an echo, and the client is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_behind_a_reset() {
    for mode in MODES {
        let mut world = world(mode).await;
        world.app("c2", echo).await;
        world.publish();
        let mut client = world.call("c1").await;
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        fill(&mut client).await;
        reset(client);
        let open = || async {
            world
                .sites
                .values()
                .map(|site| site.ingress.shared.conns.len() + site.sidecar.shared.conns.len())
                .sum()
        };
        tombolo_testkit::wait::until("all gone", SOON, open, |open: &usize| *open == 0).await;
    }
}
