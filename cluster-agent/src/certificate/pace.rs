//! How long leaves are good, and what follows from that. Pure.

use std::time::Duration;

/// How long a leaf is good, where nobody says otherwise.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long leaves are good, and what follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub(super) life: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { life: LEAF_LIFE }
    }
}

/// The shortest life of a leaf.
const SHORTEST: Duration = Duration::from_secs(10);

impl Pace {
    /// Reads how long leaves are good, as an option has it.
    ///
    /// # Errors
    /// What to write.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let life = tombolo_runtime::duration::parse(text).map_err(|error| error.to_string())?;
        if (SHORTEST..=LEAF_LIFE).contains(&life) { Ok(life) } else { Err("use 10s to 24h".to_owned()) }
    }

    /// Leaves are good for so long: 10 s to 24 h.
    #[must_use]
    pub fn of(life: Duration) -> Self {
        Self { life: life.clamp(SHORTEST, LEAF_LIFE) }
    }

    /// A leaf begins this much before it is signed: machines' clocks differ, and one that is minutes ahead costs no connection.
    pub(super) fn skew(self) -> Duration {
        Duration::from_secs(3600).min(self.life / 8)
    }

    /// How often the renewals are looked at. Wall time may jump; waiting for a moment in it would miss that.
    pub(super) fn look(self) -> Duration {
        Duration::from_secs(15).min(self.life / 20)
    }

    /// A new intermediate signs this long after our own snapshot lists it, so that peers have it too.
    pub(super) fn spread(self) -> Duration {
        Duration::from_secs(60).min(self.life / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_are_renewed_in_time() {
        for (life, expected) in [(10, [1250, 500, 2500]), (3600 * 24, [3_600_000, 15_000, 60_000])] {
            let pace = Pace::of(Duration::from_secs(life));
            assert_eq!([pace.skew(), pace.look(), pace.spread()].map(|one| one.as_millis()), expected);
        }
    }
}
