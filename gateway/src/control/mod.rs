//! What ties this gateway to its cluster's agent: the feed of the table, the certificates, and the reports back.
//!
//! The agent may go and come: the last good table (from disk, after a restart), the certificates and the connections
//! stay. Each new connection to it begins with a hello.

mod certificates;
mod issue;
mod paths;
mod status;

use crate::{
    config::{Agent, Capture, Config},
    state::{self, Shared},
};
use certificates::{Change, Keeper, Missing};
use futures::{FutureExt, future::BoxFuture};
use http::StatusCode;
use paths::Paths;
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{runtime, sync::watch};
use tokio_util::task::AbortOnDropHandle;
use tombolo_feed::{
    Backoff, Client, Options, RequestError, Requests, State, Status, TlsConnector, TokenFile, UnixConnector,
    connect::ConnectError,
};
use tombolo_model::{
    GatewayRole, Generation, SpiffeId,
    snapshot::{GatewayResource, Resources},
};
use tombolo_mtls::agent_client_config;
use tombolo_runtime::{task, telemetry};
use tombolo_wire::{
    message::{GatewayHello, GatewayStatus, GatewayWelcome, Problem},
    problem::ProblemDetails,
    version::{Hello, ProtocolVersion},
};

/// The waits for an agent that is away: it is on this machine, so asking often costs nothing and finds it soon.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The same for one in another pod, which many ask.
const FAR: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// Why the agent can't be asked.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Its roots.
    #[error("the agent's roots can't be used; give --agent-roots the organization's root certificates")]
    Roots(#[source] tombolo_mtls::Error),
    /// Its address.
    #[error("the agent's address can't be used")]
    Address(#[from] ConnectError),
}

/// What the control part needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the agent is.
    pub agent: Agent,
    /// Where the last good table is kept.
    pub cache: Option<PathBuf>,
    /// What this process says of itself.
    pub hello: GatewayHello,
}

impl Settings {
    /// As the configuration has it, for a process whose ports are bound; `None` without an agent.
    #[must_use]
    pub fn of(config: &Config, tunnel: SocketAddr, admin: Option<SocketAddr>) -> Option<Self> {
        let hello = GatewayHello {
            advertise: config.advertise.clone(),
            beside: config.beside.clone(),
            serves: config.serve.clone(),
            workloads: config.workload.iter().cloned().collect(),
            explicit: config.capture == Capture::Explicit,
            admin,
            ..GatewayHello::new(
                Hello::current("tombolo-gateway"),
                config.instance.clone(),
                config.role,
                tunnel,
            )
        };
        let (agent, cache) = (config.agent.clone()?, config.cache.clone());
        Some(Self { agent, cache, hello })
    }
}

/// The running control part. Dropping it ends it; table and certificates stay as they are.
#[derive(Debug)]
pub struct Handle {
    feed: watch::Receiver<Status>,
    applied: watch::Receiver<Generation>,
    missing: watch::Receiver<Option<Missing>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Handle {
    /// How the feed is.
    #[must_use]
    pub fn feed(&self) -> watch::Receiver<Status> {
        self.feed.clone()
    }

    /// The generation of the table in force; zero before the first.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Generation> {
        self.applied.clone()
    }

    /// Waits until there is a table, and a certificate for every identity it asks for. Cancel-safe.
    pub async fn ready(&self) {
        // the sender lives in a task of this handle
        let _ = self
            .missing
            .clone()
            .wait_for(|missing| missing.is_some_and(|missing| missing.missing == 0))
            .await;
    }

    /// Why it is not ready, or whether it is.
    ///
    /// # Errors
    /// What is waited for, for people.
    pub fn readiness(&self) -> Result<(), String> {
        match *self.missing.borrow() {
            Some(Missing { missing: 0, .. }) => Ok(()),
            Some(Missing { missing, wanted }) => {
                Err(format!("{missing} of {wanted} identities have no certificate yet"))
            }
            None => {
                let why = self.feed.borrow().error.clone().unwrap_or_else(|| "connecting".into());
                Err(format!("no table from the agent yet ({why})"))
            }
        }
    }
}

/// Starts the control part on the current runtime. The kept table is in force when this returns; what a table starts
/// (probes and their tunnels) runs on `data`. `problems` says what else does not work, for the reports.
///
/// # Errors
/// [`AccessError`]; that the agent is away is none.
pub fn start(
    shared: &Arc<Shared>,
    settings: Settings,
    data: runtime::Handle,
    problems: impl Fn() -> Vec<Problem> + Send + Sync + 'static,
) -> Result<Handle, AccessError> {
    let Settings { agent, cache, hello } = settings;
    let paths = Paths::of(&hello.instance);
    let (role, tunnel) = (hello.role, hello.tunnel);

    let mut options = Options::new(paths.feed.clone(), paths.ack.clone());
    options.cache = cache;
    options.validate = Arc::new(validate);
    let (greeter, path) = (shared.clone(), paths.hello.clone());
    options.on_connect = Some(Arc::new(move |requests| {
        let hello = GatewayHello { leaving: greeter.leaves(), ..hello.clone() };
        greet(requests, hello, path.clone()).boxed()
    }));
    let (client, running) = connect(agent, options, shared)?;

    let (applied_tx, applied) = watch::channel(Generation::ZERO);
    let (wanted_tx, wanted) = watch::channel(None);
    let (missing_tx, missing) = watch::channel(None);
    let apply = Apply { shared: shared.clone(), data, role, tunnel, applied: applied_tx, wanted: wanted_tx };
    let mut states = client.state();
    apply.state(&states.borrow_and_update().clone());

    let keeper = Keeper {
        requests: client.requests(),
        paths: paths.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        missing: missing_tx,
    };
    let (publish, bundle) = (publisher(shared.clone(), role), shared.bundle.subscribe());
    let (reporter, generation) = (shared.clone(), applied.clone());
    let report = move || GatewayStatus { problems: problems(), ..reporter.status(*generation.borrow()) };
    let tasks = vec![
        task::spawn("feed", running),
        task::spawn("apply", async move {
            while states.changed().await.is_ok() {
                let state = states.borrow_and_update().clone();
                apply.state(&state);
            }
        }),
        task::spawn("certificates", keeper.run(wanted, bundle, publish)),
        task::spawn("report", status::report(client.requests(), paths, client.status(), report)),
    ];
    let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
    Ok(Handle { feed: client.status(), applied, missing, _tasks: tasks })
}

/// The feed from the agent, to be run.
fn connect(
    agent: Agent,
    mut options: Options<GatewayResource>,
    shared: &Shared,
) -> Result<(Client<GatewayResource>, BoxFuture<'static, ()>), AccessError> {
    match agent {
        Agent::Socket { path, uid } => {
            options.backoff = Backoff::new(AGAIN.0, AGAIN.1);
            let (client, running) = Client::build(UnixConnector::new(path).or_held_by(uid), options);
            Ok((client, running.run().boxed()))
        }
        Agent::Remote(remote) => {
            options.backoff = Backoff::new(FAR.0, FAR.1);
            options.token = Some(TokenFile::new(remote.token));
            let id = SpiffeId::agent(&remote.trust_domain, &remote.cluster);
            let tls = agent_client_config(&remote.roots, &shared.bundle, &id, &[b"h2"])
                .map_err(AccessError::Roots)?;
            let (client, running) =
                Client::build(TlsConnector::new(&remote.host, remote.port, tls)?, options);
            Ok((client, running.run().boxed()))
        }
    }
}

/// What would be refused when it is put in force is refused before it is acknowledged.
fn validate(resources: &Resources<GatewayResource>) -> Result<(), String> {
    state::prepare(resources).map(drop).map_err(|error| telemetry::chain(&error))
}

/// Says hello, and whether the two can work together.
async fn greet(requests: Requests, hello: GatewayHello, path: String) -> Result<(), RequestError> {
    let welcome: GatewayWelcome = requests.post(&path, &hello).await?;
    let theirs = welcome.hello.protocol;
    if !theirs.meets(ProtocolVersion::CURRENT) {
        let detail = format!(
            "the agent speaks protocol {theirs}, this gateway {}: upgrade the older of the two, at most {} minor versions at a time",
            ProtocolVersion::CURRENT,
            ProtocolVersion::SKEW
        );
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        let problem = ProblemDetails { status: status.as_u16(), detail, ..ProblemDetails::default() };
        return Err(RequestError::Refused { status, problem: Box::new(problem), retry_after: None });
    }
    tracing::info!(cluster.id = %welcome.cluster, agent = welcome.hello.software, "known to the agent");
    Ok(())
}

/// Puts states in force.
struct Apply {
    shared: Arc<Shared>,
    data: runtime::Handle,
    role: GatewayRole,
    tunnel: SocketAddr,
    applied: watch::Sender<Generation>,
    wanted: watch::Sender<Option<BTreeSet<SpiffeId>>>,
}

impl Apply {
    fn state(&self, state: &State<GatewayResource>) {
        if state.resources.is_empty() {
            return; // nothing was ever received
        }
        let entered = self.data.enter();
        let result = self.shared.apply(&state.resources);
        drop(entered);
        if let Err(error) = result {
            // `validate` let it pass, so this build contradicts itself
            tracing::error!(
                snapshot.generation = state.generation.get(),
                error = telemetry::chain(&error),
                "a table that was found good can't be put in force; the one before stays"
            );
            return;
        }
        self.applied.send_replace(state.generation);
        let table = self.shared.table.load();
        let wanted = table.itself().map(|itself| {
            let own = SpiffeId::gateway(&itself.trust_domain, &itself.cluster, self.role);
            let workloads = match self.role {
                GatewayRole::Sidecar | GatewayRole::Node => table.wanted_identities(self.tunnel),
                GatewayRole::Egress | GatewayRole::Ingress => BTreeSet::new(),
            };
            workloads.into_iter().chain([own]).collect()
        });
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }
}

/// Certificates go where handshakes look for them.
fn publisher(shared: Arc<Shared>, role: GatewayRole) -> impl Fn(Change) + Send + 'static {
    move |change| match change {
        Change::Ready(credentials) if credentials.id().is_gateway(role) => {
            shared.credentials.set_own(credentials)
        }
        Change::Ready(credentials) => shared.credentials.insert(credentials),
        Change::Gone(id) => shared.credentials.remove(&id),
    }
}

#[cfg(test)]
mod tests;
