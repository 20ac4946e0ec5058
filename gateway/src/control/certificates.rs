//! Keeps a live certificate for each identity that this process must show.
//!
//! A new identity is asked for at once; a certificate is renewed at half of its life (with some jitter, so that a
//! thousand proxies do not ask in the same second); what fails is tried again, ever more slowly, while the old
//! certificate serves on. Where the trust bundle no longer lists the intermediate that vouches for a certificate, it is
//! renewed at once: the cluster may have joined anew.

use super::{
    issue::{IssueError, issue},
    paths::Paths,
};
use crate::metrics::Metrics;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tombolo_feed::{Backoff, Requests};
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};
use tombolo_mtls::{Credentials, Peer, TrustBundle, Validity};
use tombolo_runtime::{clock::Clock, telemetry};

/// How many certificates are asked for at once.
const CONCURRENT: usize = 8;
/// A wait for a renewal is never longer than this: clocks are set, and machines sleep.
const CHECK: Duration = Duration::from_secs(60);
/// A certificate is used at least this long: one that is old when it comes must not be asked for in a loop.
const LEAST: Duration = Duration::from_secs(1);
/// The waits after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// What became of an identity.
#[derive(Debug)]
pub(super) enum Change {
    /// It has a certificate for the first time. Renewals come through the same credentials, without a word.
    Ready(Credentials),
    /// It is not wanted any longer.
    Gone(SpiffeId),
}

/// How many identities have no certificate yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) missing: usize,
    pub(super) wanted: usize,
}

/// What the keeper works with.
pub(super) struct Keeper {
    pub(super) requests: Requests,
    pub(super) paths: Paths,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    /// Which identities still have no certificate; `None` before it is known who is wanted.
    pub(super) missing: watch::Sender<Option<Missing>>,
}

struct Entry {
    credentials: Credentials,
    /// When it is asked for, or looked at, next; `None` while it is asked for.
    due: Option<Instant>,
    renew_at: Option<SystemTime>,
    intermediate: Option<CaFingerprint>,
    backoff: Backoff,
}

type Asked = (SpiffeId, Result<Option<CaFingerprint>, IssueError>);

impl Keeper {
    /// Runs for as long as it is polled, or until `wanted` has no sender. `None` in `wanted` means that it is not
    /// known yet.
    pub(super) async fn run(
        self,
        mut wanted: watch::Receiver<Option<BTreeSet<SpiffeId>>>,
        mut bundle: watch::Receiver<Option<Arc<TrustBundle>>>,
        publish: impl Fn(Change),
    ) {
        let mut entries: BTreeMap<SpiffeId, Entry> = BTreeMap::new();
        let mut asking: FuturesUnordered<BoxFuture<'static, Asked>> = FuturesUnordered::new();
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            if let Some(wanted) = &now_wanted {
                follow(&mut entries, wanted, &publish);
            }
            self.ask(&mut entries, &mut asking);
            let missing = entries.values().filter(|entry| !entry.credentials.ready()).count();
            self.missing.send_replace(now_wanted.map(|wanted| Missing { missing, wanted: wanted.len() }));
            let due = entries.values().filter_map(|entry| entry.due).min();
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                // the store's sender lives as long as the process
                _ = bundle.changed() => distrusted(&mut entries, bundle.borrow_and_update().as_deref()),
                Some((id, answer)) = asking.next() => {
                    if let Some(entry) = entries.get_mut(&id) {
                        self.take(entry, answer, &publish);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && asking.len() < CONCURRENT => {}
            }
        }
    }

    /// Asks for what is due.
    fn ask(
        &self,
        entries: &mut BTreeMap<SpiffeId, Entry>,
        asking: &mut FuturesUnordered<BoxFuture<'static, Asked>>,
    ) {
        let now = Instant::now();
        for (id, entry) in entries.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now)) {
            if let Some(early) = entry.renew_at.and_then(|at| at.duration_since(self.clock.now()).ok()) {
                entry.due = Some(now + early.min(CHECK).max(Duration::from_millis(1)));
                continue;
            }
            if asking.len() >= CONCURRENT {
                break;
            }
            entry.due = None;
            let id = id.clone();
            let work = issue(self.requests.clone(), self.paths.clone(), entry.credentials.clone());
            asking.push(async move { (id, work.await) }.boxed());
        }
    }

    fn take(
        &self,
        entry: &mut Entry,
        answer: Result<Option<CaFingerprint>, IssueError>,
        publish: &impl Fn(Change),
    ) {
        let now = self.clock.now();
        self.metrics.certificate(answer.is_ok());
        let id = entry.credentials.id();
        match answer {
            // the answer to a question of before the identity went and came back
            Ok(_) if !entry.credentials.ready() => {}
            Ok(intermediate) => {
                let validity = entry.credentials.subscribe().borrow().as_ref().map(|live| live.info.validity);
                let first = entry.renew_at.is_none();
                entry.intermediate = intermediate;
                let renew_at = validity.map_or(now, |validity| renewal(validity, rand::rng().random()));
                entry.renew_at = Some(renew_at.max(now + LEAST));
                entry.backoff.reset();
                entry.due = Some(Instant::now());
                tracing::info!(identity = %id, first, "certificate in use");
                if first {
                    publish(Change::Ready(entry.credentials.clone()));
                }
            }
            Err(error) => {
                let wait = entry.backoff.next(&mut rand::rng());
                entry.due = Some(Instant::now() + wait);
                // what is in use goes on; without this it would be asked "is it time" again
                entry.renew_at = entry.renew_at.map(|_| SystemTime::UNIX_EPOCH);
                let left_s = entry
                    .credentials
                    .not_after()
                    .map(|end| end.duration_since(now).unwrap_or_default().as_secs());
                tracing::warn!(
                    identity = %id, error = telemetry::chain(&error), retry_ms = wait.as_millis() as u64, left_s,
                    "no certificate; the agent is asked again"
                );
            }
        }
    }
}

fn follow(entries: &mut BTreeMap<SpiffeId, Entry>, wanted: &BTreeSet<SpiffeId>, publish: &impl Fn(Change)) {
    entries.retain(|id, _| {
        let keep = wanted.contains(id);
        if !keep {
            publish(Change::Gone(id.clone()));
        }
        keep
    });
    for id in wanted {
        entries.entry(id.clone()).or_insert_with(|| Entry {
            credentials: Credentials::new(id.clone()),
            due: Some(Instant::now()),
            renew_at: None,
            intermediate: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
        });
    }
}

/// Renews what a new bundle does not stand behind.
fn distrusted(entries: &mut BTreeMap<SpiffeId, Entry>, bundle: Option<&TrustBundle>) {
    let Some(bundle) = bundle else { return };
    for (id, entry) in entries.iter_mut() {
        let Some(intermediate) = &entry.intermediate else { continue };
        if entry.due.is_some() && !bundle.stands(&Peer { id: id.clone(), intermediate: intermediate.clone() })
        {
            entry.renew_at = Some(SystemTime::UNIX_EPOCH);
            entry.due = Some(Instant::now());
        }
    }
}

/// Half of the life, give or take a twentieth of it. `jitter` is between 0 and 1.
fn renewal(validity: Validity, jitter: f64) -> SystemTime {
    let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    validity.half_life() - life / 20 + (life / 10).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_about_half_life() {
        let day = Duration::from_secs(86_400);
        let start = SystemTime::UNIX_EPOCH + day * 20_000;
        let validity = Validity { not_before: start, not_after: start + day };
        assert_eq!(renewal(validity, 0.0), start + day * 9 / 20);
        assert_eq!(renewal(validity, 0.5), start + day / 2);
        assert_eq!(renewal(validity, 1.0), start + day * 11 / 20);
    }
}
