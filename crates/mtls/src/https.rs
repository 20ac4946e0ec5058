//! The controller's own HTTPS: a self-signed authority, and the server certificate of the moment.

use crate::{Error, PrivateKey, Secret, Validity, authority, certificate, client};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// The self-signed authority of the controller's HTTPS. Its fingerprint stands in join commands, so it is kept; server certificates under
/// it come and go.
pub struct ServerAuthority {
    cert_pem: String,
    key: PrivateKey,
    fingerprint: [u8; 32],
    validity: Validity,
}

impl ServerAuthority {
    /// A new authority.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Validity`] or [`Error::Sign`].
    pub fn create(validity: Validity) -> Result<Self, Error> {
        let key = PrivateKey::generate()?;
        let mut params = authority::params("controller authority", &key.public_der(), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(key.pair()).map_err(Error::Sign)?.pem();
        Self::new(cert_pem, key)
    }

    /// An authority from its certificate and key, both PEM.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::KeyKind`], [`Error::KeyMismatch`].
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Self::new(cert_pem.to_owned(), PrivateKey::from_pem(key_pem)?)
    }

    fn new(cert_pem: String, key: PrivateKey) -> Result<Self, Error> {
        let der = certificate::first(&cert_pem)?;
        let parsed =
            certificate::parse(&der).map_err(|_| Error::Certificate { what: "not an X.509 certificate" })?;
        if parsed.public_key().raw != key.public_der() {
            return Err(Error::KeyMismatch);
        }
        let (fingerprint, validity) = (Sha256::digest(&der).into(), certificate::validity(&parsed));
        Ok(Self { cert_pem, key, fingerprint, validity })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }
    /// Its key, PEM, for a file that only the controller reads.
    #[must_use]
    pub fn key_pem(&self) -> Secret {
        self.key.to_pem()
    }
    /// The SHA-256 of its certificate: what clients pin.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
    /// From when until when it may sign.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// A server certificate for these DNS names and IP addresses, with a new key: chain (with the authority at its end) and key, both PEM.
    ///
    /// # Errors
    /// [`Error::Request`] for a name that is neither; [`Error::Validity`], [`Error::Sign`].
    pub fn issue(&self, names: &[String], validity: Validity) -> Result<(String, Secret), Error> {
        let key = PrivateKey::generate()?;
        let names = authority::tls_names(names)?;
        let mut params = authority::params("controller", &key.public_der(), validity.within(self.validity)?)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names;
        let issuer = Issuer::from_ca_cert_pem(&self.cert_pem, self.key.pair())
            .map_err(|_| Error::Certificate { what: "not a CA certificate" })?;
        let leaf = params.signed_by(key.pair(), &issuer).map_err(Error::Sign)?;
        Ok((format!("{}{}", leaf.pem(), self.cert_pem), key.to_pem()))
    }
}

impl fmt::Debug for ServerAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerAuthority({})", crate::format_pin(&self.fingerprint))
    }
}

/// Believes what these certificates (PEM) vouch for, by the name that is dialled and by nothing else: as an API server does with the
/// `caBundle` of a webhook.
///
/// # Errors
/// [`Error::Certificate`] where there is none, or one can't vouch for anything.
pub fn web_client_config(believed_pem: &str) -> Result<Arc<ClientConfig>, Error> {
    let mut believed = RootCertStore::empty();
    for der in certificate::all(believed_pem)? {
        believed.add(der).map_err(|_| Error::Certificate { what: "one that can't vouch for others" })?;
    }
    if believed.is_empty() {
        return Err(Error::Certificate { what: "no certificate in the text" });
    }
    let mut config = client::builder().with_root_certificates(believed).with_no_client_auth();
    client::finish(&mut config, &[]);
    Ok(Arc::new(config))
}

/// The server certificate in use. Clones share it; a renewal is seen by the next handshake.
#[derive(Clone)]
pub struct LiveServerCertificate(watch::Sender<Arc<CertifiedKey>>);

impl LiveServerCertificate {
    /// Takes a chain and its key, both PEM, into use. The key may be of any kind that TLS 1.3 knows: an operator's own
    /// certificate is welcome.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::KeyMismatch`] or [`Error::Tls`].
    pub fn new(chain_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Ok(Self(watch::Sender::new(Self::read(chain_pem, key_pem)?)))
    }

    /// Takes another chain and key into use.
    ///
    /// # Errors
    /// As for `new`; what was in use stays.
    pub fn set(&self, chain_pem: &str, key_pem: &str) -> Result<(), Error> {
        self.0.send_replace(Self::read(chain_pem, key_pem)?);
        Ok(())
    }

    /// The SHA-256 of the last certificate of the chain: what clients pin.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0.borrow().cert.last().map(AsRef::as_ref).unwrap_or_default()).into()
    }

    fn read(chain_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, Error> {
        let chain = certificate::all(chain_pem)?;
        if chain.is_empty() {
            return Err(Error::Certificate { what: "no certificate in the text" });
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| Error::Certificate { what: "its private key is not PEM" })?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(Error::Tls)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| Error::KeyMismatch)?;
        Ok(Arc::new(certified))
    }
}

impl fmt::Debug for LiveServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveServerCertificate({})", crate::format_pin(&self.fingerprint()))
    }
}

impl ResolvesServerCert for LiveServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().clone())
    }
}
