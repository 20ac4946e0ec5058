//! Two ends of a pipe, and what each of them makes of the other.

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tombolo_mtls::{
    BundleStore, Credentials, Expect, HandshakeError, Peer, VerifyError, accept, client_config, connect,
    server_config,
};

/// What tunnels speak.
pub(crate) const ALPN: &[&[u8]] = &[b"h2"];

/// Names of the two kinds of streams.
pub(crate) mod end {
    use super::DuplexStream;
    /// The end that dialled.
    pub(crate) type Client = tokio_rustls::client::TlsStream<DuplexStream>;
    /// The end that was dialled.
    pub(crate) type Server = tokio_rustls::server::TlsStream<DuplexStream>;
}

type Ended<S> = Result<(S, Peer), HandshakeError>;

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("catalog.acme.example.com").unwrap()
}

/// Both handshakes, at the same time.
pub(crate) async fn dial(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (Ended<end::Client>, Ended<end::Server>) {
    let (left, right) = duplex(64 * 1024);
    tokio::join!(connect(left, client, name()), accept(right, server))
}

/// One side of a handshake.
pub(crate) enum Side {
    Client(Arc<ClientConfig>),
    Server(Arc<ServerConfig>),
}

impl Side {
    pub(crate) fn client(store: &BundleStore, credentials: &Credentials) -> Self {
        Self::Client(client_config(store, credentials, Expect::AnyInBundle, ALPN))
    }
    pub(crate) fn server(store: &BundleStore, credentials: &Credentials) -> Self {
        Self::Server(server_config(store, credentials, ALPN))
    }
}

/// The handshake and one byte each way: only then do both know that the other took them.
pub(crate) async fn shake(
    client: Side,
    server: Side,
) -> (Result<Peer, HandshakeError>, Result<Peer, HandshakeError>) {
    let (Side::Client(client), Side::Server(server)) = (client, server) else {
        panic!("a client and a server")
    };
    let (left, right) = duplex(64 * 1024);
    let client = async {
        let (mut stream, peer) = connect(left, client, name()).await?;
        stream.write_u8(1).await.map_err(HandshakeError::of)?;
        stream.read_u8().await.map_err(HandshakeError::of)?;
        Ok(peer)
    };
    let server = async {
        let (mut stream, peer) = accept(right, server).await?;
        stream.write_u8(2).await.map_err(HandshakeError::of)?;
        stream.read_u8().await.map_err(HandshakeError::of)?;
        Ok(peer)
    };
    tokio::join!(client, server)
}

/// Why a client of ours and a server of ours refuse a peer with this chain and key (PEM), whatever it is. They must agree.
pub(crate) async fn refused(store: &BundleStore, chain: &str, key: &str) -> VerifyError {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain: Vec<_> =
        rustls_pki_types::CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();

    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key.clone_key())
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let ours = {
        let mut good = tombolo_testkit::ca::Organization::new("watching.tombolo.internal");
        let cluster = good.join("watcher");
        cluster.credentials(&cluster.agent())
    };
    let (by_client, _) = shake(Side::client(store, &ours), Side::Server(Arc::new(server))).await;

    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(chain, key)
        .unwrap();
    let (_, by_server) = shake(Side::Client(Arc::new(client)), Side::server(store, &ours)).await;

    match (by_client, by_server) {
        (Err(HandshakeError::Refused(one)), Err(HandshakeError::Refused(two))) => {
            assert_eq!(std::mem::discriminant(&one), std::mem::discriminant(&two), "{one:?} {two:?}");
            one
        }
        other => panic!("not refused by both: {other:?}"),
    }
}

/// A client that believes anybody and shows nothing.
pub(crate) fn anybody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 only")
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
