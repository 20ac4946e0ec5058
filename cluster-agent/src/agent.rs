//! The agent as a whole: binds everything, then runs.

use crate::{
    admin::Shown,
    ages::Register,
    certificate::{Authority, CertificateError, Pace, Renewal},
    controller::{self, AddressError},
    dns,
    engine::{self, Inputs, Outputs, Source},
    expose::{self, apply::Exposing},
    gateways::{self, Doorkeeper, Hub, HubConfig, Listener, PodListener, Siblings, first_generation},
    health::{self, Checker, HealthConfig},
    index::{Index, View},
    inject::{self, Injector},
    install::{self, Installing},
    lease::{Standing, Standings},
    locality,
    mcs::apply::Multicluster,
    pod::{Following, snapshot::Keeping},
    registries::Registries,
    report::{Reporter, new_epoch},
    source::{Batch, McsVersion, directory::Directory, keeper::Keeper, kubernetes},
    state::{DataDir, Lock, Membership, StateError},
    status::Reporting,
    synthesis,
    vip::AddressMode,
};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tombolo_feed::{Client, Options, Requests, Running, TlsConnector, TokenFile};
use tombolo_model::{AccountName, snapshot::ClusterResource};
use tombolo_runtime::{
    admin::{self, Readiness},
    clock::{Clock, SystemClock},
    drain::{self, Drain, Drained},
    metrics::Metrics,
    task,
};
use tombolo_wire::message::Problem;

/// What an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory, in which it joined.
    pub data: PathBuf,
    /// Where it learns what runs in its cluster.
    pub source: SourceConfig,
    /// The DNS server, where it is not a process of its own ([`dns::process`]).
    pub dns: Option<dns::Config>,
    /// The socket for gateways of this machine, where there is to be one.
    pub gateway_socket: Option<PathBuf>,
    /// Where gateways in pods come, with a token of the API server's; for a Kubernetes source only.
    pub gateway_listen: Option<SocketAddr>,
    /// Where images of an installation may come from, as far as it was stated.
    pub registries: Registries,
    /// How VIPs are written here.
    pub mode: AddressMode,
    /// The admin port, where there is to be one.
    pub admin: Option<SocketAddr>,
    /// How long certificates of workloads are good.
    pub pace: Pace,
    /// How endpoints are checked.
    pub health: HealthConfig,
    /// How the set of gateways behaves.
    pub hub: HubConfig,
}

/// Where an agent learns what runs in its cluster.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// A Kubernetes API server.
    Kubernetes {
        /// Which, and what of it.
        cluster: kubernetes::Config,
        /// Whether imported names become Services, so that pods without a proxy reach them (capture mode `gateway`).
        expose: bool,
        /// How pods get proxies (capture mode `sidecar`), where they do.
        inject: Option<inject::Config>,
    },
}

/// The source, ready to run.
enum Reader {
    Directory(Box<Directory>),
    Kubernetes(Box<kubernetes::Watching>),
}

impl Reader {
    async fn run(self, sink: impl FnMut(Batch) + Send) {
        match self {
            Self::Directory(directory) => directory.run(sink).await,
            Self::Kubernetes(cluster) => cluster.run(sink).await,
        }
    }
}

/// What an agent is given.
#[derive(Debug)]
pub struct Deps {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What makes it one of several, in Kubernetes.
    pub replica: Option<Replica>,
}

/// One of several agents of a cluster.
#[derive(Debug)]
pub struct Replica {
    /// The name of its pod.
    pub name: AccountName,
    /// Whether it holds the Lease.
    pub standing: watch::Receiver<Standing>,
    /// Where the token is with which it asks the others.
    pub token: Option<PathBuf>,
    /// Keeps what all of them share.
    pub following: Option<Following>,
}

impl Default for Deps {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), replica: None }
    }
}

/// Why an agent can't start.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The controller's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its certificates.
    #[error("the agent has no certificate; run `tombolo-agent join` again with a new token")]
    Certificate(#[from] CertificateError),
    /// The DNS server.
    #[error(transparent)]
    Dns(#[from] dns::BindError),
    /// The socket for gateways.
    #[error(transparent)]
    Gateways(#[from] gateways::BindError),
    /// The port for gateways.
    #[error(transparent)]
    Listen(#[from] gateways::ListenError),
    /// Nobody could say whose the tokens are.
    #[error("--gateway-listen needs an API server; give --kubernetes")]
    NoApiServer,
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::ConnectError),
    /// The webhook.
    #[error(transparent)]
    Inject(#[from] inject::BuildError),
    /// The admin port.
    #[error("can't listen on {address} for the admin port; give another --admin, or end what listens there")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// An agent with everything bound, that does not run yet.
pub struct Bound {
    /// Where DNS is answered, where this process does.
    pub dns: Option<SocketAddr>,
    /// Where the admin port is.
    pub admin: Option<SocketAddr>,
    /// Where the API server asks about pods, where it does.
    pub webhook: Option<SocketAddr>,
    /// The socket for gateways, where there is one.
    pub gateway_socket: Option<PathBuf>,
    /// Where gateways in pods come, where they do.
    pub gateways: Option<SocketAddr>,
    /// Whose agent this is.
    pub membership: Arc<Membership>,
    parts: Parts,
}

/// What runs.
struct Parts {
    feed: Client<ClusterResource>,
    running: Running<ClusterResource, TlsConnector>,
    renewal: Renewal,
    reader: Reader,
    exposing: Option<Exposing>,
    multicluster: Option<Multicluster>,
    mcs: watch::Sender<Option<McsVersion>>,
    installing: install::Task,
    injector: Option<Injector>,
    standings: Standings,
    writes: watch::Sender<bool>,
    siblings: Option<Siblings>,
    following: Option<Following>,
    keeping: Option<Keeping>,
    source: watch::Sender<Source>,
    source_problems: watch::Sender<Vec<Problem>>,
    nodes: watch::Sender<Arc<locality::Nodes>>,
    checker: Checker,
    inputs: Inputs,
    outputs: Outputs,
    ages: Register,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
    listener: Option<Listener>,
    pods: Option<(PodListener, Doorkeeper)>,
    dns: Option<dns::Server>,
    admin: Option<TcpListener>,
    metrics: Arc<Metrics>,
    shown: Shown,
    view: watch::Sender<Arc<View>>,
    lock: Lock,
}

/// Binds everything that the agent listens on, and reads what it kept.
///
/// # Errors
/// A [`BuildError`]; each says what to do. The controller need not be there.
pub async fn build(config: Config, deps: Deps) -> Result<Bound, BuildError> {
    let data = DataDir::create(&config.data)?;
    let lock = data.lock()?;
    let (membership, intermediate) = data.joined()?;
    let authority = Arc::new(Authority::with(intermediate, config.pace, Arc::clone(&deps.clock)));
    let renewal =
        Renewal::start(Arc::clone(&authority), membership.clone(), data.clone(), Arc::clone(&deps.clock))?;
    let credentials = renewal.credentials();
    let connector =
        controller::connector(&membership.controller, &membership.ca_fingerprint, Some(&credentials))?;
    let cluster = membership.cluster.clone();
    let mut options = Options::new("/agent/v1/feed", "/agent/v1/ack");
    options.cache = Some(data.file(dns::kept::SNAPSHOT));
    options.validate = Arc::new(move |resources| synthesis::validate(resources, &cluster));
    let (feed, running) = Client::build(connector, options);

    let hub = Hub::new(config.hub, data.clone(), first_generation(&data, &deps.clock));
    let listener = config.gateway_socket.as_deref().map(Listener::bind).transpose()?;
    let metrics = Arc::new(Metrics::new("agent"));
    let zone = dns::ZoneWriter::new();
    data.write_json(dns::kept::ADDRESSES, &config.mode)?;
    let dns = match config.dns {
        None => None,
        Some(dns) => Some(dns::Server::bind(dns, zone.reader(), dns::Metrics::register(&metrics)).await?),
    };
    let admin = match config.admin {
        None => None,
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| BuildError::Admin { address, source })?)
        }
    };

    let (installed, found_installed) = watch::channel(install::Installed::default());
    let mut installing = None;
    let (mut exposing, mut injecting, mut keeper, mut own) = (None, None, None, None);
    let mut mcs_client = None;
    let (registries, allowed) = watch::channel(config.registries);
    let reader = match config.source {
        SourceConfig::Manifests(path) => {
            Reader::Directory(Box::new(Directory::new(path, Keeper::new(data.file("manifests")))))
        }
        SourceConfig::Kubernetes { cluster, expose, inject } => {
            let follows_mcs = cluster.mcs;
            let cluster = kubernetes::Watching::new(cluster, Arc::clone(&deps.clock)).await?;
            let clock = Arc::clone(&deps.clock);
            keeper = Some(Doorkeeper::new(cluster.client(), cluster.namespace().clone(), clock));
            installing = Some((cluster.client(), cluster.namespace().clone()));
            own = Some((cluster.client(), cluster.namespace().clone()));
            exposing = expose.then(|| (cluster.client(), cluster.namespace().clone()));
            mcs_client = follows_mcs.then(|| cluster.client());
            injecting = inject.map(|config| (config, cluster.client(), cluster.namespace().clone()));
            Reader::Kubernetes(Box::new(cluster))
        }
    };
    let pods = match (config.gateway_listen, keeper) {
        (None, _) => None,
        (Some(address), Some(keeper)) => Some((PodListener::bind(address, &credentials).await?, keeper)),
        (Some(_), None) => return Err(BuildError::NoApiServer),
    };
    let membership = Arc::new(membership);
    let (another_leads, others) = watch::channel(false);
    let (mut standings, mut siblings, mut following) = (Standings::alone(), None, None);
    let (view, _) = watch::channel(Arc::new(View::default()));
    if let Some(replica) = deps.replica {
        standings = Standings::new(replica.standing, others);
        following = replica.following;
        let port = pods.as_ref().map(|(listener, _)| listener.address().port());
        siblings =
            replica.token.zip(port).zip(own.as_ref()).map(|((token, port), (_, namespace))| Siblings {
                own: replica.name,
                namespace: namespace.clone(),
                port,
                token: TokenFile::new(token),
                membership: Arc::clone(&membership),
                view: view.subscribe(),
                snapshot: feed.state(),
                hub: Arc::clone(&hub),
                another_leads,
            });
    }
    let keeping = own.filter(|_| following.is_some()).map(|(client, namespace)| Keeping {
        client,
        namespace,
        file: data.file(dns::kept::SNAPSHOT),
        states: feed.state(),
        status: feed.status(),
    });
    let (left, multicluster_left) = watch::channel(None);
    let installing = match installing {
        Some((client, namespace)) => install::Task::Kubernetes(Box::new(Installing {
            client,
            namespace,
            snapshot: feed.state(),
            hub: Arc::clone(&hub),
            standings: standings.clone(),
            installed,
            registries,
            multicluster: mcs_client.is_some().then_some(multicluster_left),
        })),
        None => install::Task::Machine(feed.state(), installed),
    };
    let (exposure_problems, found_exposing) = watch::channel(Vec::new());
    let (exposed, exposures) = watch::channel(None);
    let exposing = match exposing {
        Some((client, namespace)) => {
            exposed.send_replace(Some(Arc::new(expose::apply::kept(&data))));
            Some(Exposing {
                client,
                namespace,
                snapshot: feed.state(),
                hub: Arc::clone(&hub),
                data: data.clone(),
                exposed,
                problems: exposure_problems,
            })
        }
        None => {
            data.remove(expose::FILE)?;
            None
        }
    };
    let (source, sources) = watch::channel(None);
    let (source_problems, found) = watch::channel(Vec::new());
    let (nodes, standing_nodes) = watch::channel(Arc::default());
    let (mcs, mcs_version) = watch::channel(None);
    let (mcs_problems, found_mcs) = watch::channel(Vec::new());
    let multicluster = mcs_client.map(|client| Multicluster {
        client,
        version: mcs_version,
        snapshot: feed.state(),
        view: sources.clone(),
        exposed: exposures.clone(),
        clock: Arc::clone(&deps.clock),
        problems: mcs_problems,
        left,
    });
    let (injection_problems, found_injecting) = watch::channel(Vec::new());
    let (writes, writing) = watch::channel(standings.own().writes());
    let injector = match injecting {
        None => None,
        Some((config, client, namespace)) => {
            let parts = inject::Parts {
                client,
                namespace,
                membership: Arc::clone(&membership),
                authority: Arc::clone(&authority),
                snapshot: feed.state(),
                view: view.subscribe(),
                registries: allowed,
                writes: writing,
                problems: injection_problems,
                clock: Arc::clone(&deps.clock),
            };
            Some(Injector::build(config, parts, &metrics).await?)
        }
    };
    let (checks, checker) = health::checks(config.health);
    let (inventory, inventories) = watch::channel(None);
    let (names, name_problems) = watch::channel(Vec::new());
    let reporting = Reporting {
        snapshot: feed.state(),
        source: found,
        nodes: standing_nodes,
        exposing: found_exposing,
        multicluster: found_mcs,
        signs: authority.watch(),
        installed: found_installed,
        injecting: found_injecting,
        names: name_problems,
        certificates: renewal.problem(),
        state: following.as_ref().map(Following::problem).unwrap_or_default(),
        hub: Arc::clone(&hub),
    };
    let shown = Shown {
        membership: Arc::clone(&membership),
        snapshot: feed.state(),
        feed: feed.status(),
        source: sources.clone(),
        checks: checks.results.clone(),
        inventory: inventories,
        hub: Arc::clone(&hub),
        authority: Arc::clone(&authority),
        reporting,
    };
    metrics.with(|registry| registry.register_collector(Box::new(shown.clone())));
    let inputs = Inputs {
        snapshot: feed.state(),
        source: sources,
        checks,
        hub: Arc::clone(&hub),
        mode: config.mode,
        exposed: exposures,
        clock: deps.clock,
    };
    let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
    Ok(Bound {
        dns: dns.as_ref().map(dns::Server::address),
        admin: admin_address,
        webhook: injector.as_ref().map(Injector::address),
        gateway_socket: config.gateway_socket,
        gateways: pods.as_ref().map(|(listener, _)| listener.address()),
        membership,
        parts: Parts {
            feed,
            running,
            renewal,
            reader,
            exposing,
            multicluster,
            mcs,
            installing,
            injector,
            standings,
            writes,
            siblings,
            following,
            keeping,
            source,
            source_problems,
            nodes,
            checker,
            inputs,
            outputs: Outputs { zone, inventory, problems: names },
            ages: Register::open(data),
            hub,
            authority,
            listener,
            pods,
            dns,
            admin,
            metrics,
            shown,
            view,
            lock,
        },
    })
}

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked.
    Stopped(Drained),
    /// A part that must run failed; the log says which.
    Failed,
}

impl Bound {
    /// Runs until `stop`, then drains: no more questions are taken, the gateways are told goodbye and go on from
    /// their last state. Nothing is withdrawn.
    pub async fn run(self, stop: impl Future<Output = ()>, deadline: Duration) -> Ended {
        let (drain, watch) = drain::channel();
        let membership = Arc::clone(&self.membership);
        let (mut running, _lock) = self.parts.start(&membership, &drain);
        drop(watch);
        let failed = tokio::select! {
            () = stop => false,
            () = running.first_end() => true,
        };
        let drained = drain.drain(deadline).await;
        if failed { Ended::Failed } else { Ended::Stopped(drained) }
    }
}

/// The tasks of a running agent; they end with it.
struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, task::spawn(name, work)));
    }

    /// Waits until one ends, which none should.
    async fn first_end(&mut self) {
        let all = self.0.iter_mut().map(|(_, handle)| handle);
        let (_, which, _) = futures::future::select_all(all).await;
        let name = self.0.get(which).map_or("", |(name, _)| name);
        tracing::error!(task.name = name, "a part of the agent ended; the agent ends, to be started again");
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, handle)| handle.abort());
    }
}

impl Parts {
    fn start(self, membership: &Arc<Membership>, drain: &Drain) -> (Tasks, Lock) {
        let mut tasks = Tasks(Vec::new());
        let requests = self.feed.requests();
        // These two end in order once the draining begins, and hold it up until then.
        if let Some(dns) = self.dns {
            let stop = drain.watch();
            tasks.spawn("dns", async move { dns.run(stop.signaled()).await });
        }
        let context = gateways::Context {
            hub: Arc::clone(&self.hub),
            authority: Arc::clone(&self.authority),
            membership: Arc::clone(membership),
            view: self.view.subscribe(),
            standings: self.standings.clone(),
            reading: gateways::Reading::default(),
            stop: drain.watch(),
        };
        if let Some((listener, keeper)) = self.pods {
            tasks.spawn("gateways in pods", listener.run(context.clone(), keeper));
        }
        if let Some(listener) = self.listener {
            tasks.spawn("gateways", listener.run(context));
        } else {
            drop(context);
        }
        let readiness = Readiness::new();
        if let Some(listener) = self.admin {
            let routes = self.shown.routes();
            task::spawn(
                "admin",
                admin::serve(listener, self.metrics, readiness.clone(), routes, drain.watch()),
            );
        }
        tasks.spawn("feed", self.running.run());
        let snapshot = self.feed.state();
        tasks.spawn("certificates", {
            let (requests, snapshot) = (requests.clone(), snapshot.clone());
            let resources = move || Arc::clone(&snapshot.borrow().resources);
            self.renewal.run(requests, resources, self.standings.clone())
        });
        tasks.spawn("gateway expiry", Arc::clone(&self.hub).expire(self.view.subscribe()));
        let told = Told {
            source: self.source,
            view: self.view,
            problems: self.source_problems,
            nodes: self.nodes,
            mcs: self.mcs,
        };
        tasks.spawn("source", read_source(self.reader, told));
        if let Some(exposing) = self.exposing {
            tasks.spawn("exposing", exposing.run(self.standings.clone()));
        }
        if let Some(multicluster) = self.multicluster {
            let work = move || multicluster.clone().run();
            tasks.spawn("multicluster", self.standings.clone().while_writing(work));
        }
        tasks.spawn("installing", self.installing.run());
        if let Some(injector) = self.injector {
            let stop = drain.watch();
            tasks.spawn("injector", async move { injector.run(stop).await });
        }
        tasks.spawn("health", self.checker.run());
        tasks.spawn("standing", self.standings.clone().tell(self.writes));
        if let Some(siblings) = self.siblings {
            tasks.spawn("replicas", siblings.run());
        }
        if let Some(following) = self.following {
            tasks.spawn("membership", following.run());
        }
        if let Some(keeping) = self.keeping {
            let work = self.standings.clone().while_writing(move || keeping.clone().run());
            tasks.spawn("kept snapshot", work);
        }
        report(&mut tasks, &requests, &self.outputs, self.shown.reporting, &self.standings);
        tasks.spawn("engine", engine::run(self.inputs, self.outputs, self.ages));
        tasks.spawn("readiness", ready(readiness, snapshot, self.feed.status()));
        (tasks, self.lock)
    }
}

fn report(
    tasks: &mut Tasks,
    requests: &Requests,
    outputs: &Outputs,
    reporting: Reporting,
    standings: &Standings,
) {
    let (to, inventory) = (requests.clone(), outputs.inventory.subscribe());
    // Whoever begins to speak begins with all of it.
    let whole = move || Reporter::new(new_epoch(&mut rand::rng())).run(to.clone(), inventory.clone());
    tasks.spawn("inventory", standings.clone().while_speaking(whole));
    let to = requests.clone();
    tasks.spawn("status", standings.clone().while_speaking(move || reporting.clone().run(to.clone())));
}

/// Where what the source says goes.
struct Told {
    source: watch::Sender<Source>,
    view: watch::Sender<Arc<View>>,
    problems: watch::Sender<Vec<Problem>>,
    nodes: watch::Sender<Arc<locality::Nodes>>,
    mcs: watch::Sender<Option<McsVersion>>,
}

async fn read_source(reader: Reader, told: Told) {
    let mut index = Index::default();
    let sink = move |batch: Batch| {
        let mut changed = false;
        for change in batch.changes {
            changed |= index.change(change);
        }
        changed |= index.set_mcs(batch.mcs.is_some());
        told.nodes.send_if_modified(|nodes| {
            let differs = **nodes != *index.nodes();
            if differs {
                *nodes = Arc::new(index.nodes().clone());
            }
            differs
        });
        told.problems.send_replace(batch.problems);
        told.mcs.send_if_modified(|version| {
            let differs = *version != batch.mcs;
            *version = batch.mcs;
            differs
        });
        // after it: once the source was read, it is known whether there is an API of that kind
        if batch.read && (changed || told.source.borrow().is_none()) {
            let now = Arc::new(index.view());
            told.view.send_replace(Arc::clone(&now));
            told.source.send_replace(Some(now));
        }
    };
    reader.run(sink).await;
}

/// How long the controller may take to say whether a kept snapshot still stands.
const CONFIRMED: Duration = Duration::from_secs(5);

/// Ready once there is a snapshot to serve: the controller's, or a kept one where the controller does not answer. A replica
/// that is new must not answer from what was kept a while ago while others know better.
async fn ready(
    readiness: Readiness,
    mut snapshot: watch::Receiver<Arc<tombolo_feed::State<ClusterResource>>>,
    mut feed: watch::Receiver<tombolo_feed::Status>,
) {
    readiness.set_not_ready("no snapshot from the controller yet");
    if snapshot.wait_for(|state| state.generation.get() > 0).await.is_ok() {
        let confirmed = feed.wait_for(|status| !status.from_cache);
        let _ = tokio::time::timeout(CONFIRMED, confirmed).await;
        readiness.set_ready();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
