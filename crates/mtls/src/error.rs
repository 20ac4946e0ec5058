//! Why a key, a request or a certificate is not taken, and why a peer is not believed.

use rustls::{CertificateError, OtherError};
use std::{error::Error as StdError, io, sync::Arc};
use thiserror::Error;
use tombolo_model::{SpiffeId, TrustDomain, identity::IdentityError};

/// Why making or reading a key, a request or a certificate failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The key could not be made or used.
    #[error("the private key could not be made or used")]
    Key(#[source] rcgen::Error),
    /// Not an ECDSA P-256 key in PEM.
    #[error("the private key is not an ECDSA P-256 key in PEM (PKCS #8)")]
    KeyKind,
    /// The key is not the one in the certificate.
    #[error("the private key does not belong to the certificate; give the two that were made together")]
    KeyMismatch,
    /// No certificate could be read.
    #[error("the certificate is not readable ({what}); give it in PEM")]
    Certificate {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The certificate does not carry one identity of ours.
    #[error("the certificate carries no identity of ours")]
    CertificateIdentity(#[source] VerifyError),
    /// The certificate is for somebody else.
    #[error("the certificate is for {found}, not for {expected}")]
    OtherIdentity {
        /// Whom it names.
        found: String,
        /// Whom it should name.
        expected: String,
    },
    /// The request is not one that we sign.
    #[error("the signing request is refused: {what}")]
    Request {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The request asks for another identity.
    #[error("the signing request asks for {asked}; only {allowed} may be asked for here")]
    RequestIdentity {
        /// What it asks for.
        asked: String,
        /// What it may ask for.
        allowed: Box<SpiffeId>,
    },
    /// The issuer may not vouch for this identity.
    #[error("{issuer} may not vouch for {asked}")]
    NotOurs {
        /// Who would sign.
        issuer: String,
        /// The identity asked for.
        asked: Box<SpiffeId>,
    },
    /// The times make no sense, or lie outside those of the issuer.
    #[error("the validity asked for does not overlap with the issuer's own; renew the issuer first")]
    Validity,
    /// Signing failed.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// rustls does not take the certificate or the key.
    #[error("TLS does not take the certificate or its key")]
    Tls(#[source] rustls::Error),
    /// A bundle without a root that can be read.
    #[error("the trust bundle of {trust_domain} has no usable root certificate")]
    NoRoots {
        /// Whose bundle.
        trust_domain: TrustDomain,
    },
}

/// Why a peer is not believed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VerifyError {
    /// This process has no trust bundle yet.
    #[error("no trust bundle was received yet")]
    NoBundle,
    /// This process has no certificate of its own yet.
    #[error("no certificate of our own was issued yet")]
    NoCredentials,
    /// Not a leaf and its intermediate.
    #[error("sent {certificates} certificates; a chain is a leaf and its cluster's intermediate")]
    ChainLength {
        /// How many it sent.
        certificates: usize,
    },
    /// A certificate that can't be read.
    #[error("the certificate is not readable: {what}")]
    Unreadable {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Not exactly one name, a URI.
    #[error("the certificate has {names} alternative names; exactly one is allowed, a SPIFFE id")]
    Names {
        /// How many it has.
        names: usize,
    },
    /// The name is not a SPIFFE id of ours.
    #[error("the name {name:?} is no identity of ours")]
    Identity {
        /// The name found.
        name: String,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// An identity of another trust domain.
    #[error("{found} is of another trust domain than {expected}")]
    TrustDomain {
        /// Who it is.
        found: Box<SpiffeId>,
        /// Whose bundle was asked.
        expected: TrustDomain,
    },
    /// A server of many organizations knows none with this trust domain.
    #[error("{found} is of a trust domain that is not known here")]
    UnknownTrustDomain {
        /// Who it says it is.
        found: Box<SpiffeId>,
    },
    /// The intermediate is not a cluster's, or the leaf is the cluster itself.
    #[error("{found} may not stand here in a chain")]
    Role {
        /// Who it is.
        found: Box<SpiffeId>,
    },
    /// A leaf under another cluster's intermediate.
    #[error("the intermediate of cluster {issuer} vouches for {leaf}, which is of another cluster")]
    OtherCluster {
        /// Who the peer says it is.
        leaf: Box<SpiffeId>,
        /// Whose intermediate signed it.
        issuer: tombolo_model::ClusterName,
    },
    /// The chain does not hold: signature, constraint, purpose or path.
    #[error("the chain does not hold: {what}")]
    Chain {
        /// What webpki says.
        what: String,
    },
    /// Past its time.
    #[error("a certificate of the chain is past its time")]
    Expired,
    /// Before its time.
    #[error("a certificate of the chain is not valid yet; compare the clocks")]
    NotYetValid,
    /// The bundle does not list this intermediate for its cluster.
    #[error("the cluster or its intermediate is revoked")]
    Revoked,
    /// A good peer, but not the one that was dialled.
    #[error("{found} answered, which is not expected here")]
    NotExpected {
        /// Who answered.
        found: Box<SpiffeId>,
    },
    /// The chain does not end in the pinned certificate authority.
    #[error("the server's certificates do not include the pinned authority; compare the fingerprint")]
    Pin,
}

impl From<VerifyError> for rustls::Error {
    /// The alert that the peer sees says no more than it must: expired and revoked, which it can act on, or "unknown".
    fn from(error: VerifyError) -> Self {
        let error = match error {
            VerifyError::Expired => CertificateError::Expired,
            VerifyError::NotYetValid => CertificateError::NotValidYet,
            VerifyError::Revoked => CertificateError::Revoked,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(error)
    }
}

impl VerifyError {
    /// What a verifier of ours said, where this error is rustls' own or holds it. rustls shows it to nobody.
    #[must_use]
    pub fn within(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Self::within(io.get_ref()?);
        }
        match error.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
                other.downcast_ref::<Self>().cloned()
            }
            _ => None,
        }
    }

    /// The way back from what rustls reports.
    pub(crate) fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::Other(OtherError(other)) => match other.downcast_ref::<Self>() {
                Some(ours) => ours.clone(),
                None => Self::Chain { what: other.to_string() },
            },
            other => Self::Chain { what: other.to_string() },
        }
    }

    pub(crate) fn of_webpki(error: &webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { .. } => Self::Expired,
            webpki::Error::CertNotValidYet { .. } => Self::NotYetValid,
            other => Self::Chain { what: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found_within() {
        let error = io::Error::other(io::Error::other(rustls::Error::from(VerifyError::Pin)));
        assert!(VerifyError::within(&error).unwrap().to_string().contains("compare the fingerprint"));
        assert_eq!(VerifyError::within(&io::Error::other("refused")), None);
    }
}
