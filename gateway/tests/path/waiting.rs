//! What waits for readers that do not read has a bound, and whoever has most of it is cut.

use crate::{
    bounds::{tls, workload},
    world::{Gateway, LONG, PORT, World, ask, echo, service},
};
use bytes::Bytes;
use h2::SendStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tombolo_gateway::{
    config::Config,
    head::{Connect, Destination, Inner},
    trace::Trace,
};
use tombolo_model::{GatewayRole, snapshot::EndToEnd};
use tombolo_runtime::task;
use tombolo_testkit::wait::until;

const ROOM: usize = 8 << 20;

/// Only egress gateways have little room.
fn little_room(config: &mut Config) {
    if config.role == GatewayRole::Egress {
        config.limits.buffers = ROOM;
    }
    (config.timing.handshake, config.timing.open) = (LONG, LONG);
    // On a busy machine a ping may be late, and its tunnel would be left for another one.
    config.timing.dead = LONG;
}

/// Sends back what comes; or reads no further, where it begins with a star.
async fn echo_or_nothing(stream: TcpStream) {
    let mut first = [0];
    if stream.peek(&mut first).await.is_ok() && first == *b"*" {
        std::future::pending::<()>().await;
    }
    echo(stream).await;
}

fn connect() -> http::Request<()> {
    let connect = Connect {
        destination: Destination::Service(service(), PORT),
        source: None,
        trace: Trace::fresh(),
        inner: Inner::None,
    };
    connect.request().unwrap()
}

/// So many streams of a tunnel of its own, in each of which more is to be sent than anybody takes, before the answer comes.
async fn flood(world: &World, account: &str, streams: usize) -> Vec<SendStream<Bytes>> {
    let tls = tls(world, &workload(world, account)).await;
    let (mut send, connection) = h2::client::handshake(tls).await.unwrap();
    task::spawn("connection", connection);
    let all = Bytes::from(vec![b'*'; 16 << 20]);
    let mut open = Vec::new();
    for _ in 0..streams {
        send = send.ready().await.unwrap();
        let (_, mut body) = send.send_request(connect(), false).unwrap();
        body.send_data(all.clone(), false).unwrap();
        open.push(body);
    }
    open
}

/// Waits for connections that were cut for what waited in them; says of whom.
async fn cut(gateway: &Gateway) -> Vec<String> {
    let cut = || async {
        let cut = |line: &serde_json::Value| {
            let detail = line["detail"].as_str().unwrap_or_default();
            let cut =
                line["reason"] == "overloaded" && (detail.contains("before") || detail.contains("--buffers"));
            cut.then(|| line["peer"].as_str().unwrap_or_default().to_owned())
        };
        gateway.log().iter().filter_map(cut).collect::<Vec<_>>()
    };
    until("a cut", LONG * 3, cut, |cut| !cut.is_empty()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_fill_no_memory_and_cost_nobody_else() {
    let mut world = World::with(&["c1", "c2"], little_room).await;
    (world.spec.tunnelled, world.spec.end_to_end) = (false, EndToEnd::None);
    world.app("c2", echo_or_nothing).await;
    world.publish();
    let mut other = world.call("c1").await;
    let mut byte = [0];
    other.write_all(b"x").await.unwrap();
    other.read_exact(&mut byte).await.unwrap();
    let hog = flood(&world, "cart", 100).await;
    let egress = &world.sites["c1"].egress;
    let cut = cut(egress).await;
    assert!(cut.iter().all(|peer| peer.ends_with("/sa/cart")), "{cut:?}");
    let waiting = || async { egress.shared.budget.waiting() };
    until("room", LONG, waiting, |waiting| *waiting <= ROOM).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello", "others are served");
    other.write_all(b"y").await.unwrap();
    other.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"y", "and lose nothing");
    drop(hog);
    until("nothing waits", LONG, waiting, |waiting| *waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_the_path_is_open_counts() {
    let mut world = World::with(&["c1", "c2"], little_room).await;
    world.app("c2", echo).await;
    // takes connections, and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.spec.ingress.insert("c2".parse().unwrap(), [silent.local_addr().unwrap().to_string()].into());
    world.publish();
    let hog = flood(&world, "cart", 200).await;
    assert!(!cut(&world.sites["c1"].egress).await.is_empty());
    drop(hog);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_off_the_wire_count_until_they_are_taken() {
    const STREAMS: usize = 60;
    const ANSWER: usize = 200 << 10;
    let mut world = World::with(&["c1", "c2"], |config| config.timing.dead = LONG).await;
    (world.spec.tunnelled, world.spec.end_to_end) = (false, EndToEnd::None);
    let (go, goes) = tokio::sync::watch::channel(false);
    let (asked, mut asks) = tokio::sync::mpsc::channel(STREAMS);
    let server = move |mut stream: TcpStream| {
        let (mut goes, asked) = (goes.clone(), asked.clone());
        async move {
            asked.send(()).await.unwrap();
            goes.wait_for(|go| *go).await.unwrap();
            stream.write_all(&vec![7; ANSWER]).await.unwrap();
        }
    };
    world.app("c2", server).await;
    world.publish();
    let tls = tls(&world, &workload(&world, "cart")).await;
    let mut wide = h2::client::Builder::new();
    wide.initial_window_size(1 << 24).initial_connection_window_size(1 << 30);
    let (mut send, mut connection) = wide.handshake::<_, Bytes>(tls).await.unwrap();
    let mut open = Vec::new();
    let opening = async {
        for _ in 0..STREAMS {
            send = send.clone().ready().await.unwrap();
            open.push(send.send_request(connect(), false).unwrap());
        }
        for _ in 0..STREAMS {
            asks.recv().await.unwrap();
        }
    };
    tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        () = opening => {}
    }
    // From here on it reads nothing. Each answer is short enough for the tunnel's queue, with the end behind it.
    go.send_replace(true);
    let egress = &world.sites["c1"].egress;
    let waiting = || async { egress.shared.budget.waiting() };
    until("answers wait", LONG, waiting, |waiting| *waiting > STREAMS / 3 * ANSWER / 2).await;
    let _driven = task::spawn("connection", connection);
    for (response, _send) in open {
        let mut body = response.await.unwrap().into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            length += data.unwrap().len();
        }
        assert_eq!(length, ANSWER);
    }
    until("nothing waits", LONG, waiting, |waiting| *waiting == 0).await;
}
