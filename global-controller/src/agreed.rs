//! One time for all replicas: the database's. A replica whose machine is minutes ahead would take the others for silent, and one that is behind
//! would sign what others do not believe yet.

use crate::store::{self, Store};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tombolo_runtime::{
    clock::{Clock, SystemClock},
    drain, telemetry,
};

/// How often the two are compared.
const PERIOD: Duration = Duration::from_secs(30);
/// Less than this is not worth a jump.
const CLOSE: TimeDelta = TimeDelta::seconds(1);
/// More than this, and nobody knows which of the two is right: each keeps its own, and it is said (`reconcile::expire`).
const APART: TimeDelta = TimeDelta::hours(1);

/// By how much a clock is set, where it reads `here` while the database's reads `there`. Pure.
fn correction(here: DateTime<Utc>, there: DateTime<Utc>) -> TimeDelta {
    let by = there - here;
    if by.abs() < CLOSE || by.abs() > APART { TimeDelta::zero() } else { by }
}

/// A clock, set by the database's.
#[derive(Debug)]
pub(crate) struct Agreed {
    clock: Arc<dyn Clock>,
    /// In milliseconds.
    by: AtomicI64,
}

impl Clock for Agreed {
    fn now(&self) -> SystemTime {
        let now = self.clock.now();
        let by = self.by.load(Ordering::Relaxed);
        let size = Duration::from_millis(by.unsigned_abs());
        let set = if by < 0 { now.checked_sub(size) } else { now.checked_add(size) };
        set.unwrap_or(now)
    }
}

impl Agreed {
    /// This clock, set once.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn new(clock: Arc<dyn Clock>, store: &Store) -> Result<Arc<Self>, store::Error> {
        let this = Arc::new(Self { clock, by: AtomicI64::new(0) });
        this.set(store).await?;
        Ok(this)
    }

    async fn set(&self, store: &Store) -> Result<(), store::Error> {
        let mut tx = store.begin().await?;
        // The machine's own, which is what may be wrong.
        let before = SystemClock.now();
        let there = tx.time().await?;
        let took = SystemClock.now().duration_since(before).unwrap_or_default();
        let by = correction((before + took / 2).into(), there).num_milliseconds();
        let was = self.by.swap(by, Ordering::Relaxed);
        if (by - was).abs() >= CLOSE.num_milliseconds() {
            tracing::warn!(
                clock.behind_ms = by,
                "this machine's clock is not the database's, whose time counts"
            );
        }
        Ok(())
    }

    /// Sets it again and again, until the draining begins.
    pub(crate) async fn follow(self: Arc<Self>, store: Store, stop: drain::Watch) {
        loop {
            tokio::select! {
                () = stop.signaled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.set(&store).await {
                tracing::warn!(
                    error = telemetry::chain(&error),
                    "the database's time is not known; trying again"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_runtime::clock::ManualClock;

    #[test]
    fn a_clock_that_is_minutes_off_is_set() {
        let noon = DateTime::UNIX_EPOCH;
        for (here, by) in
            [(0, 0), (900, 0), (-900, 0), (600_000, -600_000), (-600_000, 600_000), (3_700_000, 0)]
        {
            let found = correction(noon + TimeDelta::milliseconds(here), noon);
            assert_eq!(found.num_milliseconds(), by, "{here}");
        }
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1000)));
        for (by, seconds) in [(0, 1000), (-600_000, 400), (600_000, 1600)] {
            let agreed = Agreed { clock: clock.clone(), by: AtomicI64::new(by) };
            assert_eq!(agreed.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        }
    }
}
