//! What several test programs share.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

pub mod content;
pub mod dice;
mod faults;
pub mod history;
pub mod loopback;
pub mod rights;
pub mod scale;
pub mod soak;
