//! How the peers are: probed addresses, and clusters that refused a name.

pub mod refusals;
pub mod state;
