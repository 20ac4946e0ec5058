//! The controller's HTTPS: its certificate, and the loop that takes connections.

mod activity;
mod certificate;
mod places;
mod serve;

pub(crate) use certificate::Certificate;
pub use places::Limits;
pub(crate) use serve::{Client, Server};
