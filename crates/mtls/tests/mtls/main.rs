//! True handshakes and true certificates, with an organization of `testkit::ca`.
#![expect(clippy::unwrap_used, reason = "a test has no other use for an error")]

mod agent;
mod arbitrary;
mod common;
mod controller;
mod handshake;
mod signing;
mod wire;
