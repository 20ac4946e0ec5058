//! The agent as a whole: binds everything, then runs.

mod build;
mod config;
mod error;
mod parts;
mod ready;
mod source;
mod tasks;
#[cfg(test)]
mod tests;

pub use build::{Bound, build};
pub use config::{Config, Deps, Replica, SourceConfig};
pub use error::BuildError;

use std::{sync::Arc, time::Duration};
use tombolo_runtime::drain::{self, Drained};

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped(Drained),
    /// A part that must run failed; the log says which.
    Failed,
}

impl Bound {
    /// Runs until `stop`, then drains: no more questions are taken, the gateways are told goodbye and go on from
    /// their last state. Nothing is withdrawn.
    pub async fn run(self, stop: impl Future<Output = ()>, deadline: Duration) -> Ended {
        let (drain, watch) = drain::channel();
        let membership = Arc::clone(&self.membership);
        let (mut running, _lock) = self.parts.start(&membership, &drain);
        drop(watch);
        let failed = tokio::select! {
            () = stop => false,
            () = running.first_end() => true,
        };
        let drained = drain.drain(deadline).await;
        if failed { Ended::Failed } else { Ended::Stopped(drained) }
    }
}
