//! The compiler, from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod common;
mod examples;
mod properties;
mod set;
