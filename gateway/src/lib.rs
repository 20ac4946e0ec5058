//! The gateway: one binary, three roles. It carries bytes between workloads over HTTP/2 CONNECT tunnels and mutual
//! TLS, and knows nothing of Kubernetes or Postgres.
//!
//! `table`, `choose` and `authz` are pure. `tunnel`, `pool` and `copy` know bytes, not services. `outbound` and
//! `inbound` bring the two together.

pub mod reason;
pub mod table;
