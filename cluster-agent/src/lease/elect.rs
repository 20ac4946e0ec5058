//! Takes the Lease, keeps it, and lets go of it.

use super::{
    Standing,
    decide::{DURATION, Seen, Step, decide, see},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tombolo_model::NamespaceName;
use tombolo_runtime::{clock::Clock, telemetry::chain};

const NAME: &str = "tombolo-agent";
const MANAGER: &str = "tombolo-agent";
/// How often the record is looked at, and renewed.
const PERIOD: Duration = Duration::from_secs(2);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long after the last renewal a holder still writes; it is found out a turn later at most, well before another one
/// may take over ([`DURATION`]).
const GOOD: Duration = Duration::from_secs(8);

/// The election, as one replica takes part in it.
pub struct Election {
    api: Api<Lease>,
    own: String,
    clock: Arc<dyn Clock>,
    standing: watch::Sender<Standing>,
    seen: Option<Seen>,
    renewed: Option<Instant>,
}

impl Election {
    /// Takes part as `own`, the name of the replica's pod: a process that starts anew in it goes on.
    #[must_use]
    pub fn new(client: Client, namespace: &NamespaceName, own: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            api: Api::namespaced(client, namespace.as_str()),
            own: own.to_owned(),
            clock,
            standing: watch::Sender::new(Standing::Following),
            seen: None,
            renewed: None,
        }
    }

    /// What this replica is.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Takes part until `stop`; then lets go of the Lease, so that another one takes it at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let ended = tokio::select! {
                () = self.turn() => false,
                () = &mut stop => true,
            };
            let waited = async {
                if !ended {
                    sleep(PERIOD).await;
                }
            };
            let ended = tokio::select! {
                () = waited => ended,
                () = &mut stop, if !ended => true,
            };
            if ended {
                break;
            }
        }
        if *self.standing.borrow() == Standing::Leading {
            self.set(Standing::Following);
            let _ = timeout(PATIENCE, self.release()).await;
        }
    }

    async fn turn(&mut self) {
        let result = timeout(PATIENCE, self.attempt()).await;
        let result = result.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()));
        match result.and_then(|result| result.map_err(|error| chain(&error))) {
            Ok(standing) => self.set(standing),
            Err(error) => {
                tracing::debug!(error, "the Lease could not be read or written");
                let good = self.renewed.is_some_and(|renewed| renewed.elapsed() < GOOD);
                if *self.standing.borrow() == Standing::Leading && !good {
                    tracing::warn!(error, "the Lease can't be renewed; nothing is written until it is");
                    self.set(Standing::Orphaned);
                }
            }
        }
    }

    fn set(&self, standing: Standing) {
        let changed = self.standing.send_if_modified(|old| {
            let changed = *old != standing;
            *old = standing;
            changed
        });
        if changed {
            tracing::info!(replica = self.own, standing = ?standing, "this replica's standing changed");
        }
    }

    async fn attempt(&mut self) -> Result<Standing, kube::Error> {
        let now = Instant::now();
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.record(None)),
            };
            return self.written(self.api.create(&params(), &lease).await, now);
        };
        let seen = see(self.seen.take(), lease.spec.clone().unwrap_or_default(), now);
        let step = decide(&seen, &self.own, now);
        self.seen = Some(seen);
        if step == Step::Wait {
            return Ok(Standing::Following);
        }
        // With the version that was read: of two who take it one is refused.
        let spec = Some(self.record(lease.spec.as_ref().filter(|_| step == Step::Renew)));
        let spec = spec.map(|spec| LeaseSpec { lease_transitions: transitions(&lease, step), ..spec });
        let result = self.api.replace(NAME, &params(), &Lease { spec, ..lease }).await;
        self.written(result, now)
    }

    /// `began` is when it was asked for: the record may be as old as that.
    fn written(
        &mut self,
        result: Result<Lease, kube::Error>,
        began: Instant,
    ) -> Result<Standing, kube::Error> {
        match result {
            Ok(_) => {
                self.renewed = Some(began);
                Ok(Standing::Leading)
            }
            // Another one was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Standing::Following),
            Err(error) => Err(error),
        }
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::try_from(self.clock.now()).ok().map(MicroTime);
        LeaseSpec {
            holder_identity: Some(self.own.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.and_then(|before| before.acquire_time.clone()).or_else(|| now.clone()),
            renew_time: now,
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
        let held = lease.spec.clone().unwrap_or_default();
        if held.holder_identity.as_deref() != Some(&self.own) {
            return Ok(());
        }
        let spec = LeaseSpec { holder_identity: Some(String::new()), ..held };
        self.api.replace(NAME, &params(), &Lease { spec: Some(spec), ..lease }).await.map(drop)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn transitions(lease: &Lease, step: Step) -> Option<i32> {
    let before = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
    Some(if step == Step::Take { before.saturating_add(1) } else { before })
}
