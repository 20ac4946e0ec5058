//! What this replica holds of every organization, compiled: the trust bundle for handshakes, the names for the API, and a
//! channel for each cluster that is fed here.
//!
//! [`crate::reconcile`] writes, everybody else reads. A replica that is behind is harmless: generations only rise, and a
//! receiver refuses an older one.

mod channel;
mod org;
mod view;

pub(crate) use channel::FeedGuard;
pub(crate) use org::{OrgState, Settle};
pub(crate) use view::{AttachError, Event, News, View};

#[cfg(test)]
mod tests;
