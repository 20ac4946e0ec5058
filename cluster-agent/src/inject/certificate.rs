//! The certificate that the API server is shown: for the Service's DNS names, by the cluster's own intermediate.

use crate::certificate::{Authority, CertificateError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tombolo_model::{NamespaceName, snapshot::CaFingerprint};
use tombolo_mtls::{LiveServerCertificate, Validity};
use tombolo_runtime::clock::Clock;

/// The Service that the API server asks.
pub const SERVICE: &str = "tombolo-agent";

/// The DNS names under which the API server asks.
#[must_use]
pub fn names(namespace: &NamespaceName) -> [String; 2] {
    [format!("{SERVICE}.{namespace}.svc"), format!("{SERVICE}.{namespace}.svc.cluster.local")]
}

/// Keeps the certificate of the moment. Clones share it.
#[derive(Clone, Debug)]
pub struct HttpsCertificate {
    live: LiveServerCertificate,
    names: Arc<[String]>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    issued: Arc<Mutex<Issued>>,
}

#[derive(Clone, Debug)]
struct Issued {
    by: CaFingerprint,
    validity: Validity,
}

impl HttpsCertificate {
    /// Makes the first one.
    ///
    /// # Errors
    /// [`CertificateError`], as where the intermediate has ended.
    pub fn start(
        namespace: &NamespaceName,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CertificateError> {
        let names: Arc<[String]> = names(namespace).into();
        let (chain, key, by, validity) = authority.issue_https(&names)?;
        let live = LiveServerCertificate::new(&chain, &key).map_err(unusable)?;
        let issued = Arc::new(Mutex::new(Issued { by, validity }));
        Ok(Self { live, names, authority, clock, issued })
    }

    /// For handshakes.
    #[must_use]
    pub fn live(&self) -> LiveServerCertificate {
        self.live.clone()
    }

    /// Makes another one where it is time, or where another intermediate signs now that is `believed`.
    ///
    /// # Errors
    /// [`CertificateError`]; what was in use stays.
    pub fn renew(&self, believed: impl Fn(&CaFingerprint) -> bool) -> Result<(), CertificateError> {
        let (mut issued, now) = (self.issued(), self.clock.now());
        let signs = self.authority.intermediate().fingerprint();
        let due = issued.validity.half_life() <= now;
        let may = signs == issued.by || believed(&signs) || ended(&issued, now);
        if !may || !(due || signs != issued.by) {
            return Ok(());
        }
        let (chain, key, by, validity) = self.authority.issue_https(&self.names)?;
        self.live.set(&chain, &key).map_err(unusable)?;
        *issued = Issued { by, validity };
        tracing::info!(ca.fingerprint = %issued.by, "the webhook has a new certificate");
        Ok(())
    }

    fn issued(&self) -> std::sync::MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is nothing to lose any more.
fn ended(issued: &Issued, now: SystemTime) -> bool {
    issued.validity.not_after <= now
}

fn unusable(source: tombolo_mtls::Error) -> CertificateError {
    CertificateError::Mtls { action: "use the webhook's certificate", source }
}
