//! The rules of a feed, without I/O. The [`Publisher`] holds the newest state and what changed lately; the
//! [`Receiver`] holds what it was told, and refuses what can't follow from it.
//!
//! A feed goes so. The receiver asks with the generation and digest it has. The sender says
//! [`Hello`](crate::message::FeedLine::Hello), then what [`Publisher::open`] gives: `current` where the receiver has that state,
//! `delta` where it has one of the last ones, else `snapshot`
//! (a big one after some `part` lines). From then on [`Publisher::since`] at each change, and
//! [`Publisher::beat`] at least every [`HEARTBEAT`]. A receiver that refuses a line ends the feed and asks again with
//! what it has; a state whose digest the sender does not know is answered by a snapshot, so the two always come together.
//!
//! Bases are compared by *digest*, not by number: replicas that saw other generations in between still send deltas,
//! and a delta is never computed against a state that the receiver has not.

mod publisher;
mod receiver;
#[cfg(test)]
pub(crate) mod tests;

pub use publisher::Publisher;
pub use receiver::{Applied, Changes, MAX_RESOURCES, Receiver, Refused};

use std::time::Duration;

/// How often the sender speaks, at least.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// After this long without a line the receiver takes the sender for dead, and asks again.
pub const SILENCE: Duration = Duration::from_secs(6);
