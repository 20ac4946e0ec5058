//! The agent's own certificate and the intermediate, kept fresh.

use super::{
    authority::Authority,
    bundle::Bundle,
    error::{CertificateError, failed},
};
use crate::{
    lease::Standings,
    state::{DataDir, Membership},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tombolo_feed::Requests;
use tombolo_model::snapshot::{CaFingerprint, ClusterResource, Resources};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey};
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::{IntermediateRequest, IntermediateResponse, Problem};

pub(super) const CURRENT: &str = "intermediate.pem";
pub(super) const NEXT: &str = "intermediate-next.pem";

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
    pub(super) fn is_due(&self, bundle: &Bundle, now: SystemTime) -> bool {
        let current = self.authority.intermediate();
        // a root that can't be read is refused with the whole snapshot, and no reason to renew
        let another_signs =
            bundle.signing.as_ref().is_some_and(|root| matches!(current.is_of(root), Ok(false)));
        another_signs || current.validity().half_life() <= now
    }

    /// Takes over what `tombolo-agent join` wrote meanwhile: the cluster joined again, and its record has a new
    /// intermediate.
    pub(super) fn adopt(&mut self) -> Result<(), CertificateError> {
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
    pub(super) fn switch(
        &mut self,
        now: SystemTime,
        listed: &BTreeSet<CaFingerprint>,
    ) -> Result<(), CertificateError> {
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
