//! What ends by time alone: intermediates, old lines of the change log, replicas that fell silent, trials that nobody answered, answers kept for
//! repeated requests.

use crate::{store::Store, tls::Certificate};
use chrono::{DateTime, TimeDelta, Utc};
use std::{sync::Arc, time::Duration};
use tombolo_runtime::{
    clock::{Clock, SystemClock},
    drain, telemetry,
};

/// How far the clock of this machine may be from the database's.
const APART: TimeDelta = TimeDelta::hours(1);

/// Whether two clocks can't both be right. Pure.
fn differ(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    (one - other).abs() > APART
}

/// How often it is looked at.
const PERIOD: Duration = Duration::from_secs(30);

/// How many generations of changes are kept for readers that follow.
const KEEP: i64 = 5_000;

/// Looks every half minute, until the draining begins. All of it may be done by any replica, any number of times.
pub(crate) async fn expire(
    store: Store,
    certificate: Certificate,
    clock: Arc<dyn Clock>,
    stop: drain::Watch,
) {
    let mut tick = tokio::time::interval(PERIOD);
    while super::due(&mut tick, &stop).await {
        let now = DateTime::<Utc>::from(clock.now());
        if let Err(error) = once(&store, now).await {
            tracing::warn!(error = telemetry::chain(&error), "cleaning up failed; trying again");
        }
        certificate.renew(clock.now());
    }
}

async fn once(store: &Store, now: DateTime<Utc>) -> Result<(), crate::store::Error> {
    let mut tx = store.begin().await?;
    let (here, there) = (DateTime::<Utc>::from(SystemClock.now()), tx.time().await?);
    if differ(here, there) {
        // What a wrong clock ends is ended for good: all clusters would have to join again.
        tracing::error!(
            clock.machine = %here,
            clock.database = %there,
            "this machine's clock and the database's are far apart; nothing is ended by time until they agree"
        );
        return Ok(());
    }
    let ended = tx.expire_intermediates(now).await?;
    tx.expire_trials(now).await?;
    tx.commit().await?;
    if ended > 0 {
        tracing::warn!(
            intermediates = ended,
            "intermediates ended without being renewed in time; their clusters must join again"
        );
    }
    let mut tx = store.begin().await?;
    tx.prune_changes(KEEP).await?;
    tx.prune_answers(now - TimeDelta::days(1)).await?;
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_an_hour_apart_are_not_believed() {
        let noon = DateTime::UNIX_EPOCH;
        for (apart, wrong) in
            [(0, false), (59, false), (-60, false), (61, true), (-61, true), (90 * 24 * 60, true)]
        {
            assert_eq!(differ(noon + TimeDelta::minutes(apart), noon), wrong, "{apart} min");
        }
    }
}
