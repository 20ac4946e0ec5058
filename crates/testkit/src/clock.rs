//! Time for tests.

use std::time::{Duration, SystemTime};
use tombolo_runtime::clock::{Clock, ManualClock, SystemClock};

/// A moment that never changes (15 January 2027, 08:00 UTC), for tests that write times down.
#[must_use]
pub fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A clock that stands at [`moment`].
#[must_use]
pub fn manual() -> ManualClock {
    ManualClock::new(moment())
}

/// The true time, for what meets rustls, which reads the machine's clock.
#[must_use]
pub fn now() -> SystemTime {
    SystemClock.now()
}
