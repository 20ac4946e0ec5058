//! What this replica holds of every organization, compiled: the trust bundle for handshakes, the names for the API, and a
//! channel for each cluster that is fed here.
//!
//! [`crate::reconcile`] writes, everybody else reads. A replica that is behind is harmless: generations only rise, and a
//! receiver refuses an older one. Nothing here waits or reads a clock for a decision, so the simulation (`tests/tests/simulation`) runs it as it is.

mod channel;
mod org;
mod telling;
mod view;

pub use channel::FeedGuard;
pub use org::{OrgState, Settle};
pub use telling::{Next, Telling};
pub use view::{AttachError, Event, News, View};

#[cfg(test)]
mod tests;
