//! What a connection is to an application: bytes as they come, both ways, to their end.

use crate::world::{World, ask, echo};
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
