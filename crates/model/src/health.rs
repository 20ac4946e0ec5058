//! How something is, as its observer sees it.

use serde::{Deserialize, Serialize};

/// The state of a destination in the eyes of one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Never reached yet.
    Unknown,
    /// Answers.
    Healthy,
    /// Back since a short while: takes part with a growing share.
    SlowStart,
    /// Does not answer: out of rotation.
    Dead,
}
