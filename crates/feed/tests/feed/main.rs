//! The client against a small sender, over real sockets. Time is paused: it moves only when both sides wait.

#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod cache;
mod crowd;
mod follow;
mod requests;
mod sender;
mod tls;
