//! The verifiers that rustls asks. They hold the store, not a bundle: every handshake is judged by the bundle of its moment.

use crate::{
    BundleStore, Credentials, Expect, Peer, Usage, VerifyError, certificate, provider, server::BundleLookup,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Handshake signatures are the provider's business; TLS 1.2 does not exist here.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled))
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &algorithms())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            algorithms().supported_schemes()
        }
    };
}
pub(crate) use signatures;

fn chain<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(rest).cloned().collect()
}

/// For whoever dials: the server must be believed, and be the expected one.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) bundles: BundleStore,
    pub(crate) credentials: Credentials,
    pub(crate) expect: Expect,
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Without this the server would refuse us after our side is done, with an alert that says less.
        if !self.credentials.ready() {
            return Err(VerifyError::NoCredentials.into());
        }
        let bundle = self.bundles.get().ok_or(VerifyError::NoBundle)?;
        let peer = bundle.verify(&chain(leaf, rest), now, Usage::Server)?;
        if self.expect.accepts(&peer.id) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(VerifyError::NotExpected { found: Box::new(peer.id) }.into())
        }
    }
    signatures!();
}

/// For whoever is dialled: every client shows a certificate, and is believed.
#[derive(Debug)]
pub(crate) struct Client(pub(crate) BundleStore);

impl ClientCertVerifier for Client {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bundle = self.0.get().ok_or(VerifyError::NoBundle)?;
        let _: Peer = bundle.verify(&chain(leaf, rest), now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }
    signatures!();
}

/// For the controller: a client may come without a certificate (people do); one that shows a certificate is judged by the bundle of
/// the trust domain that it claims.
#[derive(Debug)]
pub(crate) struct OptionalClient(pub(crate) Arc<dyn BundleLookup>);

impl ClientCertVerifier for OptionalClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let claimed = certificate::identity(&certificate::parse(leaf)?)?;
        let Some(bundle) = self.0.bundle(&claimed.trust_domain) else {
            return Err(VerifyError::UnknownTrustDomain { found: Box::new(claimed) }.into());
        };
        let _: Peer = bundle.verify(&chain(leaf, rest), now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }
    signatures!();
}
