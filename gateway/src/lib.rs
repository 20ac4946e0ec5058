//! The gateway: one binary, three roles. It carries bytes between workloads over HTTP/2 CONNECT tunnels and mutual
//! TLS, and knows nothing of Kubernetes or Postgres.
//!
//! `table`, `choose` and `authz` are pure. `tunnel`, `pool` and `copy` know bytes, not services. `outbound` and
//! `inbound` bring the two together.

pub mod accesslog;
pub mod admin;
pub mod authz;
pub mod budget;
pub mod capture;
mod carry;
pub mod choose;
pub mod config;
pub mod conns;
pub mod control;
pub mod copy;
pub mod credentials;
mod deliver;
pub mod error;
pub mod head;
pub mod health;
mod heard;
pub mod inbound;
pub mod load;
pub mod metrics;
pub mod outbound;
pub mod pool;
pub mod process;
pub mod race;
pub mod reach;
pub mod reason;
mod seldom;
mod socket;
pub mod state;
pub mod table;
pub mod trace;
pub mod tunnel;
