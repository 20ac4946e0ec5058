use super::*;
use crate::{
    codec::{decode_line, encode_line},
    digest::{Stated, Sum},
    message::{Digest, FeedLine},
    version::{Hello, ProtocolVersion},
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, Generation, Proximity,
    snapshot::{ClusterResource, PeerSpec, Resource, ResourceKey, Resources},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: u8,
    value: u8,
}
impl Resource for Thing {
    const TYPES: &'static [&'static str] = &[];
    fn key(&self) -> ResourceKey {
        ResourceKey::new("thing", &self.name.to_string())
    }
}

fn state(things: &BTreeMap<u8, u8>) -> Resources<Thing> {
    things.iter().map(|(name, value)| Thing { name: *name, value: *value }).map(|t| (t.key(), t)).collect()
}

fn generation(number: u64) -> Generation {
    Generation::new(number)
}

/// Over the wire and back.
fn sent<R: Resource>(line: &FeedLine<R>) -> FeedLine<Stated<R>> {
    decode_line(&encode_line(line).unwrap()).unwrap()
}

fn greeted<R: Resource>(mut receiver: Receiver<R>) -> Receiver<R> {
    receiver.begin();
    receiver.accept(FeedLine::Hello(Hello::current("test"))).unwrap();
    receiver
}

fn two() -> (Publisher<Thing>, Receiver<Thing>) {
    let mut publisher = Publisher::new(8);
    assert!(publisher.publish(generation(5), state(&BTreeMap::from([(1, 1), (2, 2)]))));
    let mut receiver = greeted(Receiver::new());
    for line in publisher.open(receiver.resume()) {
        receiver.accept(sent(&line)).unwrap();
    }
    (publisher, receiver)
}

/// A line for the codec's tests to damage.
pub(crate) fn snapshot_line() -> Vec<u8> {
    let peer = ClusterResource::Peer(
        PeerSpec {
            cluster: ClusterName::parse("cluster-2").unwrap(),
            proximity: Proximity::Region,
            ingress: BTreeSet::from(["127.0.0.1:15443".to_owned()]),
        }
        .into(),
    );
    let mut publisher = Publisher::new(1);
    publisher.publish(generation(3), BTreeMap::from([(peer.key(), peer)]));
    encode_line(&publisher.open(None)[0]).unwrap()
}

#[test]
fn a_beat_that_comes_before_the_change_was_told_brings_the_change() {
    let (mut publisher, mut receiver) = two();
    publisher.update(generation(7), state(&BTreeMap::from([(2, 9)])), BTreeSet::new());
    let beat = publisher.beat(receiver.generation());
    assert!(
        matches!(receiver.accept(sent(&beat)), Ok(Applied::State(changes)) if changes.upserted.len() == 1)
    );
    assert_eq!((receiver.generation(), receiver.state()), (generation(7), publisher.resources()));
}

#[test]
fn a_feed() {
    let (mut publisher, mut receiver) = two();
    assert_eq!(receiver.generation(), generation(5));
    assert_eq!(receiver.state(), publisher.resources());

    assert!(publisher.update(generation(7), state(&BTreeMap::from([(2, 9)])), BTreeSet::new()));
    let line = publisher.since(generation(5)).unwrap();
    assert!(matches!(&line, FeedLine::Delta { upserts, .. } if upserts.len() == 1));
    let Applied::State(changes) = receiver.accept(sent(&line)).unwrap() else { panic!() };
    assert_eq!(changes.upserted, BTreeSet::from([ResourceKey::new("thing", "2")]));
    assert_eq!(receiver.state(), publisher.resources());

    assert!(!publisher.publish(generation(9), publisher.resources().clone()), "nothing changed");
    assert_eq!(publisher.since(generation(7)), None);
    assert!(matches!(publisher.beat(generation(7)), FeedLine::Current { .. }));
    receiver.accept(sent(&publisher.beat(generation(7)))).unwrap();
    assert_eq!(receiver.generation(), generation(9));
    assert!(matches!(publisher.beat(generation(9)), FeedLine::Heartbeat { .. }));
    // The next change is based on the number that the heartbeat gave.
    publisher.update(generation(10), BTreeMap::new(), BTreeSet::from([ResourceKey::new("thing", "1")]));
    receiver.accept(sent(&publisher.since(generation(9)).unwrap())).unwrap();
    assert_eq!(receiver.state(), publisher.resources());
}

#[test]
fn stale_publishes_change_nothing() {
    let (mut publisher, _) = two();
    assert!(!publisher.publish(generation(5), BTreeMap::new()));
    assert!(!publisher.publish(generation(4), BTreeMap::new()));
    assert_eq!(publisher.resources().len(), 2);
}

#[test]
fn refusals_leave_the_state() {
    let (publisher, receiver) = two();
    let digest = publisher.digest();
    let wrong = Digest("0".repeat(32));
    let (upserts, removes) = (BTreeMap::new(), BTreeSet::new());
    let odd = BTreeMap::from([(ResourceKey::new("thing", "4"), Thing { name: 3, value: 1 })]);
    let (g4, g5, g6) = (generation(4), generation(5), generation(6));
    let cases: Vec<(FeedLine<Thing>, Refused)> = vec![
        (
            FeedLine::Snapshot { generation: g4, digest: digest.clone(), resources: BTreeMap::new() },
            Refused::Older { offered: g4, have: g5 },
        ),
        (
            FeedLine::Snapshot { generation: g6, digest: digest.clone(), resources: BTreeMap::new() },
            Refused::WrongDigest { generation: g6 },
        ),
        (
            FeedLine::Snapshot { generation: g6, digest: Sum::of_all(&odd).digest(), resources: odd },
            Refused::WrongKey { generation: g6, key: ResourceKey::new("thing", "4") },
        ),
        (
            FeedLine::Delta {
                base: g4,
                generation: g6,
                digest: digest.clone(),
                upserts: upserts.clone(),
                removes: removes.clone(),
            },
            Refused::WrongBase { base: g4, have: g5 },
        ),
        (
            FeedLine::Delta { base: g5, generation: g6, digest: wrong.clone(), upserts, removes },
            Refused::WrongDigest { generation: g6 },
        ),
        (FeedLine::Current { generation: g4, digest }, Refused::Older { offered: g4, have: g5 }),
        (FeedLine::Current { generation: g6, digest: wrong }, Refused::WrongDigest { generation: g6 }),
    ];
    for (line, why) in cases {
        let mut receiver = receiver.clone();
        assert_eq!(receiver.accept(sent(&line)), Err(why));
        assert_eq!((receiver.generation(), receiver.state()), (g5, publisher.resources()));
    }
}

#[test]
fn what_is_not_valid_is_refused_whole() {
    let (mut publisher, mut receiver) = two();
    publisher.update(generation(6), state(&BTreeMap::from([(3, 3)])), BTreeSet::new());
    let line = publisher.since(generation(5)).unwrap();
    let refused = receiver.accept_if(sent(&line), |all| Err(format!("{} are too many", all.len())));
    let reason = "3 are too many".to_owned();
    assert_eq!(refused, Err(Refused::Invalid { generation: generation(6), reason }));
    assert_eq!((receiver.generation(), receiver.state().len()), (generation(5), 2));
    // It may be right the next time, from the same base.
    receiver.accept(sent(&line)).unwrap();
    assert_eq!(receiver.state(), publisher.resources());
}

#[test]
fn the_first_line_says_who_speaks() {
    let mut receiver = Receiver::<Thing>::new();
    let beat = || FeedLine::Heartbeat { generation: generation(1) };
    assert_eq!(receiver.accept(beat()), Err(Refused::NoHello));
    let mut hello = Hello::current("test");
    hello.protocol = ProtocolVersion { major: 2, minor: 0 };
    assert!(matches!(receiver.accept(FeedLine::Hello(hello)), Err(Refused::Version { .. })));
    assert!(receiver.accept(FeedLine::Hello(Hello::current("test"))).is_ok());
    assert!(receiver.accept(beat()).is_ok());
    receiver.begin();
    assert_eq!(receiver.accept(beat()), Err(Refused::NoHello));
}

#[test]
fn a_replica_that_is_behind_says_nothing() {
    let (publisher, _) = two();
    let ahead = Some((generation(6), Digest("ff".repeat(16))));
    assert_eq!(publisher.open(ahead), [FeedLine::Heartbeat { generation: generation(5) }]);
    assert_eq!(Publisher::<Thing>::new(1).open(None), [FeedLine::Heartbeat { generation: Generation::ZERO }]);
}

#[test]
fn a_feed_opened_before_the_first_state_gets_it_whole() {
    let mut publisher = Publisher::new(4);
    let opened_at = publisher.generation();
    publisher.publish(generation(3), state(&BTreeMap::from([(1, 1)])));
    assert!(matches!(publisher.since(opened_at), Some(FeedLine::Snapshot { .. })));
}

#[test]
fn an_older_receiver_agrees_on_the_digest() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Newer {
        added: BTreeMap<String, u8>,
        value: u8,
        name: u8,
    }
    impl Resource for Newer {
        const TYPES: &'static [&'static str] = &[];
        fn key(&self) -> ResourceKey {
            ResourceKey::new("thing", &self.name.to_string())
        }
    }
    let thing = |value| Newer { added: BTreeMap::from([("b".into(), 1)]), value, name: 1 };
    let mut publisher = Publisher::new(4);
    publisher.publish(generation(1), BTreeMap::from([(thing(1).key(), thing(1))]));
    let mut receiver = greeted(Receiver::<Thing>::new());
    let over = |line: &FeedLine<Newer>| decode_line(&encode_line(line).unwrap()).unwrap();
    receiver.accept(over(&publisher.open(None)[0])).unwrap();
    publisher.update(generation(2), BTreeMap::from([(thing(2).key(), thing(2))]), BTreeSet::new());
    receiver.accept(over(&publisher.since(generation(1)).unwrap())).unwrap();
    assert_eq!(receiver.state()[&thing(2).key()], Thing { name: 1, value: 2 });
    assert!(matches!(publisher.open(receiver.resume())[..], [FeedLine::Current { .. }]));
    // After a restart, from its own words, it is not so sure, and asks for everything.
    let restored = Receiver::restore(receiver.generation(), receiver.state().clone());
    assert!(matches!(publisher.open(restored.resume())[..], [FeedLine::Snapshot { .. }]));
}

#[test]
fn a_big_state_comes_in_parts() {
    let mut publisher = Publisher::new(8).with_line(40);
    let all: BTreeMap<u8, u8> = (0..20).map(|n| (n, n)).collect();
    publisher.publish(generation(4), state(&all));
    let lines = publisher.open(None);
    assert_eq!(lines.len(), 10);
    let mut receiver = greeted(Receiver::new());
    let (last, parts) = lines.split_last().unwrap();
    for line in parts {
        assert_eq!(receiver.accept(sent(line)), Ok(Applied::Alive(generation(4))));
        assert!(receiver.state().is_empty(), "nothing is in force before the last line");
    }
    receiver.accept(sent(last)).unwrap();
    assert_eq!(receiver.state(), publisher.resources());

    // Parts without their end are forgotten with the feed; those of another generation are refused.
    receiver.accept(sent(&parts[0])).unwrap();
    let stray = FeedLine::<Thing>::Part { generation: generation(5), resources: BTreeMap::new() };
    let refused = Refused::Part { generation: generation(5), of: generation(4) };
    assert_eq!(receiver.accept(sent(&stray)), Err(refused));
    let mut receiver = greeted(receiver);
    receiver.accept(sent(&stray)).unwrap();

    // A change too big for a line: the feed ends, and the next one brings it.
    publisher.publish(generation(6), state(&all.keys().map(|n| (*n, n + 1)).collect()));
    assert!(matches!(publisher.since(generation(4)), Some(FeedLine::Goodbye { .. })));
    let mut receiver = greeted(receiver);
    for line in publisher.open(receiver.resume()) {
        receiver.accept(sent(&line)).unwrap();
    }
    assert_eq!(receiver.state(), publisher.resources());
}

fn states() -> impl Strategy<Value = Vec<BTreeMap<u8, u8>>> {
    prop::collection::vec(prop::collection::btree_map(0u8..8, 0u8..3, 0..8), 1..12)
}

proptest! {
    /// Any sequence of publishes: a receiver that follows by deltas, with lines missed, comes to the sender's state.
    #[test]
    fn deltas_equal_full(states in states(), limit in 1usize..6, follow in prop::collection::vec(any::<bool>(), 12)) {
        let mut publisher = Publisher::new(limit);
        let mut receiver = greeted(Receiver::new());
        let mut fed = publisher.generation();
        let mut last = Generation::ZERO;
        for (at, things) in states.iter().enumerate() {
            let before = publisher.digest();
            let changed = publisher.publish(generation(2 * at as u64 + 1), state(things));
            prop_assert!(publisher.generation() > last);
            last = publisher.generation();
            prop_assert_eq!(changed, at == 0 || before != publisher.digest());
            prop_assert_eq!(publisher.digest(), Sum::of_all(publisher.resources()).digest());
            prop_assert_eq!(publisher.resources(), &state(things));
            if follow[at] {
                let before = receiver.generation();
                if let Some(line) = publisher.since(fed) { receiver.accept(sent(&line)).unwrap(); }
                receiver.accept(sent(&publisher.beat(receiver.generation()))).unwrap();
                fed = publisher.generation();
                prop_assert!(receiver.generation() >= before);
                prop_assert_eq!(receiver.generation(), publisher.generation());
                prop_assert_eq!(receiver.state(), publisher.resources());
            }
        }
    }

    /// Whatever a receiver has, one new feed brings it to the sender's state, unless it is ahead of the sender.
    #[test]
    fn open_converges(states in states(), limit in 1usize..6, have in prop::collection::btree_map(0u8..8, 0u8..3, 0..8), at in 0u64..16, line in 1usize..200) {
        let mut publisher = Publisher::new(limit).with_line(line);
        for (at, things) in states.iter().enumerate() {
            publisher.publish(generation(at as u64 + 1), state(things));
        }
        let mut receiver = greeted(Receiver::restore(generation(at), state(&have)));
        let ahead = receiver.generation() > publisher.generation();
        for line in publisher.open(receiver.resume()) { receiver.accept(sent(&line)).unwrap(); }
        if ahead {
            prop_assert_eq!(receiver.state(), &state(&have));
        } else {
            prop_assert_eq!(receiver.state(), publisher.resources());
            prop_assert_eq!(receiver.generation(), publisher.generation());
        }
    }

    /// Two replicas that saw other generations: a receiver that moves between them still converges.
    #[test]
    fn replicas_agree(states in states(), seen in prop::collection::vec(any::<bool>(), 12)) {
        let (mut one, mut two) = (Publisher::new(4), Publisher::new(4));
        let mut receiver = greeted(Receiver::new());
        for (at, things) in states.iter().enumerate() {
            let g = generation(at as u64 + 1);
            one.publish(g, state(things));
            if seen[at] { two.publish(g, state(things)); }
            let replica = if at % 2 == 0 { &one } else { &two };
            receiver.begin();
            receiver.accept(FeedLine::Hello(Hello::current("test"))).unwrap();
            for line in replica.open(receiver.resume()) { receiver.accept(sent(&line)).unwrap(); }
        }
        for line in one.open(receiver.resume()) { receiver.accept(sent(&line)).unwrap(); }
        prop_assert_eq!(receiver.state(), one.resources());
    }
}
