//! The controller's HTTPS: its certificate, and the loop that takes connections.

mod certificate;
mod serve;

pub(crate) use certificate::Certificate;
pub(crate) use serve::{Client, Server};
