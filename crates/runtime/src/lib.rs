//! What every process needs and no business rule knows: time, tasks, threads, draining, logs, metrics, the admin port, signals, and bounds on what strangers may make it hold.

pub mod admin;
pub mod bodies;
pub mod clock;
pub mod drain;
pub mod duration;
pub mod lanes;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod places;
pub mod ready;
pub mod signal;
pub mod task;
pub mod telemetry;
