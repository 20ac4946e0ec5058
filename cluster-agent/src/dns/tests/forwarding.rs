//! Names of others, asked for at a server that says what the test wants.

use super::{sockets::Running, *};
use crate::dns::{Limits, server::BindError};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record, rdata::NULL},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tombolo_runtime::{metrics::Metrics as Registry, task::spawn};

/// A server whose answer to a query is a list of datagrams. It ends with the test's runtime.
async fn upstream(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let reply = Arc::new(reply);
    let udp_reply = Arc::clone(&reply);
    spawn("upstream-udp", async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            for answer in udp_reply(&buffer[..length]) {
                udp.send_to(&answer, client).await.unwrap();
            }
        }
    });
    spawn("upstream-tcp", async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let reply = Arc::clone(&reply);
            spawn("upstream-connection", async move {
                let length = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(length)];
                stream.read_exact(&mut query).await.unwrap();
                for answer in reply(&query) {
                    stream.write_all(&super::super::wire::framed(&answer)).await.unwrap();
                }
                // Until the client goes: a server with nothing to say is silent.
                drop(stream.read_to_end(&mut Vec::new()).await);
            });
        }
    });
    address
}

async fn forwarding_to(server: SocketAddr) -> Running {
    Running::start(Some(zone()), |config| {
        config.forward = ForwardTo::Server(server);
        config.limits = Limits { udp_timeout: Duration::from_millis(700), ..Limits::default() };
    })
    .await
}

/// The response of a good server to `query`: a record of a type that nobody knows, and its own EDNS.
fn good(query: &[u8]) -> Message {
    let query = Message::from_vec(query).unwrap();
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authentic_data = true;
    let name = query.queries[0].name().clone();
    answer.add_query(query.queries[0].clone());
    let data =
        RData::Unknown { code: RecordType::Unknown(65_280), rdata: NULL::with(vec![1, 2, 3, 0xc0, 0x0c]) };
    answer.add_answer(Record::from_rdata(name, 77, data));
    answer.edns = query.edns;
    answer
}

#[tokio::test]
async fn the_answer_goes_back_as_it_came() {
    let server = forwarding_to(upstream(|query| vec![good(query).to_vec().unwrap()]).await).await;
    for question in
        [query("wWw.Example.org.", RecordType::A), edns_query("wWw.Example.org.", RecordType::A, 1232)]
    {
        for answer in [server.ask(&question).await, server.ask_tcp(&question).await] {
            assert_eq!(answer.metadata.id, question.metadata.id);
            assert!(answer.metadata.recursion_available && answer.metadata.authentic_data);
            assert!(!answer.metadata.authoritative);
            assert_eq!(answer.queries[0].name().to_string(), "wWw.Example.org.");
            assert_eq!(answer.answers.len(), 1);
            assert_eq!(answer.answers[0].ttl, 77);
            // The trail is between the servers; the client sees no option of it, and EDNS only if it spoke EDNS.
            assert_eq!(answer.edns.is_some(), question.edns.is_some());
            assert!(answer.edns.is_none_or(|edns| edns.options().as_ref().is_empty()));
        }
    }
    // Ours stay ours.
    let answer = server.ask(&query("catalog.acme.example.com.", RecordType::A)).await;
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    let metrics = server.metrics();
    assert!(metrics.contains(r#"{qtype="A",code="NOERROR",source="forward"} 4"#), "{metrics}");
    assert!(metrics.contains("tombolo_agent_dns_forward_seconds_count 4"), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn records_pass_byte_for_byte() {
    let server = forwarding_to(upstream(|query| vec![good(query).to_vec().unwrap()]).await).await;
    let question = query("www.example.org.", RecordType::A).to_vec().unwrap();
    let answer = server.udp(&question).await;
    let mut expected = good(&question);
    expected.edns = None;
    assert_eq!(answer, expected.to_vec().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn forged_responses_are_passed_over() {
    let address = upstream(|query| {
        let forge = |change: &dyn Fn(&mut Message)| {
            let mut message = good(query);
            message.answers.clear();
            change(&mut message);
            message.to_vec().unwrap()
        };
        vec![
            forge(&|m| m.metadata.id ^= 1),
            forge(&|m| m.queries[0] = question("evil.example.org.", RecordType::A)),
            forge(&|m| m.queries[0] = question("www.example.org.", RecordType::AAAA)),
            forge(&|m| m.queries.clear()),
            forge(&|m| m.metadata.message_type = MessageType::Query),
            vec![],
            query[..2].to_vec(),
            // The letters' case may differ: then it comes back as the client wrote it.
            {
                let mut message = good(query);
                let lower = message.queries[0].name().to_lowercase();
                message.queries[0].set_name(lower);
                message.to_vec().unwrap()
            },
        ]
    })
    .await;
    let server = forwarding_to(address).await;
    let answer = server.ask(&query("WWW.example.org.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(answer.queries[0].name().to_string(), "WWW.example.org.");
    server.stop().await;
}

#[tokio::test]
async fn a_silent_server_is_asked_twice_and_named() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = upstream(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        vec![]
    })
    .await;
    let server = forwarding_to(address).await;
    let answer = server.ask(&edns_query("www.example.org.", RecordType::A, 1232)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let (code, text) = explanation(&answer).unwrap();
    assert_eq!(code, 22);
    assert!(text.contains(&address.to_string()), "{text}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let asked = AtomicUsize::new(0);
    let address = upstream(move |query| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => vec![],
        _ => vec![good(query).to_vec().unwrap()],
    })
    .await;
    let server = forwarding_to(address).await;
    let answer = server.ask(&query("www.example.org.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let server = forwarding_to(address).await;
    let question = edns_query("www.example.org.", RecordType::A, 1232);
    for answer in [server.ask(&question).await, server.ask_tcp(&question).await] {
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(explanation(&answer).unwrap().0, 23, "network error");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let address = upstream(|query| {
        let message = Message::from_vec(query).unwrap();
        match message.edns {
            Some(_) => vec![
                Message::error_msg(message.metadata.id, OpCode::Query, ResponseCode::FormErr)
                    .to_vec()
                    .unwrap(),
            ],
            None => vec![good(query).to_vec().unwrap()],
        }
    })
    .await;
    let server = forwarding_to(address).await;
    let answer = server.ask(&edns_query("www.example.org.", RecordType::A, 1232)).await;
    assert_eq!(answer.answers.len(), 1);
    assert!(answer.edns.is_some());
    server.stop().await;
}

#[tokio::test]
async fn errors_of_the_other_server_pass() {
    for code in [ResponseCode::NXDomain, ResponseCode::Refused, ResponseCode::ServFail] {
        let address = upstream(move |query| {
            let mut message = good(query);
            message.answers.clear();
            message.metadata.response_code = code;
            let edns = message.edns.as_mut().unwrap();
            edns.options_mut().insert(Explanation::new(Why::Prohibited, "blocked by the office").option());
            vec![message.to_vec().unwrap()]
        })
        .await;
        let server = forwarding_to(address).await;
        let answer = server.ask(&edns_query("www.example.org.", RecordType::A, 1232)).await;
        assert_eq!(answer.metadata.response_code, code);
        assert_eq!(explanation(&answer).unwrap(), (18, "blocked by the office".to_owned()));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_response_longer_than_the_client_takes_is_cut() {
    let address = upstream(|query| {
        let mut message = good(query);
        let record = message.answers[0].clone();
        message.answers = vec![record; 60];
        vec![message.to_vec().unwrap()]
    })
    .await;
    let server = forwarding_to(address).await;
    for (question, limit) in [
        (query("www.example.org.", RecordType::A), 512),
        (edns_query("www.example.org.", RecordType::A, 800), 800),
    ] {
        let bytes = server.udp(&question.to_vec().unwrap()).await;
        assert!(bytes.len() <= limit);
        let answer = Message::from_vec(&bytes).unwrap();
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        assert_eq!(answer.edns.is_some(), question.edns.is_some());
        assert_eq!(server.ask_tcp(&question).await.answers.len(), 60);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_slow_name_does_not_hold_up_the_next_on_a_connection() {
    let address = upstream(|query| {
        let slow = Message::from_vec(query).unwrap().queries[0].name().to_string().starts_with("slow");
        if slow { vec![] } else { vec![good(query).to_vec().unwrap()] }
    })
    .await;
    let server = Running::start(Some(zone()), |config| {
        config.forward = ForwardTo::Server(address);
        config.limits.tcp_timeout = Duration::from_secs(1);
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let queries = ["slow.example.org.", "quick.example.org.", "catalog.acme.example.com."]
        .map(|name| query(name, RecordType::A));
    for query in &queries {
        super::sockets::send(&mut stream, &query.to_vec().unwrap()).await;
    }
    let mut order = Vec::new();
    for _ in &queries {
        let answer = Message::from_vec(&super::sockets::receive(&mut stream).await).unwrap();
        order.push(queries.iter().position(|query| query.metadata.id == answer.metadata.id).unwrap());
    }
    assert_eq!(order, [2, 1, 0]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_in_flight_is_bounded() {
    let address = upstream(|_| vec![]).await;
    let server = Running::start(Some(zone()), |config| {
        config.forward = ForwardTo::Server(address);
        config.limits.in_flight = 3;
        config.limits.same_question = 2;
        config.limits.udp_timeout = Duration::from_millis(700);
    })
    .await;
    let ask = |name: &'static str| server.ask_owned(edns_query(name, RecordType::A, 1232));
    let names = ["a.example.org.", "a.example.org.", "A.example.org.", "b.example.org.", "c.example.org."];
    let answers = futures::future::join_all(names.map(ask)).await;
    let mut texts: Vec<String> = answers.iter().map(|answer| explanation(answer).unwrap().1).collect();
    texts.sort();
    let count = |part: &str| texts.iter().filter(|text| text.contains(part)).count();
    assert_eq!(
        (count("in time"), count("same question"), count("too many queries wait")),
        (3, 1, 1),
        "{texts:?}"
    );
    // The places are free again.
    let answer = server.ask(&edns_query("a.example.org.", RecordType::A, 1232)).await;
    assert!(explanation(&answer).unwrap().1.contains("in time"));
    server.stop().await;
}

#[tokio::test]
async fn two_servers_that_forward_to_each_other_find_the_loop() {
    // Addresses of this process's own, as each must know the other's before either is bound.
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let address = |net| SocketAddr::from(([127, net, a, b], 5300));
    let mut servers = Vec::new();
    for (own, other) in [(77, 78), (78, 77)] {
        let server = Running::start(Some(zone()), |config| {
            config.listen = address(own);
            config.forward = ForwardTo::Server(address(other));
        });
        servers.push(server.await);
    }
    for server in &servers {
        let question = edns_query("www.example.org.", RecordType::A, 1232);
        for answer in [server.ask(&question).await, server.ask_tcp(&question).await] {
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            let (_, text) = explanation(&answer).unwrap();
            assert!(text.starts_with("forwarding loop: this query came back"), "{text}");
        }
        let plain = server.ask(&query("www.example.org.", RecordType::A)).await;
        assert_eq!(plain.metadata.response_code, ResponseCode::ServFail);
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test]
async fn its_own_address_is_refused_as_the_server_to_forward_to() {
    let metrics = Metrics::register(&Registry::new("agent"));
    for (listen, forward) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")] {
        let error = loop {
            let port = {
                let free = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                free.local_addr().unwrap().port()
            };
            let forward = ForwardTo::Server(SocketAddr::new(forward.parse().unwrap(), port));
            let config = Config::new(SocketAddr::new(listen.parse().unwrap(), port), forward);
            let bound = Server::bind(config, ZoneWriter::new().reader(), metrics.clone()).await;
            match bound.unwrap_err() {
                // Another test took the port meanwhile.
                BindError::Address { .. } => {}
                error => break error,
            }
        };
        assert!(matches!(error, BindError::ForwardsToItself { .. }), "{error}");
        assert!(error.to_string().contains("--dns-forward"), "{error}");
    }
}

#[test]
fn the_option() {
    assert_eq!("refuse".parse(), Ok(ForwardTo::Refuse));
    assert_eq!("192.0.2.1:53".parse(), Ok(ForwardTo::Server("192.0.2.1:53".parse().unwrap())));
    for bad in ["", "192.0.2.1", "resolver:53", "192.0.2.1:0", "0.0.0.0:53", "[::]:53"] {
        let error = bad.parse::<ForwardTo>().unwrap_err();
        assert!(error.contains("give the resolver's IP:PORT"), "{error}");
    }
    assert_eq!(ForwardTo::Refuse.to_string(), "refuse");
}

#[tokio::test]
async fn before_the_first_snapshot_only_what_there_is_goes_through() {
    let server = upstream(|query| {
        let mut answer = good(query);
        match Message::from_vec(query).unwrap().queries[0].name().to_string().as_str() {
            "controller.example.net." => {}
            "empty.example.net." => answer.answers.clear(),
            _ => {
                answer.answers.clear();
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        vec![answer.to_vec().unwrap()]
    })
    .await;
    let running = Running::start(None, |config| config.forward = ForwardTo::Server(server)).await;
    let kind = RecordType::Unknown(65_280);
    let answer = running.ask(&edns_query("controller.example.net.", kind, 1232)).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
    for maybe_ours in ["catalog.acme.example.com.", "empty.example.net."] {
        let answer = running.ask(&edns_query(maybe_ours, kind, 1232)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail, "{maybe_ours}");
        assert_eq!(explanation(&answer).unwrap().0, 14, "not ready");
    }
    running.stop().await;
    // with a zone, another server's word on its own names is passed on
    let running = forwarding_to(server).await;
    let answer = running.ask(&edns_query("nothing.example.net.", kind, 1232)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    running.stop().await;
}
