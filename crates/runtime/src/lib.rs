//! What every process needs and no business rule knows: time, tasks, draining, logs, metrics, the admin port, signals.

pub mod admin;
pub mod clock;
pub mod drain;
pub mod duration;
pub mod limits;
pub mod metrics;
pub mod ready;
pub mod signal;
pub mod task;
pub mod telemetry;
