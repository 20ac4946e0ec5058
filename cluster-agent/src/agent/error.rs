//! Why an agent can't start.

use crate::{
    certificate::CertificateError, controller::AddressError, dns, gateways, inject, source::kubernetes,
    state::StateError,
};
use std::{io, net::SocketAddr};
use thiserror::Error;

/// Why an agent can't start.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The controller's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its certificates.
    #[error("the agent has no certificate; run `tombolo-agent join` again with a new token")]
    Certificate(#[from] CertificateError),
    /// The DNS server.
    #[error(transparent)]
    Dns(#[from] dns::BindError),
    /// The socket for gateways.
    #[error(transparent)]
    Gateways(#[from] gateways::BindError),
    /// The port for gateways.
    #[error(transparent)]
    Listen(#[from] gateways::ListenError),
    /// Nobody could say whose the tokens are.
    #[error("--gateway-listen needs an API server; give --kubernetes")]
    NoApiServer,
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::ConnectError),
    /// The webhook.
    #[error(transparent)]
    Inject(#[from] inject::BuildError),
    /// The admin port.
    #[error("can't listen on {address} for the admin port; give another --admin, or end what listens there")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
