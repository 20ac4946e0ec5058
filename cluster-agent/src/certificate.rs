//! The cluster's certificates: leaves for gateways and workloads, the agent's own, and the intermediate that signs
//! both. All are renewed at half of their life, so that an outage of the controller may last the other half.

use crate::{
    lease::Standings,
    state::{DataDir, Membership, StateError},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;
use tokio::sync::watch;
use tombolo_feed::{RequestError, Requests};
use tombolo_model::{
    ClusterName, SpiffeId,
    snapshot::{CaFingerprint, ClusterResource, Resources},
};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey, Secret, Validity, certificate_info};
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::{IntermediateRequest, IntermediateResponse, LeafResponse, Problem};

/// How long a leaf is good, where nobody says otherwise.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
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

/// How long leaves are good, and what follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    life: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { life: LEAF_LIFE }
    }
}

/// The shortest life of a leaf.
const SHORTEST: Duration = Duration::from_secs(10);

impl Pace {
    /// Reads how long leaves are good, as an option has it.
    ///
    /// # Errors
    /// What to write.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let life = tombolo_runtime::duration::parse(text).map_err(|error| error.to_string())?;
        if (SHORTEST..=LEAF_LIFE).contains(&life) { Ok(life) } else { Err("use 10s to 24h".to_owned()) }
    }

    /// Leaves are good for so long: 10 s to 24 h.
    #[must_use]
    pub fn of(life: Duration) -> Self {
        Self { life: life.clamp(SHORTEST, LEAF_LIFE) }
    }

    /// A leaf begins this much before it is signed: machines' clocks differ.
    fn skew(self) -> Duration {
        Duration::from_secs(300).min(self.life / 8)
    }

    /// How often the renewals are looked at. Wall time may jump; waiting for a moment in it would miss that.
    fn look(self) -> Duration {
        Duration::from_secs(15).min(self.life / 20)
    }

    /// A new intermediate signs this long after our own snapshot lists it, so that peers have it too.
    fn spread(self) -> Duration {
        Duration::from_secs(60).min(self.life / 4)
    }
}

/// Signs for this cluster.
#[derive(Debug)]
pub struct Authority {
    current: watch::Sender<Arc<Intermediate>>,
    pace: Pace,
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

    fn replace(&self, new: Intermediate) {
        self.current.send_replace(Arc::new(new));
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
        let pace = self.authority.pace;
        loop {
            let bundle = Bundle::of(&resources(), &self.membership.cluster);
            let result = self.look(&requests, &bundle, standings.own().writes()).await;
            let problem = result.err().map(|error| {
                let error = chain(&error);
                tracing::warn!(error, "a certificate could not be renewed; trying again");
                Problem { subject: "certificates".to_owned(), message: error }
            });
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem.or_else(|| self.ending());
            tokio::time::sleep(pace.look()).await;
        }
    }

    async fn look(
        &mut self,
        requests: &Requests,
        bundle: &Bundle,
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
            self.switch(now, &bundle.listed)?;
        } else {
            self.next = None;
        }
        if self.credentials.subscribe().borrow().as_ref().is_none_or(|l| l.info.validity.half_life() <= now) {
            self.renew_own()?;
        }
        if writes && self.next.is_none() && self.is_due(bundle, now) {
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

    /// Whether a new intermediate is to be asked for: at half of its life, or when another root signs.
    fn is_due(&self, bundle: &Bundle, now: SystemTime) -> bool {
        let current = self.authority.intermediate();
        // a root that can't be read is refused with the whole snapshot, and no reason to renew
        let another_signs =
            bundle.signing.as_ref().is_some_and(|root| matches!(current.is_of(root), Ok(false)));
        another_signs || current.validity().half_life() <= now
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
        if now.duration_since(since).unwrap_or_default() < self.authority.pace.spread() {
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

/// What the snapshot's bundle says of a cluster.
#[derive(Debug, Default)]
struct Bundle {
    /// Its intermediates that peers believe.
    listed: BTreeSet<CaFingerprint>,
    /// The root that signs, PEM.
    signing: Option<String>,
}

impl Bundle {
    fn of(resources: &Resources<ClusterResource>, cluster: &ClusterName) -> Self {
        let bundle = resources.values().find_map(|resource| match resource {
            ClusterResource::Bundle(bundle) => Some(bundle),
            _ => None,
        });
        bundle.map_or_else(Self::default, |bundle| Self {
            listed: bundle.clusters.get(cluster).cloned().unwrap_or_default(),
            signing: bundle.roots.first().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_new_intermediate_is_due_at_half_life_or_when_another_root_signs() {
        let validity = Validity { not_before: begin(), not_after: begin() + 3650 * DAY };
        let [root, next] = [0; 2].map(|_| Root::create(&membership().trust_domain, validity).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        let clock = ManualClock::new(begin() + DAY);
        let authority = Arc::new(Authority::new(intermediate(&root, begin()), Arc::new(clock.clone())));
        let renewal = Renewal::start(authority, membership(), data, Arc::new(clock)).unwrap();
        let signed_by = |root: Option<&Root>| Bundle {
            signing: root.map(|root| root.cert_pem().to_owned()),
            ..Bundle::default()
        };
        for (bundle, day, due) in [
            (signed_by(None), 1, false),
            (signed_by(Some(&root)), 1, false),
            (signed_by(Some(&next)), 1, true),
            (signed_by(Some(&root)), 46, true),
            (Bundle { signing: Some("?".to_owned()), ..Bundle::default() }, 1, false),
        ] {
            assert_eq!(renewal.is_due(&bundle, begin() + day * DAY), due, "{day}: {bundle:?}");
        }
    }

    #[test]
    fn short_lives_are_renewed_in_time() {
        for (life, expected) in [(10, [1250, 500, 2500]), (3600 * 24, [300_000, 15_000, 60_000])] {
            let pace = Pace::of(Duration::from_secs(life));
            assert_eq!([pace.skew(), pace.look(), pace.spread()].map(|one| one.as_millis()), expected);
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
        assert_eq!(step(Pace::default().spread(), &both), old, "listed just now");
        assert_eq!(step(Pace::default().spread() / 2, &both), old);
        assert_eq!(
            step(Pace::default().spread() / 2, &only_old),
            old,
            "gone from the list: the wait begins anew"
        );
        assert_eq!(step(Pace::default().spread(), &both), old);
        assert_eq!(step(Pace::default().spread(), &both), new_print);
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
