//! The Secret that holds what must not be lost.

use super::*;
use std::{
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};
use tombolo_mtls::{Intermediate, PrivateKey, Root, Validity};

const DAY: Duration = Duration::from_secs(86_400);

fn intermediate(day: u32) -> String {
    let begin = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let root = Root::create(
        &"acme.internal".parse().unwrap(),
        Validity { not_before: begin, not_after: begin + 999 * DAY },
    );
    let key = PrivateKey::generate().unwrap();
    let id = "spiffe://acme.internal/cluster/c1".parse().unwrap();
    let from = begin + day * DAY;
    let pem = root.unwrap().sign_intermediate(
        &key.csr(&id).unwrap(),
        &id,
        Validity { not_before: from, not_after: from + 90 * DAY },
    );
    let made = Intermediate::new(key, &pem.unwrap()).unwrap();
    format!("{}{}", *made.key_pem(), made.cert_pem())
}

fn kept(files: &[(&'static str, &str)]) -> Kept {
    Kept(files.iter().map(|(name, content)| (*name, content.as_bytes().to_vec())).collect())
}

#[test]
fn pods_are_told_a_few_times() {
    let (mut news, began) = (News::default(), Instant::now());
    assert!(!news.take(began), "nothing was written");
    news.owed = TIMES;
    let told = (0..60).filter(|second| news.take(began + Duration::from_secs(*second)));
    assert_eq!(told.collect::<Vec<_>>(), [0, 2, 4]);
}

/// An API server that has the Secret, or does not, and counts how often it was written.
fn api_server(has_it: Arc<AtomicBool>, writes: Arc<AtomicUsize>) -> Client {
    let answer = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (has_it, writes) = (Arc::clone(&has_it), Arc::clone(&writes));
        async move {
            let of_secret = request.uri().path().ends_with("/secrets/tombolo-state");
            let (status, body) = match (of_secret, has_it.load(Ordering::Relaxed)) {
                (true, true) => {
                    writes.fetch_add(1, Ordering::Relaxed);
                    (200, json!({ "metadata": { "name": NAME } }))
                }
                (true, false) => (
                    404,
                    json!({ "status": "Failure", "message": "gone", "reason": "NotFound", "code": 404 }),
                ),
                (false, _) => (200, json!({ "metadata": {}, "items": [] })),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(status);
            Ok::<_, tower::BoxError>(answer.body(body).unwrap())
        }
    });
    Client::new(answer, "default")
}

/// What somebody emptied or deleted is seen by the replica that wrote it, once its own mount has had time to follow.
#[tokio::test]
async fn what_is_taken_out_by_hand_is_written_again() {
    let (mount, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = DataDir::create(dir.path()).unwrap();
    let (has_it, writes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let client = api_server(Arc::clone(&has_it), Arc::clone(&writes));
    let namespace = NamespaceName::parse("tombolo-system").unwrap();
    let mut secret = StateSecret::new(client, namespace, mount.path().to_owned());
    let began = Instant::now();
    let minutes = |count: u64| began + Duration::from_secs(60 * count);
    let written = || writes.load(Ordering::Relaxed);
    secret.write_at(&data, began).await.unwrap();
    assert_eq!(written(), 0, "nothing is joined");
    data.write(STATE, b"{}").unwrap();
    data.write(CURRENT, intermediate(1).as_bytes()).unwrap();
    let kubelet = || {
        for (name, content) in Kept::here(&data).unwrap().0 {
            fs::write(mount.path().join(name), content).unwrap();
        }
    };
    for (minute, count) in [(0, 1), (1, 1), (2, 1)] {
        secret.write_at(&data, minutes(minute)).await.unwrap();
        assert_eq!(written(), count, "it is on its way to the mount");
    }
    kubelet();
    secret.write_at(&data, minutes(60)).await.unwrap();
    assert_eq!(written(), 1, "it is there");
    // somebody empties it
    fs::write(mount.path().join(STATE), "").unwrap();
    secret.write_at(&data, minutes(61)).await.unwrap();
    assert_eq!(written(), 2, "it is there again");
    secret.write_at(&data, minutes(62)).await.unwrap();
    assert_eq!(written(), 2, "the mount has time to follow");
    kubelet();
    secret.write_at(&data, minutes(99)).await.unwrap();
    // and deletes it
    has_it.store(false, Ordering::Relaxed);
    fs::remove_file(mount.path().join(STATE)).unwrap();
    for minute in [100, 101] {
        let error = secret.write_at(&data, minutes(minute)).await.unwrap_err();
        assert!(error.contains("apply the agent's manifest"), "{error}");
    }
    has_it.store(true, Ordering::Relaxed);
    secret.write_at(&data, minutes(102)).await.unwrap();
    assert_eq!(written(), 3);
}

#[test]
fn a_mount_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Kept::mounted(&dir.path().join("none")).unwrap(), Kept::default());
    let version = dir.path().join("..2026");
    fs::create_dir(&version).unwrap();
    symlink("..2026", dir.path().join("..data")).unwrap();
    fs::write(version.join(STATE), "{}").unwrap();
    fs::write(version.join(TOKEN), "").unwrap();
    fs::write(version.join("other"), "x").unwrap();
    let read = Kept::mounted(dir.path()).unwrap();
    assert_eq!(read, kept(&[(STATE, "{}")]));
    assert_eq!(format!("{read:?}"), r#"{"state.json"}"#, "and never shown");
}

#[test]
fn the_later_intermediate_counts() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::create(dir.path()).unwrap();
    let (one, two) = (intermediate(1), intermediate(2));
    let first = kept(&[(STATE, r#"{"cluster":"c1"}"#), (CURRENT, &one)]);
    let next = kept(&[(STATE, r#"{"cluster":"c1"}"#), (CURRENT, &one), ("intermediate-next.pem", &two)]);
    let later = kept(&[(STATE, r#"{"cluster":"c1"}"#), (CURRENT, &two)]);
    let other = kept(&[(STATE, r#"{"cluster":"c2"}"#), (CURRENT, &intermediate(3))]);
    let half = kept(&[(STATE, "{}")]);
    for (mounted, writes, expected) in [
        (&half, false, Took::Nothing),
        (&Kept::default(), false, Took::Nothing),
        (&first, true, Took::Membership),
        (&first, false, Took::Nothing),
        (&next, true, Took::Nothing),
        (&next, false, Took::State),
        (&later, true, Took::State),
        (&first, false, Took::Nothing),
        (&next, true, Took::Nothing),
        (&other, false, Took::Membership),
    ] {
        assert_eq!(take_over(mounted, &data, writes).unwrap(), expected, "{mounted:?} {writes}");
        if expected != Took::Nothing {
            assert_eq!(Kept::here(&data).unwrap(), *mounted);
        }
    }
}
