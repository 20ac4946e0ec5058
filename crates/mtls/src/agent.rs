//! Dialling the agent of one's own cluster, before there is a bundle: from a pod, with no more than the organization's roots.

use crate::{
    BundleStore, Usage, VerifyError,
    bundle::{self, Roots},
    client,
    verify::{algorithms, signatures},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tombolo_model::SpiffeId;

/// A configuration to dial an agent with: its chain must end in one of `roots` (PEM), or of the bundle that it sent us since, and name
/// exactly `agent`. No certificate is shown. Which intermediates stand is not asked: a cluster that joined anew has one that no bundle
/// here lists yet, and its agent is who brings that bundle.
///
/// # Errors
/// [`crate::Error::NoRoots`] or [`crate::Error::Certificate`].
///
/// # Panics
/// Never: the provider is built in and knows TLS 1.3.
pub fn agent_client_config(
    roots: &[String],
    bundles: &BundleStore,
    agent: &SpiffeId,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, crate::Error> {
    let roots = Roots::read(roots, &agent.trust_domain)?;
    let verifier = Agent { roots, bundles: bundles.clone(), agent: agent.clone() };
    let mut config = client::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    client::finish(&mut config, alpn);
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Agent {
    roots: Roots,
    /// Empty until the first snapshot. Roots rotate by overlap, and a pod may live longer than those that it was given.
    bundles: BundleStore,
    agent: SpiffeId,
}

impl Agent {
    fn verify(&self, chain: &[&CertificateDer<'_>], now: UnixTime) -> Result<(), VerifyError> {
        let [leaf, intermediate] = chain else {
            return Err(VerifyError::ChainLength { certificates: chain.len() });
        };
        let peer = bundle::claimed(leaf, intermediate)?;
        if peer.id != self.agent {
            return Err(VerifyError::NotExpected { found: Box::new(peer.id) });
        }
        let given = self.roots.verify(leaf, intermediate, now, Usage::Server);
        match (given, self.bundles.get()) {
            (Err(_), Some(bundle)) => bundle.roots().verify(leaf, intermediate, now, Usage::Server),
            (given, _) => given,
        }
    }
}

impl ServerCertVerifier for Agent {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(rest).collect();
        self.verify(&chain, now)?;
        Ok(ServerCertVerified::assertion())
    }
    signatures!();
}
