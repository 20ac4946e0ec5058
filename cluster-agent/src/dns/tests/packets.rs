//! Any bytes at all: no panic, no answer to an answer, every answer well-formed and within its bounds.

use super::*;
use crate::dns::{
    answer::Settings,
    respond::{Others, Step, respond},
};
use hickory_proto::op::ResponseCode;
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = RecordType> {
    prop_oneof![
        Just(RecordType::A),
        Just(RecordType::SRV),
        Just(RecordType::PTR),
        Just(RecordType::ANY),
        any::<u16>().prop_map(RecordType::from)
    ]
}

fn names() -> impl Strategy<Value = Name> {
    let labels = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6);
    let ours = ["catalog", "_http._tcp.catalog", "db", "nothing"].map(|l| format!("{l}.acme.example.com."));
    prop_oneof![
        labels.prop_map(|labels| Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap()),
        prop::sample::select(ours.to_vec()).prop_map(|name| Name::from_ascii(&name).unwrap()),
    ]
}

prop_compose! {
    /// A well-formed query.
    fn packets()(
        name in names(), kind in kinds(), id in any::<u16>(), flags in any::<u8>(),
        edns in prop::option::of((any::<u16>(), prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..3))),
    ) -> Vec<u8> {
        use hickory_proto::rr::rdata::opt::EdnsOption;
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = flags & 1 != 0;
        message.metadata.checking_disabled = flags & 2 != 0;
        message.add_query(Query::query(name, kind));
        if let Some((payload, options)) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            for (code, data) in options {
                edns.options_mut().insert(EdnsOption::Unknown(code, data));
            }
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }
}

/// The promises of every answer to `packet`.
fn hold(packet: &[u8], zone: &Zone) -> Result<(), TestCaseError> {
    fuzz(packet);
    for transport in [Transport::Udp, Transport::Tcp] {
        match respond(Some(zone), &Settings::default(), Others::Forwarded, packet, transport, 7) {
            Step::Ignore(_) => prop_assert!(packet.len() < 12 || packet[2] & 0x80 != 0),
            Step::Say { bytes, code, .. } => {
                let answer = Message::from_vec(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
                prop_assert_eq!(&bytes[..2], &packet[..2]);
                prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                prop_assert_eq!(u16::from(answer.metadata.response_code), u16::from(code));
                if !matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
                    // The question comes back byte for byte.
                    let end = bytes.len().min(packet.len()).min(12 + answer.queries[0].name().len() + 4);
                    prop_assert_eq!(&bytes[12..end], &packet[12..end]);
                }
                if transport == Transport::Udp {
                    prop_assert!(bytes.len() <= usize::from(UDP_PAYLOAD));
                    let query = Message::from_vec(packet);
                    let payload = query.map_or(512, |query| query.max_payload());
                    prop_assert!(bytes.len() <= usize::from(payload.max(512)));
                }
            }
            Step::Forward { .. } => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        hold(&packet, &zone())?;
    }

    #[test]
    fn random_bytes_behind_a_header(id in any::<u16>(), rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let [a, b] = id.to_be_bytes();
        let packet = [&[a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1], &rest[..]].concat();
        hold(&packet, &zone())?;
    }

    #[test]
    fn mutated_queries(
        mut packet in packets(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        hold(&packet, &zone())?;
    }

    #[test]
    fn well_formed_queries_are_answered(packet in packets()) {
        hold(&packet, &crowd(60))?;
        let step = respond(Some(&zone()), &Settings::default(), Others::Refused, &packet, Transport::Tcp, 7);
        let answered = matches!(step, Step::Say { .. });
        prop_assert!(answered);
    }
}

#[test]
fn fuzz_corpus() {
    // A name that points at itself, one that points forward, a label that is too long, a count that lies.
    for packet in [
        &b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"[..],
        b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\xff\0\x01\0\x01",
        b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x7faaaa\0\0\x01\0\x01",
        b"\0\x01\x01\0\0\x01\xff\xff\xff\xff\xff\xff\0\0\x01\0\x01",
        b"\0\x01\x01\0\xff\xff\0\0\0\0\0\0\0\0\x01\0\x01",
        b"",
        b"\0",
    ] {
        fuzz(packet);
    }
}

#[test]
fn several_answers_take_turns() {
    let packet = query("db.acme.example.com.", RecordType::A).to_vec().unwrap();
    let first = |turn| match respond(
        Some(&zone()),
        &Settings::default(),
        Others::Refused,
        &packet,
        Transport::Udp,
        turn,
    ) {
        Step::Say { bytes, .. } => Message::from_vec(&bytes).unwrap().answers[0].data.to_string(),
        step => panic!("{step:?}"),
    };
    assert_eq!([first(0), first(1), first(u32::MAX - 1)], ["240.0.0.5", "240.0.0.6", "240.0.0.5"]);
}
