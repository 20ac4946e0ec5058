//! The handshakes, and what can be said of one that failed.

use crate::{Peer, VerifyError, bundle, certificate};
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use std::{io, sync::Arc};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tombolo_model::snapshot::CaFingerprint;

/// Why a handshake failed, or why the peer ended the session right after it.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// We do not believe the peer.
    #[error("the peer is refused")]
    Refused(#[source] VerifyError),
    /// The peer refuses us: certificate_revoked, certificate_expired and the like.
    #[error("the peer refuses us ({0:?})")]
    RefusedByPeer(AlertDescription),
    /// Not a handshake as it should be.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The connection broke.
    #[error("the connection broke in the TLS handshake")]
    Io(#[source] io::Error),
    /// The handshake passed, but there is no peer to name: a verifier was used that is not from this crate.
    #[error("the peer showed no identity")]
    NoPeer,
}

impl HandshakeError {
    /// Sorts an error of a TLS stream. It serves for reads and writes after the handshake too: in TLS 1.3 a client learns only there that
    /// the server refused its certificate.
    #[must_use]
    pub fn of(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Refused(VerifyError::of(why)),
            Some(rustls::Error::AlertReceived(alert)) => Self::RefusedByPeer(*alert),
            Some(other) => Self::Tls(other.clone()),
            None => Self::Io(error),
        }
    }

    /// Whether either side called the other revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(
            self,
            Self::Refused(VerifyError::Revoked) | Self::RefusedByPeer(AlertDescription::CertificateRevoked)
        )
    }
}

/// Dials with a configuration of [`crate::client_config`]; `name` goes into the SNI and decides nothing. There is no deadline in it:
/// give one outside. Cancelling drops the connection.
///
/// # Errors
/// A [`HandshakeError`].
pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(client::TlsStream<IO>, Peer), HandshakeError> {
    let stream = connect_pinned(io, config, name).await?;
    let peer = peer_of(stream.get_ref().1.peer_certificates()).ok_or(HandshakeError::NoPeer)?;
    Ok((stream, peer))
}

/// Dials with a configuration of [`crate::pinned_client_config`]: the host name is checked, and the server has no SPIFFE id.
///
/// # Errors
/// A [`HandshakeError`].
pub async fn connect_pinned<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<client::TlsStream<IO>, HandshakeError> {
    TlsConnector::from(config).connect(name, io).await.map_err(HandshakeError::of)
}

/// Answers with a configuration of [`crate::server_config`]. There is no deadline in it: give one outside.
///
/// # Errors
/// A [`HandshakeError`].
pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    config: Arc<ServerConfig>,
) -> Result<(server::TlsStream<IO>, Peer), HandshakeError> {
    let (stream, peer) = accept_optional(io, config).await?;
    Ok((stream, peer.ok_or(HandshakeError::NoPeer)?))
}

/// Answers with a configuration of [`crate::optional_server_config`]: no peer where the client showed no certificate.
///
/// # Errors
/// A [`HandshakeError`].
pub async fn accept_optional<IO: AsyncRead + AsyncWrite + Unpin>(
    io: IO,
    config: Arc<ServerConfig>,
) -> Result<(server::TlsStream<IO>, Option<Peer>), HandshakeError> {
    let stream = TlsAcceptor::from(config).accept(io).await.map_err(HandshakeError::of)?;
    let peer = peer_of(stream.get_ref().1.peer_certificates());
    Ok((stream, peer))
}

/// Who is at the other end, from the certificates of a session that passed a verifier of this crate.
#[must_use]
pub fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    let [leaf, intermediate] = certificates? else { return None };
    bundle::claimed(leaf, intermediate).ok()
}

/// The SHA-256 of the peer's own public key, from the certificates of a session. It decides nothing: it tells processes apart that
/// have one identity.
#[must_use]
pub fn key_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<CaFingerprint> {
    let leaf = certificates?.first()?;
    certificate::parse(leaf).ok().map(|leaf| certificate::key_fingerprint(&leaf))
}
