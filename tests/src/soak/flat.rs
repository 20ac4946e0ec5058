//! Whether something that was measured again and again stays where it was.

/// How much more it may be at the end than at the begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// In percent of what it was.
    pub percent: u64,
    /// And this, whatever it was.
    pub more: u64,
}

/// What it was, and what it is, in medians.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatness {
    /// In the second fifth: what comes before is the warm-up.
    pub first: u64,
    /// In the last fifth.
    pub last: u64,
    /// What it may be there.
    pub limit: u64,
}

/// Fewer values tell nothing.
const FEWEST: usize = 10;

impl Flatness {
    /// Compares the last fifth of these values, which were measured at equal distances, with their second fifth. A peak between them is no matter, nor is a
    /// single value: a leak stays and grows. Nothing where there are too few.
    #[must_use]
    pub fn of(values: &[u64], tolerance: Tolerance) -> Option<Self> {
        let count = values.len();
        if count < FEWEST {
            return None;
        }
        let first = median(&values[count / 5..count * 2 / 5]);
        let last = median(&values[count * 4 / 5..]);
        Some(Self { first, last, limit: first + first * tolerance.percent / 100 + tolerance.more })
    }

    /// Whether it stays where it was.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.last <= self.limit
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    const TOLERANCE: Tolerance = Tolerance { percent: 15, more: 3_000 };

    /// 12 minutes of a gateway of 10 MB that is measured each 4.5 s and takes up to 400 kB more or less each time, and `growth` from time to time.
    fn holds(growth: impl Fn(u64) -> u64) -> bool {
        let mut dice = Dice::new(3);
        let values: Vec<u64> = (0..160).map(|at| 10_000 + dice.below(400) + growth(at)).collect();
        Flatness::of(&values, TOLERANCE).unwrap().holds()
    }

    #[test]
    fn what_stays_is_flat() {
        assert!(holds(|_| 0));
        assert!(holds(|at| if at < 30 { 0 } else { 8_000 }), "it was warming up");
        assert!(holds(|at| if (80..100).contains(&at) { 50_000 } else { 0 }), "a peak in the middle");
        assert!(holds(|at| if at == 150 { 900_000 } else { 0 }), "one value");
        assert!(holds(|at| at / 50 % 2 * 2_000), "up and down");
    }

    #[test]
    fn a_leak_is_not() {
        assert!(!holds(|at| at * 60), "13 kB a second");
        assert!(!holds(|at| at * 5_000));
        assert!(!holds(|at| if at < 100 { 0 } else { 6_000 }), "a step that stays");
    }

    #[test]
    fn a_few_values_tell_nothing() {
        assert_eq!(Flatness::of(&[1; 9], TOLERANCE), None);
        let flat = Flatness { first: 1000, last: 1000, limit: 1000 + 150 + 3_000 };
        assert_eq!(Flatness::of(&[1000; 10], TOLERANCE), Some(flat));
    }
}
