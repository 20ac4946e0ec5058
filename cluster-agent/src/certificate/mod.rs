//! The cluster's certificates: leaves for gateways and workloads, the agent's own, and the intermediate that signs
//! both. All are renewed at half of their life, so that an outage of the controller may last the other half.

mod authority;
mod bundle;
mod error;
mod pace;
mod renewal;

pub use authority::Authority;
pub(crate) use authority::seconds;
pub use error::CertificateError;
pub use pace::{LEAF_LIFE, Pace};
pub use renewal::Renewal;

#[cfg(test)]
mod tests;
