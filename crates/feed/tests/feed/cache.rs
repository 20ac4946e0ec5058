//! The state on disk.

use crate::sender::{Running, Sender, options, peers};
use std::path::Path;
use tombolo_feed::{Options, cache};
use tombolo_model::{Generation, snapshot::ClusterResource};
use tombolo_wire::session::Publisher;

fn kept_in(folder: &Path) -> Options<ClusterResource> {
    Options { cache: Some(folder.join("state.json")), ..options() }
}

fn first() -> Publisher<ClusterResource> {
    let mut publisher = Publisher::new(8);
    publisher.publish(Generation::new(4), peers(&[1, 2]));
    publisher
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_the_sender_serves_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    let running = Running::start(&sender.socket, kept_in(folder.path()));
    let mut held = sender.call().await;
    held.say(first().open(None));
    running.until(|status| status.kept == Generation::new(4)).await;
    let socket = sender.socket.clone();
    drop((running, sender));

    let running = Running::start(&socket, kept_in(folder.path()));
    // It is there before anything was tried.
    assert_eq!(*running.client.state().borrow().resources, peers(&[1, 2]));
    let status = running.until(|status| status.failures > 2).await;
    assert!(status.from_cache && !status.connected);
    assert_eq!(*running.at(4).await.resources, peers(&[1, 2]));

    let mut sender = Sender::listen(folder.path());
    let mut call = sender.call().await;
    assert_eq!(call.resume, Some((4, first().digest().0)));
    call.say(first().open(Some((Generation::new(4), first().digest()))));
    assert!(!running.until(|status| status.connected).await.from_cache);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_reported_ignored_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    cache::store(&file, Generation::new(4), &peers(&[1, 2])).unwrap();
    let good = std::fs::read_to_string(&file).unwrap();
    let mut socket = Sender::listen(folder.path());
    for (bad, why) in [
        (String::new(), "not a kept state"),
        (good[..good.len() - 20].to_owned(), "not a kept state"),
        (good.replace("15443", "15444"), "does not have its digest"),
        (good.replace("\"format\":1", "\"format\":9"), "another version"),
        (good.replace("\"generation\":4", "\"generation\":9"), "another generation"),
    ] {
        std::fs::write(&file, bad).unwrap();
        let running = Running::start(&socket.socket, kept_in(folder.path()));
        assert!(running.client.state().borrow().resources.is_empty());
        let status = running.client.status().borrow().clone();
        assert!(status.cache_error.unwrap().contains(why), "{why}");
        let mut call = socket.call().await;
        assert_eq!(call.resume, None);
        call.say(first().open(None));
        let status =
            running.until(|status| status.kept == Generation::new(4) && status.cache_error.is_none()).await;
        assert!(status.connected);
        let (generation, resources) = cache::load::<ClusterResource>(&file).unwrap().unwrap();
        assert_eq!((generation, resources), (Generation::new(4), peers(&[1, 2])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_nothing_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut sender = Sender::listen(folder.path());
    // Not even root writes a file where a folder stands.
    let taken = folder.path().join("state.new");
    std::fs::create_dir(&taken).unwrap();
    let running = Running::start(&sender.socket, kept_in(folder.path()));
    let mut publisher = first();
    let mut call = sender.call().await;
    call.say(publisher.open(None));
    running.at(4).await;
    let status = running.until(|status| status.cache_error.is_some()).await;
    assert!(status.cache_error.unwrap().contains("could not write"), "says what to look at");
    assert!(status.connected);
    // With room again, the next change is kept.
    std::fs::remove_dir(&taken).unwrap();
    publisher.publish(Generation::new(5), peers(&[1]));
    call.more(publisher.since(Generation::new(4)));
    running.at(5).await;
    let status = running.until(|status| status.kept == Generation::new(5)).await;
    assert_eq!(status.cache_error, None);
}

/// Who may write to the folder could have the state written over another file, or could read it.
#[test]
fn what_lies_in_the_way_is_neither_followed_nor_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (file, beside) = (folder.path().join("state.json"), folder.path().join("state.new"));
    let victim = folder.path().join("victim");
    for link in [std::os::unix::fs::symlink::<&Path, &Path>, std::fs::hard_link::<&Path, &Path>] {
        std::fs::write(&victim, "precious").unwrap();
        link(&victim, &beside).unwrap();
        cache::store(&file, Generation::new(4), &peers(&[1])).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!beside.exists() && !file.is_symlink());
        assert_eq!(cache::load::<ClusterResource>(&file).unwrap().unwrap().0, Generation::new(4));
        std::fs::remove_file(&file).unwrap();
    }
    // What a crash left goes.
    std::fs::write(&beside, "half of a sta").unwrap();
    cache::store(&file, Generation::new(5), &peers(&[1])).unwrap();
    assert_eq!(cache::load::<ClusterResource>(&file).unwrap().unwrap().0, Generation::new(5));
}

#[test]
fn what_an_older_version_kept_is_read() {
    let mut kept = Vec::new();
    cache::write(&mut kept, Generation::new(4), &peers(&[1])).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    json.as_object_mut().unwrap().remove("seal").expect("it is there now");
    let read = cache::read::<ClusterResource>(std::path::Path::new("kept"), json.to_string().as_bytes());
    assert_eq!(read.unwrap(), (Generation::new(4), peers(&[1])));
}
