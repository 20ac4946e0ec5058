//! Bounded fuzzing of what a peer with a right to dial in can send: the bytes of HTTP/2, and the CONNECT requests in them. Nothing may panic or hang,
//! what is taken reads back as the same, and what is refused is answered with a reason.

use bytes::Bytes;
use http::{Request, Response};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{cell::Cell, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tombolo_gateway::{config::Limits, head, head::Connect, reason::Reason, tunnel::server_builder};

/// Connections tried.
const CASES: u32 = 2_000;
/// Of a clock that moves on only when there is nothing left to do: a silence of any length is the end of what there is to say.
const SILENCE: Duration = Duration::from_secs(20);

type Field = (&'static str, &'static str);

/// Good requests.
const REQUESTS: [&[Field]; 2] = [
    &[
        (":method", "CONNECT"),
        (":authority", "catalog.acme.example.com:8082"),
        ("tombolo-protocol", "1.0"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tombolo-inner", "offer"),
    ],
    &[
        (":method", "CONNECT"),
        (":authority", "[fd00::1]:80"),
        ("tombolo-protocol", "1.2"),
        ("tombolo-service", "catalog.acme.example.com:8082"),
        ("tombolo-source", "spiffe://acme/cluster/c1/ns/default/sa/shopping"),
        ("tombolo-inner", "accept"),
    ],
];

/// Replaces, cuts out and puts in bytes.
fn edits(most: usize) -> impl Strategy<Value = Vec<(usize, usize, Vec<u8>)>> {
    prop::collection::vec((any::<usize>(), 0usize..4, prop::collection::vec(any::<u8>(), 0..4)), 0..most)
}

fn edit(bytes: &mut Vec<u8>, edits: &[(usize, usize, Vec<u8>)]) {
    for (at, length, with) in edits {
        let at = at % (bytes.len() + 1);
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.iter().copied());
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Fields as a block of headers, each written out (RFC 7541, section 6.2.2).
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

prop_compose! {
    /// Two requests of one connection, with fields that are changed, left out and repeated; some of them with frames that are broken, too.
    fn connection()(
        requests in prop::collection::vec((0..REQUESTS.len(), any::<usize>(), edits(2), 0usize..12, 0usize..24), 2),
        broken in prop_oneof![3 => Just(Vec::new()), 1 => edits(4)],
    ) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        for (number, (which, field, edits, without, twice)) in requests.into_iter().enumerate() {
            let pair = |(name, value): &Field| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
            let mut fields: Vec<_> = REQUESTS[which].iter().map(pair).collect();
            let place = field % fields.len();
            edit(&mut fields[place].1, &edits);
            if let Some(again) = fields.get(twice).cloned() {
                fields.push(again);
            }
            if without < fields.len() {
                fields.remove(without);
            }
            let stream = u8::try_from(number * 2 + 1).unwrap();
            bytes.extend(frame(1, 4, stream, &block(&fields)));
            bytes.extend(frame(0, 1, stream, b"first bytes"));
        }
        edit(&mut bytes, &broken);
        bytes
    }
}

/// How often what came of it.
#[derive(Debug, Default)]
struct Seen {
    taken: Cell<u32>,
    refused: Cell<u32>,
    broken: Cell<u32>,
}

fn one_more(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

/// The answer to a request, as a gateway makes it.
fn answer(request: &Request<h2::RecvStream>, seen: &Seen) -> Response<()> {
    match Connect::parse(request) {
        Ok(connect) => {
            one_more(&seen.taken);
            assert_eq!(Connect::parse(&connect.request().unwrap()), Ok(connect));
            Response::new(())
        }
        Err(refusal) => {
            one_more(&seen.refused);
            assert!(matches!(refusal.reason, Reason::BadRequest | Reason::UnsupportedVersion), "{refusal}");
            let response = head::refused(&refusal, "egress@c1");
            assert_eq!(response.headers()["tombolo-reason"], refusal.reason.as_str());
            response
        }
    }
}

async fn serve(bytes: &[u8], seen: &Seen) {
    let (mut peer, gateway) = tokio::io::duplex(1 << 16);
    peer.write_all(bytes).await.unwrap();
    let serving = async {
        let limits = Limits::default();
        let builder = server_builder(&limits, limits.stream_window);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(gateway).await else {
            return one_more(&seen.broken);
        };
        while let Some(accepted) = connection.accept().await {
            let Ok((request, mut respond)) = accepted else { return one_more(&seen.broken) };
            // The stream may be gone already.
            let _ = respond.send_response(answer(&request, seen), true);
        }
    };
    let listening = async {
        let mut rest = Vec::new();
        // A connection that is closed drops what was not looked at yet.
        if timeout(SILENCE, peer.read_to_end(&mut rest)).await.is_err() {
            peer.shutdown().await.unwrap();
            peer.read_to_end(&mut rest).await.unwrap();
        }
    };
    tokio::join!(serving, listening);
}

#[test]
fn connect_requests() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let seen = Seen::default();
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let ran = TestRunner::new(config).run(&connection(), |bytes| {
        runtime
            .block_on(async { timeout(SILENCE * 3, serve(&bytes, &seen)).await })
            .map_err(|_| TestCaseError::fail("it hangs"))
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    println!("{CASES} connections: {seen:?}");
    // It gets as far as the requests, and both ways there.
    let least = CASES / 20;
    assert!(seen.taken.get() > least && seen.refused.get() > least && seen.broken.get() > least, "{seen:?}");
}
