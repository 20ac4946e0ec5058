//! When to try again: exponential, with jitter, so that a thousand receivers do not come back in the same instant.

use rand::Rng;
use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Default for Backoff {
    /// 100 ms to 10 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }
}

impl Backoff {
    /// From `least` after the first failure, doubling, up to `most`.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, failures: 0 }
    }

    /// The wait after one more failure: between half of the full wait and the full wait.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        self.next_within(self.most, rng)
    }

    /// The same, where the full wait is at most so long.
    pub fn next_within(&mut self, most: Duration, rng: &mut impl Rng) -> Duration {
        let full = self.least.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let full = full.min(self.most).min(most);
        self.failures = (self.failures + 1).min(31);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// It works again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    proptest! {
        #[test]
        fn within_bounds(seed in any::<u64>(), least in 1u64..1000, factor in 1u64..1000, tries in 1usize..80) {
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(least * factor));
            let (mut backoff, mut rng) = (Backoff::new(least, most), StdRng::seed_from_u64(seed));
            for attempt in 0..tries {
                let wait = backoff.next(&mut rng);
                prop_assert!(wait >= least / 2 && wait <= most, "{wait:?}");
                if attempt == 0 { prop_assert!(wait <= least); }
                if attempt > 40 { prop_assert!(wait >= most / 2); }
            }
            let soon = backoff.next_within(least, &mut rng);
            prop_assert!(soon >= least / 2 && soon <= least, "{soon:?}");
            backoff.reset();
            prop_assert!(backoff.next(&mut rng) <= least);
        }

        #[test]
        fn the_same_seed_gives_the_same_waits(seed in any::<u64>()) {
            let run = || {
                let (mut backoff, mut rng) = (Backoff::default(), StdRng::seed_from_u64(seed));
                (0..10).map(|_| backoff.next(&mut rng)).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}
