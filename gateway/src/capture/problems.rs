//! What can't be captured, for the log, the metrics, the status and the dump.

use super::explicit;
use std::net::SocketAddr;
use tokio::sync::watch;
use tombolo_wire::message::Problem;

/// Addresses that should be captured and are not. Clones share it.
#[derive(Clone, Debug)]
pub struct Problems(watch::Sender<explicit::Problems>);

impl Problems {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::default())
    }
    /// All of them, by address.
    #[must_use]
    pub fn report(&self) -> Vec<Problem> {
        let subject = |address: &SocketAddr| format!("capture of {address}");
        self.0.borrow().iter().map(|(a, why)| Problem { subject: subject(a), message: why.clone() }).collect()
    }
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }
    pub(super) fn sender(&self) -> watch::Sender<explicit::Problems> {
        self.0.clone()
    }
}

impl Default for Problems {
    fn default() -> Self {
        Self::new()
    }
}
