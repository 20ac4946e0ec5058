//! Many simulated clusters: what is asked for, what follows from it, and what is made of the figures. Nothing here talks to anybody but
//! `/proc`; the program is `tests/scale`.

mod options;
mod shape;
mod spread;
mod table;
mod tally;
mod usage;

pub use options::Options;
pub use shape::Shape;
pub use spread::Spread;
pub use table::{List, Measured, Restart, curve, lists, targets};
pub use tally::{changed, counted, rows};
pub use usage::Usage;
