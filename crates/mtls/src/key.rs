//! Private keys. They are made here, and leave only as PEM for the file of the same process.

use crate::{Error, csr};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, sync::Arc};
use tombolo_model::SpiffeId;
use zeroize::{Zeroize, Zeroizing};

/// A text that is wiped from memory when it is dropped. It derefs to `String`; it prints as itself only when asked to.
pub type Secret = Zeroizing<String>;

/// An ECDSA P-256 private key. It is wiped when dropped and never shows in `Debug`.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`Error::Key`] where the system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(Error::Key)
    }

    /// Reads a key, PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`Error::KeyKind`] for anything but an ECDSA P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(pem).map_err(|_| Error::KeyKind)?;
        if pair.algorithm() == &PKCS_ECDSA_P256_SHA256 { Ok(Self(pair)) } else { Err(Error::KeyKind) }
    }

    /// The key, PKCS #8 in PEM, to keep in a file that only its owner reads.
    #[must_use]
    pub fn to_pem(&self) -> Secret {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// A signing request (PKCS #10, PEM) for this identity.
    ///
    /// # Errors
    /// [`Error::Sign`] if the key can't sign.
    pub fn csr(&self, id: &SpiffeId) -> Result<String, Error> {
        csr::request(&self.0, Some(id))
    }

    /// A signing request that names nobody: for joining, when only the signer knows whose key this will be.
    ///
    /// # Errors
    /// [`Error::Sign`] if the key can't sign.
    pub fn unnamed_csr(&self) -> Result<String, Error> {
        csr::request(&self.0, None)
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// The public half, as SubjectPublicKeyInfo in DER.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, Error> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialized_der()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(Error::Tls)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
