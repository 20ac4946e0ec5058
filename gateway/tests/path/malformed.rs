//! Peers with a right to dial in that then do not keep to the protocol. None of it may take the gateway, or the other
//! streams of the tunnel, with it.

use crate::world::{LONG, NAME, PORT, World, ask, echo};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tombolo_model::GatewayRole;
use tombolo_mtls::{Credentials, Expect, client_config};
use tombolo_runtime::task;

async fn tls(world: &World, credentials: &Credentials) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(world.sites["c1"].egress.tunnel).await.unwrap();
    let expect = Expect::Gateway { cluster: None, role: GatewayRole::Egress };
    let config = client_config(&world.org.store(), credentials, expect, &[b"h2"]);
    tombolo_mtls::connect(tcp, config, "gateway".try_into().unwrap()).await.unwrap().0
}

async fn world() -> (World, Credentials) {
    let mut world = World::new(&["c1", "c2"]).await;
    world.app("c2", echo).await;
    world.publish();
    let ca = &world.sites["c1"].ca;
    let credentials = ca.credentials(&ca.workload("default", "shopping"));
    (world, credentials)
}

async fn tunnel(world: &World, credentials: &Credentials) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(tls(world, credentials).await).await.unwrap();
    task::spawn("connection", async move {
        if let Err(error) = connection.await {
            eprintln!("the tunnel ended: {error}");
        }
    });
    send.ready().await.unwrap()
}

fn connect() -> http::request::Builder {
    let target = format!("{NAME}:{PORT}");
    Request::builder()
        .method(Method::CONNECT)
        .uri(target)
        .version(Version::HTTP_2)
        .header("tombolo-protocol", "1.0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_answered_and_the_tunnel_goes_on() {
    let (world, credentials) = world().await;
    let mut send = tunnel(&world, &credentials).await;
    let cases = [
        (connect().uri("nonsense:1"), StatusCode::BAD_REQUEST, "bad_request"),
        (connect().uri("127.0.0.1:22"), StatusCode::BAD_REQUEST, "bad_request"),
        (connect().uri(format!("{NAME}:0")), StatusCode::BAD_REQUEST, "bad_request"),
        (
            connect().method(Method::GET).uri(format!("https://{NAME}/")),
            StatusCode::BAD_REQUEST,
            "bad_request",
        ),
        (connect().header("tombolo-protocol", "1.0"), StatusCode::BAD_REQUEST, "bad_request"),
        (connect().header("tombolo-source", "root"), StatusCode::BAD_REQUEST, "bad_request"),
        (connect().header("tombolo-inner", &b"\xff"[..]), StatusCode::BAD_REQUEST, "bad_request"),
        (
            Request::builder().method(Method::CONNECT).uri("a.b.c:1").header("tombolo-protocol", "9.0"),
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "unsupported_version",
        ),
        (connect().uri("unknown.acme.example.com:80"), StatusCode::NOT_FOUND, "no_route"),
        (connect().uri(format!("{NAME}:1")), StatusCode::NOT_FOUND, "no_route"),
    ];
    for (request, status, reason) in cases {
        let request = request.body(()).unwrap();
        let what = format!("{request:?}");
        let (response, _) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(response.headers()["tombolo-reason"], reason, "{what}");
        assert_eq!(response.headers()["tombolo-hop"], "egress@c1", "{what}");
    }
    let (response, _) = send.send_request(connect().body(()).unwrap(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK, "the same tunnel still works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_streams_are_bounded() {
    let (world, credentials) = world().await;
    let mut send = tunnel(&world, &credentials).await;
    let large = connect().header("x-filler", "a".repeat(64 << 10)).body(()).unwrap();
    let outcome = async {
        let (response, _) = send.send_request(large, false)?;
        response.await
    };
    let refused = timeout(LONG, outcome).await.unwrap();
    assert!(refused.is_err() || !refused.unwrap().status().is_success(), "64 KiB of headers are too many");
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http2_ends_the_tunnel_alone() {
    let (world, credentials) = world().await;
    let junk: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x00",
        // A HEADERS frame with a broken header block, and DATA on a stream that was never opened.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x03\x01\x05\x00\x00\x00\x01\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x09x",
    ];
    for bytes in junk {
        let mut stream = tls(&world, &credentials).await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // The gateway says goodbye and closes; it does not wait for more.
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    }
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_not_waited_for() {
    let mut world = World::with(&["c1", "c2"], |config| {
        config.timing.handshake = std::time::Duration::from_millis(300);
    })
    .await;
    world.app("c2", echo).await;
    world.publish();
    let ca = &world.sites["c1"].ca;
    let credentials = ca.credentials(&ca.workload("default", "shopping"));
    // No TLS at all; and TLS, but no HTTP/2 in it.
    let mut plain = TcpStream::connect(world.sites["c1"].egress.tunnel).await.unwrap();
    let mut mute = tls(&world, &credentials).await;
    let mut rest = Vec::new();
    let _ = timeout(LONG, plain.read_to_end(&mut rest)).await.expect("it ends");
    let _ = timeout(LONG, mute.read_to_end(&mut rest)).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_come_and_go_at_once_do_not_pile_up() {
    let (world, credentials) = world().await;
    let mut send = tunnel(&world, &credentials).await;
    for _ in 0..500 {
        let Ok((response, mut stream)) = send.send_request(connect().body(()).unwrap(), false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    let egress = &world.sites["c1"].egress.shared;
    let open = || async { egress.conns.len() };
    tombolo_testkit::wait::until("all gone", LONG, open, |open| *open == 0).await;
    assert_eq!(ask(world.call("c1").await, b"hello").await.unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crumbs_for_a_reader_that_sleeps_leave_the_tunnel_to_the_others() {
    let mut world = World::new(&["c1", "c2"]).await;
    // Echoes until it meets an `s`, and then reads no more.
    let serve = |mut stream: TcpStream| async move {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() && byte[0] != b's' {
            let _ = stream.write_all(&byte).await;
        }
        std::future::pending::<()>().await;
    };
    world.app("c2", serve).await;
    world.spec.tunnelled = false;
    world.spec.end_to_end = tombolo_model::snapshot::EndToEnd::None;
    world.publish();
    let ca = &world.sites["c1"].ca;
    let credentials = ca.credentials(&ca.workload("default", "shopping"));
    let mut send = tunnel(&world, &credentials).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let (response, stream) = send.send_request(connect().body(()).unwrap(), false).unwrap();
        open.push((response.await.unwrap().into_body(), stream));
    }
    // HTTP/2 counts small frames that nobody takes, and after many of them ends the tunnel for all. An application that
    // writes a byte at a time to one that sleeps must not get its neighbours there.
    for (_, stream) in &mut open[1..] {
        for _ in 0..60_000 {
            stream.reserve_capacity(1);
            let room = std::future::poll_fn(|cx| match stream.capacity() {
                0 => stream.poll_capacity(cx).map(drop),
                _ => std::task::Poll::Ready(()),
            });
            if timeout(std::time::Duration::from_millis(200), room).await.is_err() {
                break;
            }
            stream.send_data(Bytes::from_static(b"s"), false).unwrap();
        }
    }
    let (recv, stream) = &mut open[0];
    for _ in 0..3 {
        stream.send_data(Bytes::from_static(b"x"), false).unwrap();
        let back =
            timeout(LONG, recv.data()).await.unwrap().expect("the stream lives").expect("the tunnel lives");
        assert_eq!(&back[..], b"x");
        recv.flow_control().release_capacity(1).unwrap();
    }
}
