//! Where the run is: said when it fails, whatever fails.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};
use tokio::time::Instant;

/// Where the run is.
pub(super) struct Place {
    seed: u64,
    start: OnceLock<Instant>,
    doing: Mutex<String>,
}

impl Place {
    pub(super) fn new(seed: u64) -> Self {
        eprintln!("  SOAK_SEED={seed}");
        Self { seed, start: OnceLock::new(), doing: Mutex::new("the begin".to_owned()) }
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// The moment from which all others are counted: that of the first call.
    pub(super) fn begin(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// It is there now. Said at once, too.
    pub(super) fn is_at(&self, what: &str) {
        eprintln!("  {:7.1} s  {what}", self.begin().elapsed().as_secs_f64());
        what.clone_into(&mut self.doing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            let after = self.begin().elapsed().as_secs_f64();
            let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!(
                "\n  it failed after {after:.1} s, at: {doing}\n  again: make soak SOAK_SEED={}\n",
                self.seed
            );
        }
    }
}
