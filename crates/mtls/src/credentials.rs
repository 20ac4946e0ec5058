//! The certificate of one identity, live.

use crate::{CertificateInfo, Error, PrivateKey, certificate};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{fmt, sync::Arc, time::SystemTime};
use tokio::sync::watch;
use tombolo_model::SpiffeId;

/// A certificate in use, and what it says.
pub struct Live {
    /// Of the leaf.
    pub info: CertificateInfo,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The certificate and key of one identity. Clones share it. It starts without, and then no handshake succeeds; a rotation is seen by the
/// next handshake, and open connections go on with what they were made with.
#[derive(Clone)]
pub struct Credentials {
    id: Arc<SpiffeId>,
    live: watch::Sender<Option<Arc<Live>>>,
}

impl Credentials {
    /// No certificate yet.
    #[must_use]
    pub fn new(id: SpiffeId) -> Self {
        Self { id: Arc::new(id), live: watch::Sender::new(None) }
    }

    /// Whose they are.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Takes a new chain (leaf and intermediate, PEM) and its key into use.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`], [`Error::OtherIdentity`] or [`Error::Certificate`]; what was in use stays.
    pub fn set(&self, chain_pem: &str, key: PrivateKey) -> Result<(), Error> {
        let chain = certificate::all(chain_pem)?;
        let [leaf, _] = chain.as_slice() else {
            return Err(Error::Certificate { what: "not a leaf and its intermediate" });
        };
        let info = certificate::info(leaf)?;
        if info.id.as_ref() != Some(&*self.id) {
            let found = info.id.map_or_else(|| "nobody of ours".to_owned(), |id| id.to_string());
            return Err(Error::OtherIdentity { found, expected: self.id.to_string() });
        }
        let certified = CertifiedKey::new(chain, key.signing_key()?);
        certified.keys_match().map_err(|_| Error::KeyMismatch)?;
        self.live.send_replace(Some(Arc::new(Live { info, certified: Arc::new(certified) })));
        Ok(())
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.live.borrow().is_some()
    }

    /// Waits until there is a certificate. Cancel-safe.
    pub async fn wait_ready(&self) {
        // The sender is in `self`, so the channel can't close while this waits.
        let _ = self.live.subscribe().wait_for(Option::is_some).await;
    }

    /// Until when the certificate in use is good.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.live.borrow().as_ref().map(|live| live.info.validity.not_after)
    }

    /// Follows the certificate in use: wakes at every `set`.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Live>>> {
        self.live.subscribe()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.live.borrow().as_ref().map(|live| live.certified.clone())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, {})", self.id, if self.ready() { "ready" } else { "waiting" })
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
    fn has_certs(&self) -> bool {
        self.ready()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}
