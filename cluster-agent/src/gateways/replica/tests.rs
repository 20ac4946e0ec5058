//! Two sets of gateways that tell each other.

use super::*;
use crate::{gateways::HubConfig, state::DataDir};
use std::sync::Arc;
use tombolo_model::{GatewayRole, Generation};

struct Replica {
    hub: Arc<Hub>,
    /// What it was told last by the other: process and count.
    told: (String, u64),
    _dir: tempfile::TempDir,
}

impl Replica {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let hub = Hub::new(HubConfig::default(), data, Generation::new(1000));
        Self { hub, told: (String::new(), 0), _dir: dir }
    }

    /// Asks the other one until there is no more. Gives the number of answers.
    fn ask(&mut self, other: &Self) -> usize {
        for asked in 0.. {
            let Some(answer) = other.hub.news(&self.told.0, self.told.1, false) else { return asked };
            self.told = (answer.process.clone(), answer.stamp);
            self.hub.heard("other", answer);
        }
        unreachable!("it ends")
    }

    fn connect(&self, instance: &str, port: u16) -> super::super::stream::Stream {
        self.hub.hello(hello(instance, port)).unwrap();
        self.hub.open(instance, None).unwrap().0
    }

    fn set(&self) -> Vec<(String, bool)> {
        self.hub
            .gateways()
            .into_iter()
            .map(|(instance, gateway)| (instance, gateway.presence == Presence::Connected))
            .collect()
    }
}

fn hello(instance: &str, port: u16) -> GatewayHello {
    GatewayHello::new(
        Hello::current("tombolo-gateway"),
        instance.to_owned(),
        GatewayRole::Egress,
        ([10, 0, 0, 1], port).into(),
    )
}

fn is(all: &[(&str, bool)]) -> Vec<(String, bool)> {
    all.iter().map(|(instance, connected)| ((*instance).to_owned(), *connected)).collect()
}

#[test]
fn both_know_all() {
    let (mut a, mut b) = (Replica::start(), Replica::start());
    let one = a.connect("one", 1);
    let _two = b.connect("two", 2);
    assert_eq!((a.ask(&b), b.ask(&a)), (1, 1));
    for replica in [&a, &b] {
        assert_eq!(replica.set(), is(&[("one", true), ("two", true)]));
        assert_eq!(replica.hub.gateway_reports().len(), 2);
    }
    assert_eq!(a.ask(&b), 0, "there is no news");
    // What it reports comes over, too.
    a.hub.status("one", GatewayStatus { connections: 7, ..GatewayStatus::default() }).unwrap();
    assert_eq!(b.ask(&a), 1);
    assert_eq!(b.hub.gateway_reports()[0].status.connections, 7);
    // It goes over to the other replica.
    drop(one);
    b.ask(&a);
    assert_eq!(b.set(), is(&[("one", false), ("two", true)]));
    let one = b.connect("one", 1);
    a.ask(&b);
    b.ask(&a);
    assert_eq!(
        (a.set(), b.set()),
        (is(&[("one", true), ("two", true)]), is(&[("one", true), ("two", true)]))
    );
    assert_eq!(a.hub.dump().len(), 2, "it is known once");
    drop(one);
    a.ask(&b);
    assert_eq!(a.set(), is(&[("one", false), ("two", true)]));
    // Its address is another's now: that one is told of, and it is gone everywhere.
    let _three = a.connect("three", 1);
    b.ask(&a);
    a.ask(&b);
    assert_eq!(
        (a.set(), b.set()),
        (is(&[("three", true), ("two", true)]), is(&[("three", true), ("two", true)]))
    );
}

#[test]
fn a_replica_that_is_lost_takes_nothing_with_it() {
    let (mut a, b) = (Replica::start(), Replica::start());
    let _one = b.connect("one", 1);
    a.ask(&b);
    a.hub.lost("other");
    assert_eq!(a.set(), is(&[("one", false)]), "it may be on its way here");
    a.hub.lost("other");
    // It started anew: what it knows is all that counts.
    let again = Replica::start();
    let _two = again.connect("two", 2);
    assert_eq!(a.ask(&again), 1);
    assert_eq!(a.set(), is(&[("one", false), ("two", true)]));
    let _one = a.connect("one", 1);
    assert_eq!(a.set(), is(&[("one", true), ("two", true)]));
}

#[test]
fn one_that_comes_over_on_its_way_out_takes_no_callers() {
    let (mut a, b) = (Replica::start(), Replica::start());
    let _stays = a.connect("stays", 2);
    let _here = b.connect("one", 1);
    a.ask(&b);
    // The replica it was connected to ends, and the other one has not noticed yet: no report comes before it is led to.
    a.hub.hello(GatewayHello { leaving: true, ..hello("one", 1) }).unwrap();
    let _stream = a.hub.open("one", None).unwrap().0;
    assert_eq!(a.set(), is(&[("one", false), ("stays", true)]));
    a.hub.lost("other");
    assert_eq!(a.set(), is(&[("one", false), ("stays", true)]));
    // Another process in the same pod is one that stays.
    let _again = a.connect("one", 1);
    assert_eq!(a.set(), is(&[("one", true), ("stays", true)]));
}

#[test]
fn many_come_in_parts_and_none_is_missed() {
    let (mut a, b) = (Replica::start(), Replica::start());
    let reason = "x".repeat(4000);
    let advertised = |n: u16| GatewayHello {
        advertise: BTreeSet::from([format!("{reason}{n}:1")]),
        ..hello(&format!("g{n}"), 1000 + n)
    };
    for n in 0..600 {
        b.hub.hello(advertised(n)).unwrap();
    }
    assert!(a.ask(&b) > 1, "more than one answer");
    assert_eq!(a.set().len(), 600);
    // All of it again, while it changes: those that stay are never missed.
    a.told = (String::new(), 0);
    let first = b.hub.news("", 0, false).unwrap();
    assert!(first.whole && first.more);
    a.told = (first.process.clone(), first.stamp);
    a.hub.heard("other", first);
    assert_eq!(a.set().len(), 600);
    a.ask(&b);
    assert_eq!(a.set().len(), 600);
}

#[test]
fn what_was_forgotten_is_told_whole() {
    let (mut a, b) = (Replica::start(), Replica::start());
    let _stays = b.connect("stays", 1);
    a.ask(&b);
    for n in 0..GONE + 3 {
        let _ = b.hub.hello(hello(&format!("g{n}"), 9));
    }
    // Each took the place of the one before.
    let answer = b.hub.news(&a.told.0, a.told.1, true).unwrap();
    assert!(answer.whole && answer.leads);
    a.ask(&b);
    assert_eq!(a.set().len(), 2);
}

#[test]
fn a_gateway_goes_on_where_another_replica_left_it() {
    let replica = Replica::start();
    let held = Generation::new(5_000_000);
    replica.hub.hello(hello("one", 1)).unwrap();
    let synthesis = crate::synthesis::Synthesis::default();
    replica.hub.publish(&synthesis, &crate::synthesis::Changed::Everything, Generation::new(7));
    let digest = tombolo_wire::message::Digest("another".to_owned());
    let (_, lines) = replica.hub.open("one", Some((held, digest))).unwrap();
    let newer = |line: &tombolo_wire::message::FeedLine<_>| match line {
        tombolo_wire::message::FeedLine::Snapshot { generation, .. } => *generation > held,
        _ => false,
    };
    assert!(newer(lines.last().unwrap()), "{lines:?}");
}

#[test]
fn a_gateway_on_its_way_out_serves_still() {
    let (mut a, b) = (Replica::start(), Replica::start());
    let ingress = GatewayHello { role: GatewayRole::Ingress, ..hello("one", 1) };
    b.hub.hello(ingress).unwrap();
    let stream = b.hub.open("one", None).unwrap().0;
    let _egress = b.connect("two", 2);
    a.ask(&b);
    assert_eq!((a.hub.serving(), b.hub.serving()), (1, 1));
    b.hub.status("one", GatewayStatus { leaving: true, ..GatewayStatus::default() }).unwrap();
    a.ask(&b);
    for replica in [&a, &b] {
        assert_eq!(replica.set()[0], ("one".to_owned(), false), "nobody is sent there");
        assert_eq!(replica.hub.serving(), 1, "what is there goes on");
    }
    drop(stream);
    assert_eq!(b.hub.serving(), 0);
}

/// Who is gone because its agent went may come back; who said that it leaves does not, whichever replica it said it to.
#[test]
fn that_a_gateway_leaves_is_known_at_each_replica() {
    let (mut a, b) = (Replica::start(), Replica::start());
    // both were connected here, and are no more
    drop((a.connect("leaves", 1), a.connect("vanished", 2)));
    let presence = |replica: &Replica, instance: &str| replica.hub.gateways()[instance].presence;
    assert_eq!(presence(&a, "leaves"), Presence::Vanished);
    let _stream = b.connect("leaves", 1);
    b.hub.status("leaves", GatewayStatus { leaving: true, ..GatewayStatus::default() }).unwrap();
    a.ask(&b);
    for replica in [&a, &b] {
        assert_eq!(presence(replica, "leaves"), Presence::Leaving);
    }
    assert_eq!(presence(&a, "vanished"), Presence::Vanished);
}
