//! Over real sockets: messages of hickory's, and raw bytes.

use super::*;
use crate::dns::server::{Config, TcpLimits};
use hickory_proto::{op::ResponseCode, rr::RData};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tombolo_runtime::{metrics::Metrics as Registry, task::spawn};

/// A server that runs until it is dropped or stopped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) registry: Registry,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(zone: Option<Zone>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), ForwardTo::Refuse);
        change(&mut config);
        let writer = ZoneWriter::new();
        if let Some(zone) = zone {
            writer.set(zone);
        }
        let registry = Registry::new("agent");
        let metrics = Metrics::register(&registry);
        let server = Server::bind(config, writer.reader(), metrics).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = spawn("dns", async move { server.run(async { drop(stopped.await) }).await });
        Self { address, registry, stop: Some(stop), task }
    }

    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    pub(super) fn metrics(&self) -> String {
        self.registry.encode()
    }

    pub(super) async fn udp(&self, packet: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(packet).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(super) async fn ask(&self, query: &Message) -> Message {
        Message::from_vec(&self.udp(&query.to_vec().unwrap()).await).unwrap()
    }

    pub(super) async fn ask_owned(&self, query: Message) -> Message {
        self.ask(&query).await
    }

    pub(super) async fn ask_tcp(&self, query: &Message) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        send(&mut stream, &query.to_vec().unwrap()).await;
        Message::from_vec(&receive(&mut stream).await).unwrap()
    }
}

pub(super) async fn send(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&super::super::wire::framed(message)).await.unwrap();
}

pub(super) async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    timeout(DEADLINE, read).await.unwrap()
}

/// Whether the other side has closed.
async fn closed(stream: &mut TcpStream) -> bool {
    matches!(timeout(DEADLINE, stream.read(&mut [0; 1])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn answers_over_udp_and_tcp_on_one_port() {
    let server = Running::start(Some(zone()), |_| {}).await;
    let query = query("CATALOG.acme.example.com.", RecordType::A);
    for answer in [server.ask(&query).await, server.ask_tcp(&query).await] {
        assert_eq!(answer.metadata.id, query.metadata.id);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
        assert!(!answer.metadata.recursion_available && !answer.metadata.authentic_data);
        assert_eq!(answer.queries[0].name().to_string(), "CATALOG.acme.example.com.");
        assert_eq!(answer.answers[0].data, RData::A("240.0.0.1".parse().unwrap()));
        assert_eq!(answer.answers[0].ttl, 5);
        assert!(answer.edns.is_none(), "a client without EDNS gets none");
    }
    let metrics = server.metrics();
    assert!(
        metrics.contains(r#"tombolo_agent_dns_queries_total{qtype="A",code="NOERROR",source="zone"} 2"#),
        "{metrics}"
    );
    server.stop().await;
}

#[tokio::test]
async fn edns_is_answered_with_edns() {
    let server = Running::start(Some(zone()), |_| {}).await;
    let mut query = edns_query("catalog.acme.example.com.", RecordType::A, 4096);
    query.edns.as_mut().unwrap().set_dnssec_ok(true);
    let edns = server.ask(&query).await.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, UDP_PAYLOAD, true));

    query.edns.as_mut().unwrap().set_version(1);
    let answer = server.ask(&query).await;
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn refusals_explain_themselves() {
    let server = Running::start(Some(zone()), |_| {}).await;
    let answer = server.ask(&edns_query("www.example.com.", RecordType::A, 1232)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let (code, text) = explanation(&answer).unwrap();
    assert_eq!(code, 20);
    assert!(text.contains("--dns-forward is refuse"), "{text}");
    let answer = server.ask(&query("www.example.com.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    server.stop().await;

    let server = Running::start(None, |_| {}).await;
    let answer = server.ask(&edns_query("catalog.acme.example.com.", RecordType::A, 1232)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(explanation(&answer).unwrap().0, 14, "not ready");
    server.stop().await;
}

#[tokio::test]
async fn what_has_no_room_is_truncated_and_whole_over_tcp() {
    let server = Running::start(Some(crowd(200)), |_| {}).await;
    let name = "crowd.acme.example.com.";
    for (query, limit) in [
        (query(name, RecordType::A), 512),
        (edns_query(name, RecordType::A, 100), 512),
        (edns_query(name, RecordType::A, 700), 700),
        (edns_query(name, RecordType::A, 65_535), 1232),
    ] {
        let bytes = server.udp(&query.to_vec().unwrap()).await;
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation);
        assert!(bytes.len() <= limit && bytes.len() > limit - 16, "{} of {limit}", bytes.len());
        assert!(!answer.answers.is_empty(), "clients without TCP live on what fits");
        assert_eq!(answer.edns.is_some(), query.edns.is_some());

        let answer = server.ask_tcp(&query).await;
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 200);
    }
    // Additional records go without a word.
    let answer = server.ask(&query("_http._tcp.p1.crowd.acme.example.com.", RecordType::SRV)).await;
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 2));
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_query_gets_an_error_or_nothing() {
    let server = Running::start(Some(zone()), |_| {}).await;
    let mut update = query("catalog.acme.example.com.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(server.ask(&update).await.metadata.response_code, ResponseCode::NotImp);
    let mut two = query("catalog.acme.example.com.", RecordType::A);
    two.add_query(question("db.acme.example.com.", RecordType::A));
    assert_eq!(server.ask(&two).await.metadata.response_code, ResponseCode::FormErr);
    let mut none = query("catalog.acme.example.com.", RecordType::A);
    none.queries.clear();
    assert_eq!(server.ask(&none).await.metadata.response_code, ResponseCode::FormErr);
    let answer = server.udp(b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01").await;
    assert_eq!(answer, b"\xab\xcd\x81\x01\0\0\0\0\0\0\0\0", "FORMERR, with the id and RD");

    // Nothing comes for a response, a short packet, a malformed response; then the server answers still.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let response = query("catalog.acme.example.com.", RecordType::A).into_response().to_vec().unwrap();
    for packet in
        [&response[..], &b"\0\x01\x01"[..], &b"\xab\xcd\x81\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"[..]]
    {
        socket.send(packet).await.unwrap();
    }
    let last = query("catalog.acme.example.com.", RecordType::A);
    socket.send(&last.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.id, last.metadata.id);
    let metrics = server.metrics();
    assert!(metrics.contains(r#"tombolo_agent_dns_packets_ignored_total{reason="response"} 2"#), "{metrics}");
    assert!(metrics.contains(r#"tombolo_agent_dns_packets_ignored_total{reason="short"} 1"#), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn tcp_takes_messages_in_any_pieces() {
    let server = Running::start(Some(zone()), |_| {}).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let queries: Vec<Message> = (0..50).map(|_| query("catalog.acme.example.com.", RecordType::A)).collect();
    // All at once, then one byte after the other; and a half-close before the answers are read.
    for query in &queries[..49] {
        send(&mut stream, &query.to_vec().unwrap()).await;
    }
    for byte in super::super::wire::framed(&queries[49].to_vec().unwrap()) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
    for query in &queries {
        assert_eq!(Message::from_vec(&receive(&mut stream).await).unwrap().metadata.id, query.metadata.id);
    }
    assert!(closed(&mut stream).await);
    server.stop().await;
}

#[tokio::test]
async fn tcp_connections_are_bounded_in_number_and_idle_time() {
    let server = Running::start(Some(zone()), |config| {
        config.tcp = TcpLimits { connections: 2, each: 2, idle: Duration::from_millis(400), pipelined: 2 };
    })
    .await;
    let query = query("catalog.acme.example.com.", RecordType::A).to_vec().unwrap();
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    for stream in [&mut first, &mut second] {
        send(stream, &query).await;
        receive(stream).await;
    }
    let mut third = TcpStream::connect(server.address).await.unwrap();
    send(&mut third, &query).await;
    receive(&mut third).await;
    assert!(closed(&mut first).await, "one too many, and the oldest");
    assert!(closed(&mut second).await, "idle");
    assert!(closed(&mut third).await, "idle");
    // Garbage ends a connection: its place in the stream is lost.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    send(&mut stream, b"abc").await;
    assert!(closed(&mut stream).await);
    assert!(server.metrics().contains("tombolo_agent_dns_tcp_connections_refused_total 1"));
    server.stop().await;
}

#[tokio::test]
async fn one_client_takes_no_more_than_its_share_of_the_connections() {
    // Never answers, so that what is forwarded to it is under way for long.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut asked = Vec::new();
    let server = Running::start(Some(zone()), |config| {
        config.forward = ForwardTo::Server(silent.local_addr().unwrap());
        config.limits.tcp_timeout = DEADLINE * 2;
        config.tcp = TcpLimits { connections: 4, each: 3, idle: DEADLINE, pipelined: 2 };
    })
    .await;
    let from = async |ip: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        socket.connect(server.address).await.unwrap()
    };
    let own = query("catalog.acme.example.com.", RecordType::A).to_vec().unwrap();
    let others = query("www.example.net.", RecordType::A).to_vec().unwrap();
    let answered = async |stream: &mut TcpStream| {
        send(stream, &own).await;
        receive(stream).await;
    };
    // Idle ones go as soon as somebody needs them, who has fewer.
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(from([127, 0, 0, 9]).await);
        answered(idle.last_mut().unwrap()).await;
    }
    let mut client = [from([127, 0, 0, 8]).await, from([127, 0, 0, 8]).await];
    for stream in &mut client {
        answered(stream).await;
    }
    assert!(closed(&mut idle[0]).await);
    drop((client, idle));
    // Busy ones do not, but they are a part of all.
    let mut busy = Vec::new();
    for at in 0..6 {
        let mut stream = from([127, 0, 0, 9]).await;
        if at < 3 {
            send(&mut stream, &others).await;
            asked.push(timeout(DEADLINE, silent.accept()).await.unwrap().unwrap());
        } else {
            assert!(closed(&mut stream).await, "it has its share");
        }
        busy.push(stream);
    }
    answered(&mut from([127, 0, 0, 8]).await).await;
    drop((busy, asked));
    server.stop().await;
}

#[tokio::test]
async fn a_new_zone_is_in_force_at_once() {
    let writer = ZoneWriter::new();
    let config = Config::new("127.0.0.1:0".parse().unwrap(), ForwardTo::Refuse);
    let metrics = Metrics::register(&Registry::new("agent"));
    let server = Server::bind(config, writer.reader(), metrics).await.unwrap();
    let (address, (stop, stopped)) = (server.address(), oneshot::channel::<()>());
    let task = spawn("dns", async move { server.run(async { drop(stopped.await) }).await });
    let running = Running { address, registry: Registry::new("agent"), stop: Some(stop), task };
    let query = query("crowd.acme.example.com.", RecordType::A);
    assert_eq!(running.ask(&query).await.metadata.response_code, ResponseCode::ServFail);
    writer.set(zone());
    assert_eq!(running.ask(&query).await.metadata.response_code, ResponseCode::NXDomain);
    writer.set(crowd(3));
    assert_eq!(running.ask(&query).await.answers.len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn bound_to_every_address_it_answers_from_the_one_asked() {
    for (listen, asked) in [("0.0.0.0:0", ["127.0.0.1", "127.0.0.53"]), ("[::]:0", ["::1", "127.0.0.53"])] {
        let server = Running::start(Some(zone()), |config| config.listen = listen.parse().unwrap()).await;
        for address in asked {
            let address = SocketAddr::new(address.parse().unwrap(), server.address.port());
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await.unwrap();
            // A connected socket takes packets from this address only.
            socket.connect(address).await.unwrap();
            let query = query("catalog.acme.example.com.", RecordType::A);
            socket.send(&query.to_vec().unwrap()).await.unwrap();
            let mut buffer = [0; 512];
            let length = timeout(DEADLINE, socket.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 1, "{address}");
        }
        server.stop().await;
    }
}
