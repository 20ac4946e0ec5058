//! Keeps the configuration in the API server as it should be, and the certificate one that it is told to believe.

use super::{
    SIDECARS,
    asked::Asked,
    certificate::{HttpsCertificate, names},
    configuration::{self, NAME, agrees, believes, bundle, bundle_of},
    serving::{Injection, serving},
};
use crate::{certificate::Authority, gateways::replicas, index::View};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tombolo_model::NamespaceName;
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::Problem;

/// The one field manager.
const MANAGER: &str = "tombolo-agent";
/// How often it is looked at. The agent may read this one object by its name only, so it can't watch it.
const LOOK: Duration = Duration::from_secs(10);
/// The same at first while not every replica serves what it should: somebody waits for it. Twice as long each time, for one may never do.
const SOON: Duration = Duration::from_secs(1);

/// What keeps it right.
pub(super) struct Keeping {
    /// The API server.
    pub(super) client: Client,
    /// The agent's namespace.
    pub(super) namespace: NamespaceName,
    /// What signs.
    pub(super) authority: Arc<Authority>,
    /// What is shown.
    pub(super) certificate: HttpsCertificate,
    /// What is asked for; none before that is known.
    pub(super) asked: watch::Receiver<Option<Arc<Asked>>>,
    /// Whether this replica writes; the others only look.
    pub(super) writes: watch::Receiver<bool>,
    /// The agent's namespace has the other replicas.
    pub(super) view: watch::Receiver<Arc<View>>,
    /// Where each of them is asked.
    pub(super) port: u16,
    /// How it stands.
    pub(super) injection: watch::Sender<Injection>,
    /// What is wrong.
    pub(super) problems: watch::Sender<Vec<Problem>>,
    /// What time it is.
    pub(super) clock: Arc<dyn Clock>,
}

/// Why it is not as it should be.
enum Wrong {
    /// The cluster has no native sidecars.
    TooOld,
    Said(String),
}

impl From<String> for Wrong {
    fn from(said: String) -> Self {
        Self::Said(said)
    }
}

impl Wrong {
    fn words(self) -> String {
        let (major, minor) = SIDECARS;
        match self {
            Self::TooOld => format!(
                "pods get no proxies: that needs Kubernetes {major}.{minor}; use capture mode node or gateway"
            ),
            Self::Said(said) => said,
        }
    }
}

impl Keeping {
    /// Runs for as long as it is polled.
    pub(super) async fn run(mut self) {
        let (mut pause, mut known) = (SOON, BTreeMap::new());
        loop {
            let asked = self.asked.borrow_and_update().clone();
            let writes = *self.writes.borrow_and_update();
            let looked = match &asked {
                Some(asked) => self.look(asked, writes).await,
                None => Ok(Vec::new()),
            };
            let wanted = writes && asked.is_some_and(|asked| asked.webhook.is_some());
            let replicas = replicas(&self.view.borrow(), &self.namespace);
            let injection = match &looked {
                _ if !wanted => Injection::Unknown,
                Ok(believed) => {
                    let ([name, ..], believed) = (names(&self.namespace), believed.concat());
                    tokio::select! {
                        injection = serving(&replicas, self.port, &name, &believed) => injection,
                        Ok(()) = self.asked.changed() => {
                            self.asked.mark_changed();
                            Injection::Unknown
                        }
                    }
                }
                Err(Wrong::TooOld) => Injection::TooOld,
                Err(Wrong::Said(why)) => Injection::Untold(why.clone()),
            };
            let waited_for = matches!(injection, Injection::Told { .. }) && !injection.is_whole();
            let changed = self.injection.send_if_modified(|old| {
                let differs = *old != injection;
                *old = injection;
                differs
            });
            if changed || known != replicas {
                pause = SOON;
            }
            known = replicas;
            let again = if waited_for { pause } else { LOOK };
            pause = (pause * 2).min(LOOK);
            let problem = looked.err().map(|wrong| Problem {
                subject: format!("MutatingWebhookConfiguration {NAME}"),
                message: wrong.words(),
            });
            let problems = Vec::from_iter(problem);
            self.problems.send_if_modified(|old| {
                let differs = *old != problems;
                *old = problems;
                differs
            });
            tokio::select! {
                Ok(()) = self.asked.changed() => {}
                Ok(()) = self.writes.changed() => {}
                () = sleep(again) => {}
            }
        }
    }

    /// Whether the API server knows sidecars that are init containers; an older one would wait for them to end.
    async fn is_new_enough(&self) -> Result<bool, String> {
        let version =
            self.client.apiserver_version().await.map_err(|error| refused(error, "get /version of"))?;
        let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
        let (major, minor) = (number(&version.major), number(&version.minor));
        Ok(major.zip(minor).is_none_or(|version| version >= SIDECARS))
    }

    /// The certificates that the API server believes, or why it is not as it should be.
    async fn look(&self, asked: &Asked, writes: bool) -> Result<Vec<String>, Wrong> {
        let policy = asked.webhook.as_ref().map(|webhook| webhook.policy);
        if policy.is_some() && !self.is_new_enough().await? {
            return Err(Wrong::TooOld);
        }
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = match api.get_opt(NAME).await {
            Ok(Some(found)) => found,
            // Somebody deleted it: it is made anew, but not where there is nothing to ask.
            Ok(None) if policy.is_some() => MutatingWebhookConfiguration::default(),
            Ok(None) => return Ok(Vec::new()),
            Err(error) => {
                // It is not asked for pods either, then. What it believed it goes on to believe.
                let _ = self.certificate.renew(|_| false);
                return Err(Wrong::Said(refused(error, "get")));
            }
        };
        let intermediate = self.authority.intermediate();
        let mut believed = bundle_of(&found);
        let whom = bundle(&intermediate, &believed, self.clock.now());
        let wanted = configuration::configuration(&self.namespace, &asked.chosen, policy, &whom);
        if writes && !agrees(&wanted, &found) {
            let params = PatchParams::apply(MANAGER).force();
            let written = api.patch(NAME, &params, &Patch::Apply(&wanted)).await;
            let written = written.map_err(|error| refused(error, "patch"))?;
            tracing::info!("the API server is told about which pods to ask");
            believed = bundle_of(&written);
        }
        let renewed = self.certificate.renew(|signs| believes(&believed, signs));
        renewed.map_err(|error| chain(&error))?;
        Ok(believed)
    }
}

fn refused(error: kube::Error, verb: &str) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; let the agent {verb} this one object (the manifest's ClusterRole does), or pods get no proxies",
            status.message
        ),
        kube::Error::Api(status) => format!("{}; it is tried again", status.message),
        error => format!("{}; it is tried again", chain(&error)),
    }
}
