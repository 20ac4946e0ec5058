//! Configurations for whoever is dialled.

use crate::{BundleStore, Credentials, TrustBundle, provider, verify};
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use std::{fmt, sync::Arc};
use tombolo_model::TrustDomain;

/// Finds the bundle of a trust domain, for a server of many organizations. Asked in the handshake, so it answers from memory.
pub trait BundleLookup: fmt::Debug + Send + Sync {
    /// The bundle of the moment, or none for a trust domain that is not known.
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>>;
}

/// A configuration to be dialled with: shows `credentials`, and demands a client certificate that `bundles` vouches for. Both are live.
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn server_config(bundles: &BundleStore, credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    build(Arc::new(verify::Client(bundles.clone())), Arc::new(credentials.clone()), alpn)
}

/// The agent's configuration towards gateways in pods: it shows `credentials`, and asks for no certificate; they have none yet, and say
/// who they are with a token.
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn agent_server_config(credentials: &Credentials, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    build(WebPkiClientVerifier::no_client_auth(), Arc::new(credentials.clone()), alpn)
}

/// The controller's configuration: an ordinary server certificate; a client may show a certificate, and one that does must be believed by the
/// bundle of its own trust domain. Who it was is in [`crate::peer_of`].
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn optional_server_config(
    bundles: Arc<dyn BundleLookup>,
    certificate: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    build(Arc::new(verify::OptionalClient(bundles)), certificate, alpn)
}

/// An ordinary HTTPS server's configuration: a certificate that names DNS names, and nothing asked of the client.
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
#[must_use]
pub fn https_server_config(certificate: Arc<dyn ResolvesServerCert>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the built-in provider has TLS 1.3 suites and key exchanges")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

fn build(
    verifier: Arc<dyn ClientCertVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the built-in provider has TLS 1.3 suites and key exchanges")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would go past the verifier, so past a revocation.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}
