//! Keeps this replica's view true to the database, and the database true to what follows from the view.
//!
//! Woken by NOTIFY and by a timer, every pass reads the truth again; the hint's content is never acted on. Each pass may run
//! twice, in any number of replicas: what it writes is idempotent, or done under the organization's lock.

mod driver;
mod expire;
mod liveness;
mod read;
pub(crate) mod rotate;

use tokio::time::Interval;
use tombolo_runtime::drain;

/// Waits for the next time to look, the first of which is at once. `false` once the draining begins.
async fn due(tick: &mut Interval, stop: &drain::Watch) -> bool {
    tokio::select! {
        biased;
        () = stop.signaled() => false,
        _ = tick.tick() => true,
    }
}

pub(crate) use driver::{Commits, Driver};
pub(crate) use expire::expire;
pub(crate) use liveness::Liveness;

#[cfg(test)]
mod tests;
