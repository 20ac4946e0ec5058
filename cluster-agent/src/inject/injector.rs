//! The parts of injection, put together.

use super::{
    Config, Injection, Settings,
    asked::Asked,
    certificate::HttpsCertificate,
    keep::Keeping,
    server::{Knowledge, Webhook},
};
use crate::{
    certificate::{Authority, CertificateError},
    index::View,
    registries::Registries,
    source::kubernetes,
    state::Membership,
};
use kube::Client;
use std::{io, net::SocketAddr, sync::Arc};
use thiserror::Error;
use tokio::sync::watch;
use tombolo_feed::State;
use tombolo_model::{
    NamespaceName,
    snapshot::{ClusterResource, ResourceKey, Resources},
};
use tombolo_runtime::{clock::Clock, drain::Watch, metrics::Metrics};
use tombolo_wire::message::Problem;

/// The port of the Service at which proxies find the agent.
const GATEWAYS: u16 = 15_012;

/// Why pods can't be injected.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The port.
    #[error(
        "can't listen for the API server on {address}; give another --webhook-listen, or end what listens there"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The certificate.
    #[error("the webhook has no certificate")]
    Certificate(#[from] CertificateError),
}

/// What injection needs of the agent.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The agent's namespace.
    pub namespace: NamespaceName,
    /// Whose agent this is.
    pub membership: Arc<Membership>,
    /// What signs.
    pub authority: Arc<Authority>,
    /// The controller's snapshot.
    pub snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    /// What runs in the cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Where images may come from.
    pub registries: watch::Receiver<Registries>,
    /// Whether this replica writes.
    pub writes: watch::Receiver<bool>,
    /// How it stands.
    pub(crate) injection: watch::Sender<Injection>,
    /// What is wrong.
    pub problems: watch::Sender<Vec<Problem>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Injection, bound and not running yet.
pub struct Injector {
    webhook: Webhook,
    keeping: Keeping,
    following: Following,
}

impl Injector {
    /// Binds the webhook.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(mut config: Config, parts: Parts, metrics: &Metrics) -> Result<Self, BuildError> {
        config.exclude.extend(kubernetes::system().chain([parts.namespace.clone()]));
        let certificate = HttpsCertificate::start(
            &parts.namespace,
            Arc::clone(&parts.authority),
            Arc::clone(&parts.clock),
        )?;
        let (settings, known) = watch::channel(None);
        let (asked, asking) = watch::channel(None);
        let knowledge = Knowledge { settings: known, view: parts.view.clone(), asked: asking.clone() };
        let listen = Webhook::bind(config.listen, &certificate, knowledge, metrics).await;
        let webhook = listen.map_err(|source| BuildError::Listen { address: config.listen, source })?;
        let keeping = Keeping {
            client: parts.client,
            namespace: parts.namespace.clone(),
            authority: parts.authority,
            certificate,
            asked: asking,
            writes: parts.writes,
            view: parts.view,
            port: webhook.address().port(),
            injection: parts.injection,
            problems: parts.problems,
            clock: parts.clock,
        };
        let following = Following {
            agent: config.agent.clone().unwrap_or_else(|| agent_url(&parts.namespace)),
            config,
            membership: parts.membership,
            snapshot: parts.snapshot,
            registries: parts.registries,
            asked,
            settings,
        };
        Ok(Self { webhook, keeping, following })
    }

    /// Where the API server asks.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.webhook.address()
    }

    /// Runs until the draining.
    pub async fn run(self, stop: Watch) {
        let Self { webhook, keeping, following } = self;
        tokio::select! {
            () = webhook.run(stop) => {}
            () = keeping.run() => {}
            () = following.run() => {}
        }
    }
}

/// The Service of the agent.
fn agent_url(namespace: &NamespaceName) -> String {
    format!("https://{}.{namespace}.svc:{GATEWAYS}", super::certificate::SERVICE)
}

/// Keeps the settings as the snapshot has them.
struct Following {
    agent: String,
    config: Config,
    membership: Arc<Membership>,
    snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    registries: watch::Receiver<Registries>,
    asked: watch::Sender<Option<Arc<Asked>>>,
    settings: watch::Sender<Option<Arc<Settings>>>,
}

impl Following {
    async fn run(mut self) {
        loop {
            let snapshot = Arc::clone(&self.snapshot.borrow_and_update());
            let registries = self.registries.borrow_and_update().clone();
            // None is no answer: what was asked for last stays.
            if let Some(asked) = Asked::of(&snapshot.resources, &self.config, &registries) {
                let image = asked.webhook.as_ref().map(|webhook| webhook.image.clone());
                put(&self.settings, self.settings_of(&snapshot.resources, image));
                put(&self.asked, Some(asked));
            }
            let changed = tokio::select! {
                changed = self.snapshot.changed() => changed,
                changed = self.registries.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Following {
    fn settings_of(&self, resources: &Resources<ClusterResource>, image: Option<String>) -> Option<Settings> {
        Some(Settings {
            cluster: self.membership.cluster.clone(),
            trust_domain: self.membership.trust_domain.clone(),
            agent: self.agent.clone(),
            roots: roots(resources)?,
            image: image?,
            vips: self.config.vips.clone(),
        })
    }
}

fn put<T: PartialEq>(to: &watch::Sender<Option<Arc<T>>>, new: Option<T>) {
    to.send_if_modified(|old| {
        let differs = old.as_deref() != new.as_ref();
        *old = new.map(Arc::new);
        differs
    });
}

/// The organization's roots, PEM.
fn roots(resources: &Resources<ClusterResource>) -> Option<String> {
    match resources.get(&ResourceKey::new("bundle", "")) {
        Some(ClusterResource::Bundle(bundle)) => Some(bundle.roots.concat()),
        _ => None,
    }
}
