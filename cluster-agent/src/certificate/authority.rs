//! What signs for this cluster.

use super::{
    error::{CertificateError, failed},
    pace::Pace,
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};
use tombolo_mtls::{Intermediate, Secret, Validity, certificate_info};
use tombolo_runtime::clock::Clock;
use tombolo_wire::message::LeafResponse;

/// Signs for this cluster.
#[derive(Debug)]
pub struct Authority {
    current: watch::Sender<Arc<Intermediate>>,
    pub(super) pace: Pace,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// Signs with this intermediate, leaves of the usual life.
    #[must_use]
    pub fn new(intermediate: Intermediate, clock: Arc<dyn Clock>) -> Self {
        Self::with(intermediate, Pace::default(), clock)
    }

    /// Signs with this intermediate.
    #[must_use]
    pub fn with(intermediate: Intermediate, pace: Pace, clock: Arc<dyn Clock>) -> Self {
        Self { current: watch::Sender::new(Arc::new(intermediate)), pace, clock }
    }

    /// What signs, and when that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Intermediate>> {
        self.current.subscribe()
    }

    /// What signs now.
    #[must_use]
    pub fn intermediate(&self) -> Arc<Intermediate> {
        Arc::clone(&self.current.borrow())
    }

    /// Signs a leaf for `identity`. Whether the asker may have it is decided by the caller.
    ///
    /// # Errors
    /// [`CertificateError::Mtls`]: a bad request, an identity of another cluster, an intermediate that ended.
    pub fn issue(&self, csr: &str, identity: &SpiffeId) -> Result<LeafResponse, CertificateError> {
        let validity = self.validity();
        let chain = self.intermediate().sign_leaf(csr, identity, validity).map_err(failed("sign a leaf"))?;
        let info = certificate_info(&chain).map_err(failed("read the leaf"))?;
        Ok(LeafResponse { chain, not_after_s: seconds(info.validity.not_after) })
    }

    /// A certificate for the agent's own HTTPS under these names: chain and key, both PEM, who signed it, and how long it is good.
    ///
    /// # Errors
    /// [`CertificateError::Mtls`]: an intermediate that ended.
    pub fn issue_https(
        &self,
        names: &[String],
    ) -> Result<(String, Secret, CaFingerprint, Validity), CertificateError> {
        let (validity, intermediate) = (self.validity(), self.intermediate());
        let (chain, key) =
            intermediate.sign_https(names, validity).map_err(failed("sign an HTTPS certificate"))?;
        let info = certificate_info(&chain).map_err(failed("read the HTTPS certificate"))?;
        Ok((chain, key, intermediate.fingerprint(), info.validity))
    }

    fn validity(&self) -> Validity {
        let now = self.clock.now();
        Validity { not_before: now - self.pace.skew(), not_after: now + self.pace.life }
    }

    pub(super) fn replace(&self, new: Intermediate) {
        self.current.send_replace(Arc::new(new));
    }
}

pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
