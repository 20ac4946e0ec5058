//! Many durations, and how they lie.

use std::time::Duration;

/// Durations in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// How many.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// The one that so many percent are not longer than (nearest rank); zero where there is none.
    #[must_use]
    pub fn at(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Spread {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks() {
        let hundred: Spread = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!([0, 1, 50, 99, 100].map(|percent| hundred.at(percent).as_millis()), [1, 1, 50, 99, 100]);
        let three: Spread = [3, 1, 2].map(Duration::from_secs).into_iter().collect();
        assert_eq!([50, 99].map(|percent| three.at(percent).as_secs()), [2, 3]);
        assert_eq!((Spread::default().at(50), Spread::default().count()), (Duration::ZERO, 0));
    }
}
