//! What a connection is to an application: bytes as they come, both ways, to their end.

use crate::world::{LONG, World, ask, echo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_model::snapshot::EndToEnd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_crosses_two_clusters() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");

    let (c1, c2) = (&world.sites["c1"], &world.sites["c2"]);
    let caller = "spiffe://acme.tombolo.internal/cluster/c1/ns/default/sa/shopping";
    let lines = [
        c1.sidecar.line(1).await,
        c1.egress.line(1).await,
        c2.ingress.line(1).await,
        c2.sidecar.line(1).await,
    ];
    for line in &lines {
        assert_eq!(line["reason"], "ok", "{line:#}");
        assert_eq!(line["source"], caller, "{line:#}");
        assert_eq!(line["trace"], lines[0]["trace"]);
        assert_eq!(line["cluster"], "c2");
        assert_eq!(line["end_to_end"], true);
        assert_eq!(line["destination"], "catalog.acme.example.com:8082");
        assert_eq!(line["tls_group"], "X25519MLKEM768", "{line:#}");
    }
    assert_eq!((&lines[0]["bytes_up"], &lines[0]["bytes_down"]), (&5.into(), &5.into()));
    assert_eq!((&lines[3]["bytes_up"], &lines[3]["bytes_down"]), (&5.into(), &5.into()));
    assert!(lines[1]["bytes_up"].as_u64().unwrap() > 5, "what egress sees is sealed");
    assert_eq!(lines[0]["next_peer"], "spiffe://acme.tombolo.internal/cluster/c2/ns/default/sa/catalog");
    assert_eq!(lines[3]["source_verified"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_speak_first() {
    let mut world = World::new(&["c1", "c2"]).await;
    let greet = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut quit = [0; 4];
        stream.read_exact(&mut quit).await.unwrap();
        stream.write_all(b"221 bye\r\n").await.unwrap();
    };
    world.app("c2", greet).await;
    world.publish();
    let mut client = world.call("c1").await;
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"QUIT").await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"221 bye\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sidecars_at_the_server() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.spec.tunnelled = false;
    world.spec.end_to_end = EndToEnd::None;
    world.publish();
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
    let line = world.sites["c1"].sidecar.line(1).await;
    assert_eq!((&line["reason"], &line["end_to_end"]), (&"ok".into(), &false.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_cluster_is_nearest() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c1", echo).await;
    world.app("c2", echo).await;
    world.publish();
    for count in 1..=5 {
        assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
        assert_eq!(world.sites["c1"].sidecar.line(count).await["cluster"], "c1");
    }
    assert!(world.sites["c1"].ingress.log().is_empty(), "no way round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_close_its_half_first() {
    let mut world = World::new(&["c1", "c2"]).await;
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let server = move |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"all I have to say").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            heard.send(rest).await.unwrap();
        }
    };
    world.app("c2", server).await;
    for (tunnelled, end_to_end) in [(true, EndToEnd::All), (false, EndToEnd::None)] {
        (world.spec.tunnelled, world.spec.end_to_end) = (tunnelled, end_to_end);
        world.publish();
        let mut client = world.call("c1").await;
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"all I have to say");
        // The server has closed its half long ago; this half still works.
        client.write_all(b"and you listen").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(hears.recv().await.unwrap(), b"and you listen");
    }
    let line = world.sites["c1"].sidecar.line(2).await;
    assert_eq!(line["reason"], "ok", "{line:#}");
}

fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_server_comes_after_what_it_sent() {
    let mut world = World::new(&["c1", "c2"]).await;
    let server = |mut stream: TcpStream| async move {
        stream.write_all(&[7; 30_000]).await.unwrap();
        reset(&stream);
    };
    world.app("c2", server).await;
    for (count, (tunnelled, end_to_end)) in
        [(true, EndToEnd::All), (false, EndToEnd::None)].into_iter().enumerate()
    {
        (world.spec.tunnelled, world.spec.end_to_end) = (tunnelled, end_to_end);
        world.publish();
        let mut client = world.call("c1").await;
        // Read nothing before the reset has passed through all hops.
        let line = world.sites["c1"].sidecar.line(count + 1).await;
        assert_eq!(
            (&line["reason"], &line["detail"]),
            (&"reset".into(), &"by the server".into()),
            "{line:#}"
        );
        let mut got = Vec::new();
        let end = client.read_to_end(&mut got).await;
        assert_eq!(got.len(), 30_000, "everything before the reset arrives");
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_client_comes_after_what_it_sent() {
    let mut world = World::new(&["c1", "c2"]).await;
    let (heard, mut hears) = tokio::sync::mpsc::channel(1);
    let server = move |mut stream: TcpStream| {
        let heard = heard.clone();
        async move {
            let mut got = Vec::new();
            let end = stream.read_to_end(&mut got).await;
            heard.send((got.len(), end.map_err(|error| error.kind()))).await.unwrap();
        }
    };
    world.app("c2", server).await;
    for (tunnelled, end_to_end) in [(true, EndToEnd::All), (false, EndToEnd::None)] {
        (world.spec.tunnelled, world.spec.end_to_end) = (tunnelled, end_to_end);
        world.publish();
        let mut client = world.call("c1").await;
        client.write_all(&[7; 30_000]).await.unwrap();
        reset(&client);
        drop(client);
        assert_eq!(hears.recv().await.unwrap(), (30_000, Err(std::io::ErrorKind::ConnectionReset)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_on_a_sending_client_resets_it() {
    let mut world = World::new(&["c1", "c2"]).await;
    // Closing with unread bytes is a reset in TCP.
    world.app("c2", |stream| async move { stream.readable().await.unwrap() }).await;
    world.publish();
    let mut client = world.call("c1").await;
    let sending = async { while client.write_all(&[1; 1024]).await.is_ok() {} };
    tokio::time::timeout(LONG, sending).await.expect("the client learns that nobody listens");
}

/// Bytes that are not alike, so that a lost or moved chunk shows.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(next).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_pass_unchanged_both_ways_through_small_windows() {
    const SIZE: usize = 64 << 20;
    let small = |config: &mut tombolo_gateway::config::Config| {
        config.limits.stream_window = 70_000;
        config.limits.connection_window = 100_000;
        config.limits.send_buffer = 32_000;
        config.limits.frame_bytes = 16_384;
    };
    let mut world = World::with(&["c1", "c2"], small).await;
    world.app("c2", echo).await;
    world.publish();
    let (mut read, mut write) = world.call("c1").await.into_split();
    let sent = std::sync::Arc::new(pattern(1, SIZE));
    let data = sent.clone();
    let sending = tombolo_runtime::task::spawn("send", async move {
        // Pieces of uneven sizes, so that no boundary is met by luck.
        let mut rest = &data[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            write.write_all(piece).await.unwrap();
            (rest, size) = (after, size % 100_003 + 997);
        }
        write.shutdown().await.unwrap();
    });
    let mut got = Vec::with_capacity(SIZE);
    read.read_to_end(&mut got).await.unwrap();
    sending.await.unwrap();
    assert!(got == *sent, "{} bytes came back, or others", got.len());
    let line = world.sites["c2"].sidecar.line(1).await;
    assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&SIZE.into(), &SIZE.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_its_writer_and_nobody_else() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    // Writes and never reads: the echo fills every buffer on the way and back.
    let mut stuck = world.call("c1").await;
    let filling = async { while stuck.write_all(&[0; 65_536]).await.is_ok() {} };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(2), filling).await.is_err(), "it blocks");
    for _ in 0..20 {
        let answer = tokio::time::timeout(LONG, ask(world.call("c1").await, b"hello")).await;
        assert_eq!(answer.expect("others go on").unwrap(), b"hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_slow_readers_slows_nobody_else_on_their_tunnel() {
    const CROWD: usize = 24;
    // On a busy machine a ping may be late, and its tunnel would be left for another one.
    let mut world = World::with(&["c1", "c2"], |config| config.timing.dead = LONG).await;
    let (full, mut fulls) = tokio::sync::mpsc::channel(CROWD);
    // Echoes, or sends without end to one who asks for that.
    let server = move |mut stream: TcpStream| {
        let full = full.clone();
        async move {
            let mut first = [0];
            stream.read_exact(&mut first).await.unwrap();
            if first != *b"*" {
                stream.write_all(&first).await.unwrap();
                return echo(stream).await;
            }
            let blocks = std::time::Duration::from_secs(1);
            while tokio::time::timeout(blocks, stream.write_all(&[7; 65_536]))
                .await
                .is_ok_and(|sent| sent.is_ok())
            {}
            full.send(stream).await.unwrap();
        }
    };
    world.app("c2", server).await;
    world.publish();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut client = world.call("c1").await;
        client.write_all(b"*").await.unwrap();
        crowd.push(client);
    }
    // Each has all that it may have under way, and reads nothing of it.
    for _ in 0..CROWD {
        crowd.push(tokio::time::timeout(LONG * 3, fulls.recv()).await.expect("it blocks").unwrap());
    }
    assert_eq!(world.sites["c1"].egress.shared.pool.len(), 1);
    for _ in 0..5 {
        let answer = tokio::time::timeout(LONG, ask(world.call("c1").await, b"hello")).await;
        assert_eq!(answer.expect("others go on").unwrap(), b"hello");
    }
}

/// Set in the process that has nothing else in its memory.
const ALONE: &str = "TOMBOLO_TEST_ALONE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_stay() {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    assert_eq!(ask(world.call("c1").await, b"warm").await.unwrap(), b"warm");
    let mut byte = [0];
    let mut open = Vec::new();
    let before = resident_kib();
    for number in 0..1000u32 {
        let mut client = world.call("c1").await;
        client.write_all(&[number as u8]).await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte[0], number as u8);
        open.push(client);
    }
    let each = (resident_kib() - before) as f64 / 1000.0;
    println!("{each:.1} KiB for each connection: four hops, both ends' sessions, and the two applications");
    if std::env::var_os(ALONE).is_some() {
        assert!(each < 90.0, "{each:.1} KiB for each connection");
    }
    for (number, client) in open.iter_mut().enumerate() {
        client.write_all(&[number as u8]).await.unwrap();
        client.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte[0], number as u8);
    }
    let tunnels = world.sites["c1"].egress.shared.pool.len();
    assert!((2..=8).contains(&tunnels), "{tunnels} tunnels carry them");
}

#[test]
fn an_idle_connection_costs_little() {
    let done = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "chain::a_thousand_idle_connections_stay", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && output.contains("KiB for each"), "{output}");
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
