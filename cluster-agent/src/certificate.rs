//! The cluster's certificates: leaves for gateways and workloads, the agent's own, and the intermediate that signs
//! both. All are renewed at half of their life, so that an outage of the controller may last the other half.

use crate::{
    lease::Standings,
    state::{DataDir, Membership, StateError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;
use tombolo_feed::{RequestError, Requests};
use tombolo_model::{
    ClusterName, SpiffeId,
    snapshot::{CaFingerprint, ClusterResource, Resources},
};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey, Secret, Validity, certificate_info};
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::{IntermediateRequest, IntermediateResponse, LeafResponse, Problem};

/// How long a leaf is good.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A leaf begins this much before it is signed: machines' clocks differ.
const SKEW: Duration = Duration::from_secs(300);
/// How often the renewals are looked at. Wall time may jump; waiting for a moment in it would miss that.
const LOOK: Duration = Duration::from_secs(15);
/// A new intermediate signs this long after our own snapshot lists it, so that peers have it too.
const SPREAD: Duration = Duration::from_secs(60);
const CURRENT: &str = "intermediate.pem";
const NEXT: &str = "intermediate-next.pem";

/// Why no certificate was made.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A key, request or certificate.
    #[error("could not {action}")]
    Mtls {
        /// What was tried.
        action: &'static str,
        /// What is wrong.
        #[source]
        source: tombolo_mtls::Error,
    },
    /// The controller.
    #[error("could not get a new intermediate from the controller")]
    Controller(#[source] RequestError),
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// The controller signed for somebody else.
    #[error("the controller answered with the intermediate of {found}")]
    OtherCluster {
        /// Whose it is.
        found: String,
    },
}

fn failed(action: &'static str) -> impl FnOnce(tombolo_mtls::Error) -> CertificateError {
    move |source| CertificateError::Mtls { action, source }
}

/// Signs for this cluster.
#[derive(Debug)]
pub struct Authority {
    current: RwLock<Arc<Intermediate>>,
    clock: Arc<dyn Clock>,
}

impl Authority {
    /// Signs with this intermediate.
    #[must_use]
    pub fn new(intermediate: Intermediate, clock: Arc<dyn Clock>) -> Self {
        Self { current: RwLock::new(Arc::new(intermediate)), clock }
    }

    /// What signs now.
    #[must_use]
    pub fn intermediate(&self) -> Arc<Intermediate> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs a leaf for `identity`. Whether the asker may have it is decided by the caller.
    ///
    /// # Errors
    /// [`CertificateError::Mtls`]: a bad request, an identity of another cluster, an intermediate that ended.
    pub fn issue(&self, csr: &str, identity: &SpiffeId) -> Result<LeafResponse, CertificateError> {
        let now = self.clock.now();
        let validity = Validity { not_before: now - SKEW, not_after: now + LEAF_LIFE };
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
        let (now, intermediate) = (self.clock.now(), self.intermediate());
        let validity = Validity { not_before: now - SKEW, not_after: now + LEAF_LIFE };
        let (chain, key) =
            intermediate.sign_https(names, validity).map_err(failed("sign an HTTPS certificate"))?;
        let info = certificate_info(&chain).map_err(failed("read the HTTPS certificate"))?;
        Ok((chain, key, intermediate.fingerprint(), info.validity))
    }

    fn replace(&self, new: Intermediate) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A renewed intermediate that does not sign yet.
#[derive(Debug)]
struct Next {
    intermediate: Intermediate,
    listed_since: Option<SystemTime>,
}

/// Keeps the agent's own certificate and the intermediate fresh.
#[derive(Debug)]
pub struct Renewal {
    authority: Arc<Authority>,
    credentials: Credentials,
    membership: Membership,
    data: DataDir,
    clock: Arc<dyn Clock>,
    next: Option<Next>,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Renewal {
    /// Makes the agent's certificate at once, so that it can dial the controller.
    ///
    /// # Errors
    /// [`CertificateError`], as where the intermediate has ended.
    pub fn start(
        authority: Arc<Authority>,
        membership: Membership,
        data: DataDir,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CertificateError> {
        let credentials = Credentials::new(membership.agent_id());
        let next = data
            .intermediate(NEXT, &membership)
            .unwrap_or_else(|error| {
                tracing::warn!(
                    error = chain(&error),
                    "the renewed intermediate on disk can't be used; it is asked for again"
                );
                None
            })
            .map(|intermediate| Next { intermediate, listed_since: None });
        let problem = Arc::default();
        let renewal = Self { authority, credentials, membership, data, clock, next, problem };
        renewal.renew_own()?;
        Ok(renewal)
    }

    /// The agent's own certificate, for the connection to the controller.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// What is wrong with the renewal, for the status.
    #[must_use]
    pub fn problem(&self) -> Arc<Mutex<Option<Problem>>> {
        Arc::clone(&self.problem)
    }

    /// Renews what is due, for as long as it is polled. `resources` gives the snapshot in force.
    ///
    /// Where there are several replicas, the one that writes renews the intermediate; the others take over what it kept.
    pub async fn run(
        mut self,
        requests: Requests,
        resources: impl Fn() -> Arc<Resources<ClusterResource>> + Send,
        standings: Standings,
    ) {
        loop {
            let result = self
                .look(&requests, &listed(&resources(), &self.membership.cluster), standings.own().writes())
                .await;
            let problem = result.err().map(|error| {
                let error = chain(&error);
                tracing::warn!(error, "a certificate could not be renewed; trying again");
                Problem { subject: "certificates".to_owned(), message: error }
            });
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem.or_else(|| self.ending());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(
        &mut self,
        requests: &Requests,
        listed: &BTreeSet<CaFingerprint>,
        writes: bool,
    ) -> Result<(), CertificateError> {
        let now = self.clock.now();
        self.adopt()?;
        if writes {
            if self.next.is_none() {
                // The replica that wrote before may have begun.
                let next = self.data.intermediate(NEXT, &self.membership)?;
                self.next = next.map(|intermediate| Next { intermediate, listed_since: None });
            }
            self.switch(now, listed)?;
        } else {
            self.next = None;
        }
        if self.credentials.subscribe().borrow().as_ref().is_none_or(|l| l.info.validity.half_life() <= now) {
            self.renew_own()?;
        }
        if writes && self.next.is_none() && self.authority.intermediate().validity().half_life() <= now {
            let key = PrivateKey::generate().map_err(failed("make a key"))?;
            let csr = key.csr(&self.membership.cluster_id()).map_err(failed("make a signing request"))?;
            let answer: IntermediateResponse = requests
                .post("/agent/v1/certificate", &IntermediateRequest { csr })
                .await
                .map_err(CertificateError::Controller)?;
            let intermediate =
                Intermediate::new(key, &answer.intermediate).map_err(failed("use the new intermediate"))?;
            if *intermediate.id() != self.membership.cluster_id() {
                return Err(CertificateError::OtherCluster { found: intermediate.id().to_string() });
            }
            self.data.store_intermediate(NEXT, &intermediate)?;
            tracing::info!(ca.fingerprint = %intermediate.fingerprint(), "a new intermediate is here");
            self.next = Some(Next { intermediate, listed_since: None });
        }
        Ok(())
    }

    /// Takes over what `tombolo-agent join` wrote meanwhile: the cluster joined again, and its record has a new
    /// intermediate.
    fn adopt(&mut self) -> Result<(), CertificateError> {
        let Some(kept) = self.data.intermediate(CURRENT, &self.membership)? else { return Ok(()) };
        if kept.fingerprint() == self.authority.intermediate().fingerprint() {
            return Ok(());
        }
        tracing::info!(ca.fingerprint = %kept.fingerprint(), "the cluster joined again; its new intermediate signs");
        self.next = None;
        self.authority.replace(kept);
        self.renew_own()
    }

    /// Puts the new intermediate to work once the snapshot has listed it for a while.
    fn switch(&mut self, now: SystemTime, listed: &BTreeSet<CaFingerprint>) -> Result<(), CertificateError> {
        let Some(next) = &mut self.next else { return Ok(()) };
        if !listed.contains(&next.intermediate.fingerprint()) {
            next.listed_since = None;
            return Ok(());
        }
        let since = *next.listed_since.get_or_insert(now);
        if now.duration_since(since).unwrap_or_default() < SPREAD {
            return Ok(());
        }
        self.data.store_intermediate(CURRENT, &next.intermediate)?;
        self.data.remove(NEXT)?;
        if let Some(next) = self.next.take() {
            tracing::info!(ca.fingerprint = %next.intermediate.fingerprint(), "the new intermediate signs");
            self.authority.replace(next.intermediate);
        }
        self.renew_own()
    }

    fn renew_own(&self) -> Result<(), CertificateError> {
        let key = PrivateKey::generate().map_err(failed("make a key"))?;
        let id = self.credentials.id();
        let csr = key.csr(id).map_err(failed("make a signing request"))?;
        let leaf = self.authority.issue(&csr, id)?;
        self.credentials.set(&leaf.chain, key).map_err(failed("use the agent's certificate"))
    }

    /// An intermediate that is in its last tenth is worth a word, whatever the reason.
    fn ending(&self) -> Option<Problem> {
        let validity = self.authority.intermediate().validity();
        let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
        let left = validity.not_after.duration_since(self.clock.now()).unwrap_or_default();
        (left < life / 10).then(|| Problem {
            subject: "certificates".to_owned(),
            message: format!(
                "the cluster's intermediate ends in {} s and could not be renewed; run `tombolo-agent join` with a \
                 new token",
                left.as_secs()
            ),
        })
    }
}

/// The intermediates of a cluster that the snapshot's bundle lists.
fn listed(resources: &Resources<ClusterResource>, cluster: &ClusterName) -> BTreeSet<CaFingerprint> {
    let none = BTreeMap::new();
    let clusters = resources
        .values()
        .find_map(|resource| match resource {
            ClusterResource::Bundle(bundle) => Some(&bundle.clusters),
            _ => None,
        })
        .unwrap_or(&none);
    clusters.get(cluster).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::Locality;
    use tombolo_mtls::Root;
    use tombolo_runtime::clock::ManualClock;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn begin() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn membership() -> Membership {
        Membership {
            controller: "https://127.0.0.1:7443".to_owned(),
            ca_fingerprint: format!("sha256:{}", "ab".repeat(32)),
            organization: "acme".parse().unwrap(),
            trust_domain: "acme.internal".parse().unwrap(),
            cluster: "c1".parse().unwrap(),
            locality: Locality::default(),
        }
    }

    fn intermediate(root: &Root, from: SystemTime) -> Intermediate {
        let key = PrivateKey::generate().unwrap();
        let id = membership().cluster_id();
        let validity = Validity { not_before: from, not_after: from + 90 * DAY };
        let pem = root.sign_intermediate(&key.csr(&id).unwrap(), &id, validity).unwrap();
        Intermediate::new(key, &pem).unwrap()
    }

    #[test]
    fn leaves_last_a_day_and_never_outlive_the_intermediate() {
        let root = Root::create(
            &membership().trust_domain,
            Validity { not_before: begin(), not_after: begin() + 3650 * DAY },
        )
        .unwrap();
        let clock = ManualClock::new(begin() + DAY);
        let authority = Authority::new(intermediate(&root, begin()), Arc::new(clock.clone()));
        let id: SpiffeId = "spiffe://acme.internal/cluster/c1/ns/default/sa/cart".parse().unwrap();
        let csr = PrivateKey::generate().unwrap().csr(&id).unwrap();
        let leaf = authority.issue(&csr, &id).unwrap();
        assert_eq!(leaf.not_after_s, seconds(begin() + 2 * DAY));
        clock.set(begin() + 90 * DAY - Duration::from_secs(60));
        assert_eq!(authority.issue(&csr, &id).unwrap().not_after_s, seconds(begin() + 90 * DAY));
        clock.set(begin() + 91 * DAY);
        assert!(authority.issue(&csr, &id).is_err());
        clock.set(begin() + DAY);
        for foreign in [
            "spiffe://acme.internal/cluster/c2/ns/default/sa/cart",
            "spiffe://other.internal/cluster/c1/ns/default/sa/cart",
            "spiffe://acme.internal/cluster/c1",
        ] {
            let id: SpiffeId = foreign.parse().unwrap();
            let csr = PrivateKey::generate().unwrap().csr(&id).unwrap();
            assert!(authority.issue(&csr, &id).is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_new_intermediate_signs_once_peers_have_it() {
        let root = Root::create(
            &membership().trust_domain,
            Validity { not_before: begin(), not_after: begin() + 3650 * DAY },
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let clock = ManualClock::new(begin() + 46 * DAY);
        let old = intermediate(&root, begin());
        let authority = Arc::new(Authority::new(old, Arc::new(clock.clone())));
        let old = authority.intermediate().fingerprint();
        let new = intermediate(&root, begin() + 46 * DAY);
        let new_print = new.fingerprint();
        // As after a restart between the renewal and the switch.
        data.store_intermediate(NEXT, &new).unwrap();
        let mut renewal =
            Renewal::start(Arc::clone(&authority), membership(), data.clone(), Arc::new(clock.clone()))
                .unwrap();
        assert!(renewal.credentials().ready());
        let both = BTreeSet::from([old.clone(), new_print.clone()]);
        let only_old = BTreeSet::from([old.clone()]);
        let mut step = |advance: Duration, listed: &BTreeSet<CaFingerprint>| {
            clock.advance(advance);
            renewal.switch(clock.now(), listed).unwrap();
            authority.intermediate().fingerprint()
        };
        assert_eq!(step(Duration::ZERO, &only_old), old);
        assert_eq!(step(SPREAD, &both), old, "listed just now");
        assert_eq!(step(SPREAD / 2, &both), old);
        assert_eq!(step(SPREAD / 2, &only_old), old, "gone from the list: the wait begins anew");
        assert_eq!(step(SPREAD, &both), old);
        assert_eq!(step(SPREAD, &both), new_print);
        let kept = data.intermediate(CURRENT, &membership()).unwrap().unwrap();
        assert_eq!(kept.fingerprint(), new_print);
        assert!(data.intermediate(NEXT, &membership()).unwrap().is_none());
        // Joined again while the agent runs.
        let third = intermediate(&root, begin() + 46 * DAY);
        data.store_joined(&membership(), &third).unwrap();
        renewal.adopt().unwrap();
        assert_eq!(authority.intermediate().fingerprint(), third.fingerprint());
        let issuer = renewal.credentials().subscribe().borrow().as_ref().map(|l| l.info.issuer.clone());
        assert!(issuer.is_some());
    }
}
