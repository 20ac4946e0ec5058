use super::*;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// On a loopback address. As elsewhere counts who has another one.
async fn start() -> (SocketAddr, Readiness, drain::Drain) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::new();
    let (drain, watch) = drain::channel();
    let routes = Routes::new()
        .get("/dump", "a dump", |query| Answer::json(&serde_json::json!({ "query": query })))
        .get("/odd", "an odd one", |_| Answer::text("no").status(StatusCode::IM_A_TEAPOT));
    let metrics = Arc::new(metrics::Metrics::new("test"));
    let own = |client: SocketAddr| client.ip() == std::net::IpAddr::from([127, 0, 0, 1]);
    task::spawn("admin", serve_to(listener, metrics, readiness.clone(), routes, watch, own));
    (address, readiness, drain)
}

/// A connection from this loopback address.
async fn from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    ask_over(TcpStream::connect(address).await.unwrap(), method, path).await
}

async fn ask_over(mut stream: TcpStream, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn answers() {
    let (address, readiness, _drain) = start().await;
    assert_eq!(ask(address, "GET", "/healthz").await, (200, "ok\n".into()));
    assert_eq!(ask(address, "GET", "/readyz").await, (503, "starting\n".into()));
    readiness.set_ready();
    assert_eq!(ask(address, "GET", "/readyz").await, (200, "ok\n".into()));
    readiness.set_not_ready("no database");
    assert_eq!(ask(address, "GET", "/readyz").await, (503, "no database\n".into()));
    assert!(ask(address, "GET", "/metrics").await.1.contains("tombolo_test_build_info"));
    assert_eq!(ask(address, "GET", "/dump?a=b").await, (200, "{\n  \"query\": \"a=b\"\n}".into()));
    assert_eq!(ask(address, "GET", "/odd").await.0, 418);
    let (status, body) = ask(address, "GET", "/nothing").await;
    assert!(status == 404 && body.contains("/dump") && body.contains("/metrics"), "{body}");
    assert_eq!(ask(address, "POST", "/dump").await.0, 405);
}

#[tokio::test]
async fn says_that_it_drains_and_does_not_hold_the_drain_up() {
    let (address, readiness, drain) = start().await;
    readiness.set_ready();
    // One answer first, so that the task has begun and let go of its watch.
    assert_eq!(ask(address, "GET", "/readyz").await.0, 200);
    drain.start();
    assert_eq!(ask(address, "GET", "/readyz").await, (503, "draining\n".into()));
    assert_eq!(drain.drain(Duration::from_secs(600)).await, drain::Drained::All);
}

#[tokio::test]
async fn bytes_that_are_no_request_end_the_connection_only() {
    let (address, _readiness, _drain) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0xff; 4096]).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(ask(address, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn who_is_elsewhere_gets_no_dump() {
    let (address, readiness, _drain) = start().await;
    readiness.set_ready();
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/dump", 403), ("/odd", 403)]
    {
        let (found, body) = ask_over(from("127.0.0.2", address).await, "GET", path).await;
        assert_eq!(found, status, "{path}: {body}");
        assert_eq!(body.contains("port-forward"), status == 403, "{path}: {body}");
    }
    assert_eq!(ask(address, "GET", "/odd").await.0, 418);
    let own = |text: &str| is_own(text.parse().unwrap());
    assert!(own("127.0.0.9:1") && own("[::1]:1") && own("[::ffff:127.0.0.1]:1"));
    assert!(!own("10.0.0.1:1") && !own("[fd00::1]:1"));
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_probe_away() {
    let (address, _readiness, _drain) = start().await;
    // one neighbour takes all it can get
    let mut held = Vec::new();
    for _ in 0..ELSEWHERE.each {
        held.push(from("127.0.0.2", address).await);
    }
    // behind its address, or in its network, is the kubelet
    assert_eq!(ask_over(from("127.0.0.2", address).await, "GET", "/healthz").await.0, 200);
    assert_eq!(held[0].read(&mut [0; 1]).await.unwrap_or(0), 0, "the oldest had to go");
    assert_eq!(ask_over(from("127.0.0.3", address).await, "GET", "/healthz").await.0, 200);
    // many of them take all there is
    let hogs = ELSEWHERE.all / ELSEWHERE.each;
    for hog in 1..hogs {
        for _ in 0..ELSEWHERE.each {
            held.push(from(&format!("127.0.1.{hog}"), address).await);
        }
    }
    assert_eq!(ask_over(from("127.0.0.3", address).await, "GET", "/healthz").await.0, 200);
    assert_eq!(ask(address, "GET", "/dump").await.0, 200, "its own people have places of their own");
}
