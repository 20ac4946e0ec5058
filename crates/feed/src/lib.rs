//! Keeps one snapshot current: connects, resumes, verifies, acknowledges, and keeps the last good state on disk.
//! The agent uses it towards the controller (TLS), the gateways towards their agent (a unix socket; in pods TLS and a token).
//!
//! [`Client`] owns one HTTP/2 connection at a time. The feed runs on it as one long answer; small requests
//! ([`Requests`]) go up on the same connection. Loss of the connection withdraws nothing: readers of
//! [`Client::state`] keep what they have, and a restart without the sender serves the state from the cache.

pub mod backoff;
pub mod cache;
pub mod client;
pub mod connect;
pub mod follower;
pub mod request;
mod session;
pub mod status;
pub mod token;

pub use backoff::Backoff;
pub use client::{Client, Options, Running, State};
pub use connect::{Connector, TlsConnector, UnixConnector};
pub use follower::{Follower, Took};
pub use request::{RequestError, Requests, dial, post_once};
pub use status::Status;
pub use token::TokenFile;
