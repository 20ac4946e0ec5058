//! Active health checks. The agent itself connects to each endpoint; what its slice says alone is not believed.

mod check;
mod track;

use crate::index::Probe;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use track::{Thresholds, Track};

/// How endpoints are checked.
#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// From one check of an endpoint to the next, while its state is settled. A tenth of it is jitter.
    pub interval: Duration,
    /// The same, while the last result speaks against the state: a doubt is resolved quickly.
    pub doubt: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Good results in a row that bring an endpoint back.
    pub rise: u32,
    /// Bad results in a row that take it out.
    pub fall: u32,
    /// Checks at the same time, at most.
    pub concurrency: usize,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            doubt: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
            concurrency: 256,
        }
    }
}

/// What the checks found: whether each endpoint passes. One that was never checked yet is not in it.
pub type Results = BTreeMap<Probe, bool>;

/// The checks' results, and how to say what is checked.
#[derive(Debug)]
pub struct Checks {
    /// What to check.
    pub targets: watch::Sender<BTreeSet<Probe>>,
    /// What was found.
    pub results: watch::Receiver<Arc<Results>>,
}

/// The checks themselves; they run as long as [`Checker::run`] is polled.
#[derive(Debug)]
pub struct Checker {
    config: HealthConfig,
    targets: watch::Receiver<BTreeSet<Probe>>,
    results: watch::Sender<Arc<Results>>,
}

/// Makes the checks and their handles.
#[must_use]
pub fn checks(config: HealthConfig) -> (Checks, Checker) {
    let (targets, wanted) = watch::channel(BTreeSet::new());
    let (found, results) = watch::channel(Arc::new(Results::new()));
    (Checks { targets, results }, Checker { config, targets: wanted, results: found })
}

impl Checker {
    /// Checks until the sender of the targets is gone. One future per endpoint, on one task.
    pub async fn run(mut self) {
        let limit = Arc::new(Semaphore::new(self.config.concurrency.max(1)));
        let mut tracks: BTreeMap<Probe, Track> = BTreeMap::new();
        let mut running: FuturesUnordered<BoxFuture<'static, (Probe, u64, bool)>> = FuturesUnordered::new();
        let mut serial = 0;
        let thresholds = Thresholds { rise: self.config.rise, fall: self.config.fall };
        self.targets.mark_changed();
        loop {
            let changed = tokio::select! {
                biased;
                more = self.targets.changed() => {
                    if more.is_err() {
                        return;
                    }
                    let wanted = self.targets.borrow_and_update().clone();
                    tracks.retain(|probe, _| wanted.contains(probe));
                    for probe in wanted {
                        if !tracks.contains_key(&probe) {
                            serial += 1;
                            tracks.insert(probe.clone(), Track::new(serial));
                            running.push(self.round(probe, serial, Duration::ZERO, &limit));
                        }
                    }
                    true
                }
                Some((probe, of, good)) = running.next() => match tracks.get_mut(&probe) {
                    // A probe that was dropped meanwhile, or dropped and made anew, does not go on.
                    Some(track) if track.serial == of => {
                        let changed = track.observe(good, thresholds);
                        if changed {
                            tracing::info!(
                                endpoint.address = %probe.address,
                                endpoint.passing = good,
                                "an endpoint's health check changed"
                            );
                        }
                        let wait = if track.in_doubt() { self.config.doubt } else { self.config.interval };
                        running.push(self.round(probe, of, jittered(wait), &limit));
                        changed
                    }
                    _ => false,
                },
            };
            if changed {
                self.publish(&tracks);
            }
        }
    }

    fn publish(&self, tracks: &BTreeMap<Probe, Track>) {
        let new: Results =
            tracks.iter().filter_map(|(probe, track)| Some((probe.clone(), track.passing?))).collect();
        self.results.send_if_modified(|old| {
            let differs = **old != new;
            if differs {
                *old = Arc::new(new);
            }
            differs
        });
    }

    fn round(
        &self,
        probe: Probe,
        serial: u64,
        wait: Duration,
        limit: &Arc<Semaphore>,
    ) -> BoxFuture<'static, (Probe, u64, bool)> {
        let (limit, deadline) = (Arc::clone(limit), self.config.timeout);
        async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            // The semaphore is never closed.
            let _permit = limit.acquire().await;
            let good = timeout(deadline, check::check(&probe)).await.is_ok_and(|result| result.is_ok());
            (probe, serial, good)
        }
        .boxed()
    }
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.95..1.05))
}

#[cfg(test)]
mod tests;
