//! True handshakes and true certificates, with an organization of `testkit::ca`.

mod arbitrary;
mod common;
mod controller;
mod handshake;
mod signing;
