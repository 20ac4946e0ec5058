//! Standalone clusters on loopback, as the demo has them: a caller, one that serves in the same zone, and one far off
//! that serves a little of the same. The true programs, joined as a user would join them.

mod api;
mod balancer;
mod disk;
mod files;
mod manifest;
mod membership;
mod names;
mod onboard;
mod parts;
mod servers;
mod standing;
mod wire;
mod world;

pub use api::{Api, join};
pub use files::size;
pub use names::Names;
pub use parts::{Lives, SHORT_LIFE};
pub use servers::{FAR, LAST_WORDS, NEAR, Servers, fill};
pub use wire::{Flow, Wire};
pub use world::{Setup, Shape, World, psql};

use std::time::Duration;

/// Several processes' worth of work, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(60);

/// Open files that a process may have before it raises the limit, on most machines.
pub const USUAL_FILES: usize = 1024;
