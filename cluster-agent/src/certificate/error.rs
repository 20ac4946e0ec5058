//! Why no certificate was made.

use crate::state::StateError;
use thiserror::Error;
use tombolo_feed::RequestError;

/// Why no certificate was made.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A key, request or certificate.
    #[error("could not {action}")]
    Mtls {
        /// What was tried.
        action: &'static str,
        /// What is wrong.
        #[source]
        source: tombolo_mtls::Error,
    },
    /// The controller.
    #[error("could not get a new intermediate from the controller")]
    Controller(#[source] RequestError),
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The controller signed for somebody else.
    #[error("the controller answered with the intermediate of {found}")]
    OtherCluster {
        /// Whose it is.
        found: String,
    },
}

pub(super) fn failed(action: &'static str) -> impl FnOnce(tombolo_mtls::Error) -> CertificateError {
    move |source| CertificateError::Mtls { action, source }
}
