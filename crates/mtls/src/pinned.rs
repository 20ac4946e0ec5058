//! Dialling the controller: its authority is pinned by the fingerprint in the join command, so nothing has to be trusted before.

use crate::{
    Credentials, VerifyError, certificate, client, provider,
    verify::{algorithms, signatures},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

/// A text that is not `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is not sha256: and 64 hexadecimal digits; copy it from the controller's join command")]
pub struct InvalidPin;

/// Reads `sha256:<hex>`.
///
/// # Errors
/// [`InvalidPin`].
pub fn parse_pin(text: &str) -> Result<[u8; 32], InvalidPin> {
    let hex = text.strip_prefix("sha256:").ok_or(InvalidPin)?;
    let print: tombolo_model::snapshot::CaFingerprint = hex.parse().map_err(|_| InvalidPin)?;
    Ok(*print.as_bytes())
}

/// Writes `sha256:<hex>`.
#[must_use]
pub fn format_pin(fingerprint: &[u8; 32]) -> String {
    format!("sha256:{}", tombolo_model::snapshot::CaFingerprint::new(*fingerprint))
}

/// A configuration to dial the controller with: its chain must end in the authority with this SHA-256 (of the certificate, DER), and its
/// certificate be for the host name that is dialled. `credentials` are shown where the controller asks and there are any.
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn pinned_client_config(
    ca_fingerprint: [u8; 32],
    credentials: Option<&Credentials>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let builder =
        client::builder().dangerous().with_custom_certificate_verifier(Arc::new(Pinned(ca_fingerprint)));
    let mut config = match credentials {
        Some(credentials) => builder.with_client_cert_resolver(Arc::new(credentials.clone())),
        None => builder.with_no_client_auth(),
    };
    client::finish(&mut config, alpn);
    Arc::new(config)
}

#[derive(Debug)]
struct Pinned([u8; 32]);

impl Pinned {
    fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        <[u8; 32]>::from(Sha256::digest(certificate)) == self.0
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let entity = EndEntityCert::try_from(leaf).map_err(|error| VerifyError::of_webpki(&error))?;
        if self.is(leaf) {
            // A self-signed certificate of one's own, pinned itself. Its name and times still count.
            self.in_time(leaf, now)?;
        } else {
            let authority = rest.iter().find(|certificate| self.is(certificate)).ok_or(VerifyError::Pin)?;
            self.in_time(authority, now)?;
            let anchor = webpki::anchor_from_trusted_cert(authority)
                .map_err(|_| VerifyError::Unreadable { what: "the pinned authority" })?;
            entity
                .verify_for_usage(
                    provider().signature_verification_algorithms.all,
                    &[anchor],
                    rest,
                    now,
                    KeyUsage::server_auth(),
                    None,
                    None,
                )
                .map_err(|error| VerifyError::of_webpki(&error))?;
        }
        entity.verify_is_valid_for_subject_name(name).map_err(|error| VerifyError::of_webpki(&error))
    }

    /// webpki takes an anchor at its word, times included.
    fn in_time(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), VerifyError> {
        let validity = certificate::validity(&certificate::parse(certificate)?);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        if now < validity.not_before {
            Err(VerifyError::NotYetValid)
        } else if now > validity.not_after {
            Err(VerifyError::Expired)
        } else {
            Ok(())
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, rest, name, now)?;
        Ok(ServerCertVerified::assertion())
    }
    signatures!();
}
