//! The gateways of this cluster: a unix socket where they say hello, get their state and their certificates, and
//! report. The kernel says who is at the other end. In Kubernetes they come over TLS, and the API server says who they
//! are ([`review`], [`caller`]), from which follows what they may be ([`permit`]).
//!
//! A gateway that vanishes stays in the set for a grace period (it may be restarting), and after that for as long as its
//! tunnel port is open: the loss of a link withdraws nothing. Nor does the loss of the agent itself: the gateways go on from
//! their last state, and an agent that starts counts those it knew as vanished just then.

mod advertise;
mod answer;
mod authorize;
mod caller;
mod check;
mod connection;
mod entry;
mod expiry;
mod feed;
mod hub;
mod kept;
mod part;
mod peer;
mod permit;
mod problem;
mod query;
mod reading;
mod replica;
mod reports;
mod review;
mod routes;
mod server;
mod siblings;
mod standing;
mod stream;
mod tls;

pub use authorize::Forbidden;
pub use hub::{Hub, HubConfig, Refusal};
pub use kept::first_generation;
pub(crate) use part::fitting;
pub use reading::Reading;
pub use routes::Context;
pub use server::{BindError, Listener};
pub use siblings::Siblings;
pub(crate) use siblings::replicas;
pub(crate) use standing::{Standing, standing};
pub use stream::{Stream, Turn, Why};
pub use tls::{Doorkeeper, ListenError, PodListener};

#[cfg(test)]
mod tests;
