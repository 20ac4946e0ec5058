//! How applications' connections come to this process.

pub(crate) mod attest;
pub(crate) mod original;
pub mod redirect;
