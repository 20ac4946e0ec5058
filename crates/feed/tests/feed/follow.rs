//! Following: what reaches the readers, and what does not.

use crate::sender::{RETRY_AFTER, Running, Sender, options, peers};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use tombolo_model::{Generation, snapshot::ClusterResource};
use tombolo_wire::{
    message::{Digest, FeedLine},
    session::Publisher,
    version::{Hello, ProtocolVersion},
};

fn g(number: u64) -> Generation {
    Generation::new(number)
}

/// A publisher at generation 1 with the first two peers.
fn publisher() -> Publisher<ClusterResource> {
    let mut publisher = Publisher::new(8);
    publisher.publish(g(1), peers(&[1, 2]));
    publisher
}

fn resume(call: &crate::sender::Call) -> Option<(Generation, Digest)> {
    call.resume.clone().map(|(number, digest)| (g(number), Digest(digest)))
}

#[tokio::test(start_paused = true)]
async fn snapshot_delta_and_acknowledgements() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let mut publisher = publisher();

    let mut call = sender.call().await;
    assert_eq!(call.resume, None);
    call.say(publisher.open(None));
    assert_eq!(*running.at(1).await.resources, peers(&[1, 2]));
    assert_eq!(sender.ack().await, json!({"generation": 1}));

    publisher.publish(g(3), peers(&[2, 3]));
    call.more(publisher.since(g(1)));
    let state = running.at(3).await;
    assert_eq!(*state.resources, peers(&[2, 3]));
    assert_eq!(state.previous, g(1));
    assert_eq!(state.changes.upserted, peers(&[3]).into_keys().collect());
    assert_eq!(state.changes.removed, peers(&[1]).into_keys().collect());
    assert_eq!(sender.ack().await, json!({"generation": 3}));

    // A newer number for the same content is acknowledged too, so that no lag shows where there is none.
    publisher.publish(g(9), peers(&[2, 3]));
    call.more([publisher.beat(g(3))]);
    running.at(9).await;
    assert_eq!(sender.ack().await, json!({"generation": 9}));
    let status = running.until(|status| status.connected && status.generation == g(9)).await;
    assert_eq!((status.lag(), status.error, status.failures), (0, None, 0));
    assert_eq!(status.sender.unwrap().software, Hello::current("test-sender").software);
    call.more([FeedLine::Heartbeat { generation: g(11) }]);
    assert_eq!(running.until(|status| status.newest == g(11)).await.lag(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_without_room_is_sent_again_when_it_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    sender.answer("/ack", 429, "{}");
    let _running = Running::start(&sender.socket, options());
    let publisher = publisher();
    let mut call = sender.call().await;
    call.say(publisher.open(None));
    assert_eq!(sender.ack().await, json!({"generation": 1}));
    let refused = Instant::now();
    sender.answer("/ack", 204, "");
    while refused.elapsed() < RETRY_AFTER - Duration::from_secs(1) {
        call.more([publisher.beat(g(1))]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(sender.ack().await, json!({"generation": 1}), "it was not taken");
    assert!(refused.elapsed() >= RETRY_AFTER);
}

#[tokio::test(start_paused = true)]
async fn resumes_after_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let mut publisher = publisher();
    let mut held = sender.call().await;
    held.say(publisher.open(None));
    running.at(1).await;

    sender.cut();
    let lost = running.until(|status| !status.connected && status.error.is_some()).await;
    assert_eq!(lost.generation, g(1));
    assert_eq!(*running.at(1).await.resources, peers(&[1, 2]), "nothing is withdrawn");

    publisher.publish(g(2), peers(&[1, 2, 3]));
    let mut call = sender.call().await;
    assert_eq!(call.resume.as_ref().unwrap().0, 1);
    let lines = publisher.open(resume(&call));
    assert!(matches!(&lines[..], [FeedLine::Delta { .. }]), "{lines:?}");
    call.say(lines);
    assert_eq!(*running.at(2).await.resources, peers(&[1, 2, 3]));

    // What we have is what there is: no bytes, and connected again.
    sender.cut();
    let mut call = sender.call().await;
    let lines = publisher.open(resume(&call));
    assert!(matches!(&lines[..], [FeedLine::Current { .. }]), "{lines:?}");
    call.say(lines);
    running.until(|status| status.connected && status.lost.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_base_leads_to_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let mut one = publisher();
    let mut call = sender.call().await;
    call.say(one.open(None));
    running.at(1).await;

    one.publish(g(2), peers(&[5]));
    one.publish(g(4), peers(&[5, 6]));
    call.more(one.since(g(2)));
    let mut call = sender.call().await;
    // Another replica, that never had what the receiver has.
    let mut two = Publisher::new(4);
    two.publish(g(4), peers(&[5, 6]));
    let lines = two.open(resume(&call));
    assert!(matches!(&lines[..], [FeedLine::Snapshot { .. }]), "{lines:?}");
    call.say(lines);
    assert_eq!(*running.at(4).await.resources, peers(&[5, 6]));
}

#[tokio::test(start_paused = true)]
async fn silence_is_death() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let publisher = publisher();
    let mut call = sender.call().await;
    call.say(publisher.open(None));
    running.at(1).await;
    // Heartbeats keep it.
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(5)).await;
        call.more([publisher.beat(g(1))]);
        running.until(|status| status.heard == Some(Instant::now())).await;
    }
    let quiet = Instant::now();
    let mut again = sender.call().await;
    assert!(quiet.elapsed() >= Duration::from_secs(6) && quiet.elapsed() < Duration::from_secs(7));
    assert_eq!(again.resume.as_ref().unwrap().0, 1);
    assert!(running.until(|_| true).await.error.unwrap().contains("silent"));
    again.say(publisher.open(resume(&again)));
    running.until(|status| status.connected).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_ends_the_feed_and_not_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let publisher = publisher();
    let mut held = sender.call().await;
    held.say(publisher.open(None));
    running.at(1).await;
    sender.cut();
    let cut_line: &[u8] = b"{\"line\":\"snap";
    for (bytes, end) in [
        (&b"{}\n"[..], false),
        (b"not json\n", false),
        (b"\xff\xfe\n", false),
        (b"{\"line\":\"heartbeat\"}\n", false),
        (cut_line, true),
    ] {
        let mut call = sender.call().await;
        assert_eq!(call.resume.as_ref().map(|(at, _)| *at), Some(1));
        call.say([]);
        call.bytes(bytes);
        if end {
            call.end();
        }
        running.until(|status| !status.connected && status.error.is_some()).await;
        assert_eq!(*running.at(1).await.resources, peers(&[1, 2]));
    }
    let mut call = sender.call().await;
    call.say(publisher.open(resume(&call)));
    running.until(|status| status.connected && status.error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn older_states_and_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let mut newer = Publisher::new(8);
    newer.publish(g(5), peers(&[1]));
    let mut held = sender.call().await;
    held.say(newer.open(None));
    running.at(5).await;
    sender.cut();

    let stale = publisher();
    let mut call = sender.call().await;
    call.say(stale.open(None));
    running.until(|status| status.error.as_ref().is_some_and(|error| error.contains("older than 5"))).await;
    assert_eq!(*running.at(5).await.resources, peers(&[1]));

    let mut call = sender.call().await;
    let protocol = ProtocolVersion { major: 9, minor: 0 };
    call.more([FeedLine::Hello(Hello { protocol, ..Hello::current("test-sender") })]);
    running
        .until(|status| {
            status.error.as_ref().is_some_and(|error| error.contains("upgrade this program first"))
        })
        .await;

    let mut call = sender.call().await;
    call.say([FeedLine::Goodbye { reason: "draining".into() }]);
    running.until(|status| status.error.as_ref().is_some_and(|error| error.contains("draining"))).await;
    let mut call = sender.call().await;
    call.say(newer.open(resume(&call)));
    running.until(|status| status.connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_not_valid_is_acknowledged_as_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let mut options = options();
    options.validate = Arc::new(|all| if all.len() > 2 { Err("too many peers".into()) } else { Ok(()) });
    let running = Running::start(&sender.socket, options);
    let mut publisher = publisher();
    let mut call = sender.call().await;
    call.say(publisher.open(None));
    running.at(1).await;
    assert_eq!(sender.ack().await, json!({"generation": 1}));

    publisher.publish(g(2), peers(&[1, 2, 3]));
    call.more(publisher.since(g(1)));
    assert_eq!(sender.ack().await, json!({"generation": 1, "refused": [2, "too many peers"]}));
    let status = running.until(|status| status.error.is_some()).await;
    assert_eq!((status.generation, status.newest, status.connected), (g(1), g(2), true));
    assert_eq!(*running.at(1).await.resources, peers(&[1, 2]));

    // The next one is based on what was refused; asking again brings it whole.
    publisher.publish(g(3), peers(&[3]));
    call.more(publisher.since(g(2)));
    let mut call = sender.call().await;
    call.say(publisher.open(resume(&call)));
    assert_eq!(*running.at(3).await.resources, peers(&[3]));
    assert_eq!(sender.ack().await, json!({"generation": 3}));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_looked_for_every_second() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder.path().join("nobody.sock"), options());
    let began = Instant::now();
    let status = running.until(|status| status.failures == 12).await;
    let waits = Duration::from_millis(4250)..Duration::from_millis(8600);
    assert!(waits.contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(status.error.unwrap().starts_with("no connection: could not connect to"));
    let sender = Sender::listen(folder.path());
    std::fs::rename(&sender.socket, folder.path().join("nobody.sock")).unwrap();
    let mut sender = sender;
    let mut held = sender.call().await;
    held.say(publisher().open(None));
    running.at(1).await;
    assert_eq!(running.until(|status| status.connected).await.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_big_state_comes_in_many_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, options());
    let numbers: Vec<u8> = (0..=255).collect();
    let mut publisher = Publisher::new(8);
    publisher.publish(g(1), peers(&numbers));
    let mut call = sender.call().await;
    call.say([]);
    let line = tombolo_wire::codec::encode_line(&publisher.open(None)[0]).unwrap();
    for piece in line.chunks(1000) {
        call.bytes(piece);
    }
    assert_eq!(running.at(1).await.resources.len(), 256);
    let keys: BTreeSet<_> = running.at(1).await.changes.upserted.clone();
    assert_eq!(keys.len(), 256);
}
