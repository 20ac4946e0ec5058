//! What to do about the Lease. Pure. Clocks of other machines are never compared: a holder is alive while its record
//! changes, as seen from here.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use std::time::Duration;
use tokio::time::Instant;

/// How long a record may stay as it is before its holder counts as gone.
pub(super) const DURATION: Duration = Duration::from_secs(15);

/// The record, and since when it is so.
#[derive(Debug)]
pub(super) struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is ours: say so again.
    Renew,
    /// It is nobody's.
    Take,
    /// It is another's.
    Wait,
}

/// The record was read at `now`; `before` is what was read last.
pub(super) fn see(before: Option<Seen>, spec: LeaseSpec, now: Instant) -> Seen {
    match before {
        Some(before) if before.spec == spec => before,
        _ => Seen { spec, since: now },
    }
}

/// What the replica `own` does about it.
pub(super) fn decide(seen: &Seen, own: &str, now: Instant) -> Step {
    let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
    if holder == own {
        return Step::Renew;
    }
    // What the holder itself says counts, within reason: it may be of another version.
    let seconds = seen.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = seconds.map_or(DURATION, |seconds| Duration::from_secs(seconds.min(600)));
    if holder.is_empty() || seen.since + duration <= now { Step::Take } else { Step::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};

    fn record(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_alive_while_its_record_changes() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let seen = see(None, record("a", 0), start);
        assert_eq!(decide(&seen, "a", start), Step::Renew);
        assert_eq!(decide(&seen, "b", after(14)), Step::Wait);
        assert_eq!(decide(&seen, "b", after(15)), Step::Take);
        // It renewed, whatever time it thinks it is.
        let seen = see(Some(seen), record("a", -1_000_000), after(14));
        assert_eq!(decide(&seen, "b", after(28)), Step::Wait);
        let seen = see(Some(seen), record("a", -1_000_000), after(28));
        assert_eq!(decide(&seen, "b", after(29)), Step::Take);
        let seen = see(Some(seen), record("", 5), after(29));
        assert_eq!(decide(&seen, "b", after(29)), Step::Take, "it was let go of");
        let forever = LeaseSpec { lease_duration_seconds: Some(i32::MAX), ..record("a", 1) };
        let seen = see(None, forever, start);
        assert_eq!(
            (decide(&seen, "b", after(599)), decide(&seen, "b", after(600))),
            (Step::Wait, Step::Take)
        );
    }
}
