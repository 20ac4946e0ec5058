//! Numbers that look random, the same for the same seed.

use crate::loopback::fill;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as the seed has it.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to one below this.
    ///
    /// # Panics
    /// Where there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut word = [0; 8];
        fill(&mut word, &mut self.0);
        (u64::from_le_bytes(word) >> 33) % end
    }

    /// One of these.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    /// Puts them in any order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, usize::try_from(self.below(at as u64 + 1)).unwrap());
        }
    }
}

/// The number that a variable of the environment holds.
///
/// # Panics
/// Where it holds something else.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// The seed that a variable of the environment holds, else any.
///
/// # Panics
/// As [`number`].
#[must_use]
pub fn seed(variable: &str) -> u64 {
    number(variable).unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all() {
        let falls = |seed| {
            let mut dice = Dice::new(seed);
            let mut row: Vec<u64> = (0..20).collect();
            dice.shuffle(&mut row);
            (0..100).map(|_| dice.below(6)).chain(row).collect::<Vec<_>>()
        };
        assert_eq!(falls(7), falls(7));
        assert_ne!(falls(7), falls(8));
    }

    #[test]
    fn every_side_falls_and_nothing_is_lost() {
        let mut dice = Dice::new(1);
        let mut sides = [0; 6];
        (0..600).for_each(|_| sides[usize::try_from(dice.below(6)).unwrap()] += 1);
        assert!(sides.iter().all(|count| (50..150).contains(count)), "{sides:?}");
        let mut row: Vec<u64> = (0..20).collect();
        dice.shuffle(&mut row);
        assert!(row.iter().enumerate().any(|(at, one)| at as u64 != *one), "{row:?}");
        row.sort_unstable();
        assert_eq!(row, (0..20).collect::<Vec<_>>());
        assert_eq!(dice.pick(&["only"]), "only");
    }
}
