//! Sealing of keys: AES-256-GCM with a random nonce, and associated data that say whose key it is, so that a sealed key
//! opens only in its own row.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use std::{fmt, sync::Arc};
use thiserror::Error;
use tombolo_model::id::OrgId;
use tombolo_mtls::Secret;
use uuid::Uuid;

/// The length of the key in the key file, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// Whose key is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The root of an organization.
    Root(OrgId),
    /// The authority of the controller's own HTTPS, of the installation with this id.
    Tls(Uuid),
}

impl Purpose {
    fn associated(self) -> Vec<u8> {
        let (what, id) = match self {
            Self::Root(org) => ("tombolo root\0", org.as_uuid()),
            Self::Tls(installation) => ("tombolo tls\0", installation),
        };
        [what.as_bytes(), id.as_bytes()].concat()
    }
}

/// Why a key could not be sealed or opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum SealError {
    /// The system gives no randomness, or the key is unusable.
    #[error("the key could not be sealed")]
    Seal,
    /// Another key file, another row, or a changed byte.
    #[error("the key file does not fit this database; give the one that the installation was made with")]
    Open,
}

/// Seals and opens. It never shows its key.
#[derive(Clone)]
pub(crate) struct Vault(Arc<RandomizedNonceKey>);

impl Vault {
    /// A vault with this key.
    ///
    /// # Errors
    /// [`SealError::Seal`] where the library does not take the key.
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(|key| Self(Arc::new(key))).map_err(|_| SealError::Seal)
    }

    /// Nonce, ciphertext and tag.
    ///
    /// # Errors
    /// [`SealError::Seal`].
    pub(crate) fn seal(&self, purpose: Purpose, secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut text = secret.as_bytes().to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.associated()), &mut text)
            .map_err(|_| SealError::Seal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// The secret.
    ///
    /// # Errors
    /// [`SealError::Open`].
    pub(crate) fn open(&self, purpose: Purpose, sealed: &[u8]) -> Result<Secret, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Open)?;
        let mut text = text.to_vec();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(purpose.associated()), &mut text)
            .map_err(|_| SealError::Open)?
            .len();
        text.truncate(opened);
        String::from_utf8(text).map(Secret::new).map_err(|_| SealError::Open)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_in_its_own_row_only() {
        let vault = Vault::new(&[7; KEY_LEN]).unwrap();
        let (ours, theirs) = (OrgId::new(Uuid::from_u128(1)), OrgId::new(Uuid::from_u128(2)));
        let secret = Secret::new("-----BEGIN".to_owned());
        let mut sealed = vault.seal(Purpose::Root(ours), &secret).unwrap();
        assert!(!sealed.windows(secret.len()).any(|w| w == secret.as_bytes()));
        assert_eq!(vault.open(Purpose::Root(ours), &sealed).unwrap(), secret);
        assert_eq!(vault.open(Purpose::Root(theirs), &sealed), Err(SealError::Open));
        assert_eq!(vault.open(Purpose::Tls(ours.as_uuid()), &sealed), Err(SealError::Open));
        let other = Vault::new(&[8; KEY_LEN]).unwrap();
        assert_eq!(other.open(Purpose::Root(ours), &sealed), Err(SealError::Open));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(vault.open(Purpose::Root(ours), &sealed), Err(SealError::Open));
        assert_eq!(vault.open(Purpose::Root(ours), &[]), Err(SealError::Open));
    }
}
