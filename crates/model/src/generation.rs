//! The number of a state. It only rises; a receiver refuses an older one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a state of one organization, taken in the Postgres transaction that made the state.
/// Zero is "nothing yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

/// Generations of an epoch: more than are ever taken. Thousands of epochs fit into the numbers that JSON carries exactly.
const EPOCH_BITS: u32 = 40;

impl Generation {
    /// Nothing received or published yet.
    pub const ZERO: Self = Self(0);
    /// The generation with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// In which epoch it is. Epochs follow one another as generations do; a new one begins where the database was restored
    /// from a backup and receivers hold generations that it does not know, so that what comes then is newer than all
    /// that was before.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.0 >> EPOCH_BITS
    }
    /// The first generation of an epoch.
    #[must_use]
    pub const fn first_of(epoch: u64) -> Self {
        Self(epoch << EPOCH_BITS)
    }
    /// The one after it; of the last one there can be, itself.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
