//! A long run of faults under load: what is planned, which failures a fault explains, and whether memory stays flat. Pure; the run itself is in
//! `tests/tests/chaos/soak`.

mod act;
mod failure;
mod fault;
mod flat;
mod life;
mod plan;
mod sample;
mod table;
mod windows;

pub use act::Act;
pub use failure::{Failure, Kind, Reason};
pub use fault::Fault;
pub use flat::{Flatness, Tolerance};
pub use life::{Life, Lives, memory};
pub use plan::{Plan, Step};
pub use sample::Sample;
pub use table::{spark, table};
pub use windows::Windows;
