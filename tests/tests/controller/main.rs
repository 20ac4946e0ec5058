//! The controller with agents: true sockets, TLS and PostgreSQL, in one process.

mod feed;
mod join;
mod support;
mod tenants;
