//! SPIFFE identities in rustls: who may speak, who is believed, and the handshakes that hold both.
//!
//! - An organization has [`Root`]s; each cluster has one [`Intermediate`], whose key never leaves its agent; every peer has a
//!   leaf. A chain is always these three, and an intermediate vouches for identities under its own `/cluster/<cluster>` only.
//!   [`TrustBundle::verify`] is the one place that decides it, for both sides of every handshake.
//! - A cluster that a bundle does not list is revoked, whatever its certificates say. [`BundleStore`] holds the bundle of the
//!   moment; whoever keeps connections open asks [`TrustBundle::stands`] again when it changes.
//! - [`Credentials`] is the certificate of one identity, live: it starts unable to serve, and a rotation touches new handshakes only.
//! - TLS 1.3 only, and no resumption anywhere: a resumed session would go past the verifier, so past a revocation. Keys are
//!   ECDSA P-256; the key exchange is X25519MLKEM768 with any peer of ours.
//!
//! In TLS 1.3 the client is done before the server has judged the client's certificate. So [`connect`] may succeed and the first read
//! fail: [`HandshakeError::of`] reads such a failure too.

mod agent;
mod authority;
mod bundle;
mod certificate;
mod client;
mod credentials;
mod csr;
mod error;
mod handshake;
mod https;
mod key;
mod pinned;
mod server;
mod verify;
mod wire;

pub use agent::agent_client_config;
pub use authority::{Intermediate, Root};
pub use bundle::{BundleStore, Peer, TrustBundle, Usage};
pub use certificate::{CertificateInfo, Validity, certificate_info};
pub use client::{Expect, client_config};
pub use credentials::{Credentials, Live};
pub use csr::request_fingerprint;
pub use error::{Error, VerifyError};
pub use handshake::{HandshakeError, accept, accept_optional, connect, connect_pinned, key_of, peer_of};
pub use https::{LiveServerCertificate, ServerAuthority, web_client_config};
pub use key::{PrivateKey, Secret};
pub use pinned::{InvalidPin, format_pin, parse_pin, pinned_client_config};
pub use server::{
    BundleLookup, agent_server_config, https_server_config, optional_server_config, server_config,
};
pub use wire::{Cork, Wire};

/// The one provider of cryptography, passed to every configuration by hand: nothing depends on a process-wide default.
pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}
