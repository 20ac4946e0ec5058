//! An agent with everything bound.

use super::{BuildError, Config, Deps, SourceConfig, parts::Parts, source::Reader};
use crate::{
    admin::Shown,
    certificate::{Authority, Renewal},
    controller, dns,
    engine::{Engine, Inputs, Outputs},
    expose::{self, apply::Exposing},
    gateways::{Doorkeeper, Hub, Listener, PodListener, Siblings, first_generation},
    health,
    index::View,
    inject::{self, Injector},
    install::{self, Installing},
    lease::Standings,
    mcs::apply::Multicluster,
    pod::{Following, snapshot::Keeping},
    source::{directory::Directory, keeper::Keeper, kubernetes},
    state::{DataDir, Membership},
    status::Reporting,
    synthesis,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{net::TcpListener, sync::watch};
use tombolo_feed::{Client, Options, TokenFile};
use tombolo_runtime::metrics::Metrics;

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
    pub(super) parts: Parts,
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
    data.keep_json(dns::kept::ADDRESSES, &config.mode)?;
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
            installing =
                Some((cluster.client(), cluster.namespace().clone(), cluster.vips(), cluster.priority()));
            own = Some((cluster.client(), cluster.namespace().clone()));
            exposing = expose.then(|| (cluster.client(), cluster.namespace().clone()));
            mcs_client = follows_mcs.then(|| cluster.client());
            injecting = inject.map(|config| (*config, cluster.client(), cluster.namespace().clone()));
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
    // Elsewhere there are no capture modes.
    let namespaces = own.is_some().then(|| view.subscribe());
    let keeping = own.filter(|_| following.is_some()).map(|(client, namespace)| Keeping {
        client,
        namespace,
        file: data.file(dns::kept::SNAPSHOT),
        states: feed.state(),
        status: feed.status(),
    });
    let (left, multicluster_left) = watch::channel(None);
    let (injected, injection) = watch::channel(inject::Injection::default());
    let installing = match installing {
        Some((client, namespace, vips, priority)) => install::Task::Kubernetes(Box::new(Installing {
            injection: injecting.is_some().then_some(injection),
            client,
            namespace,
            vips,
            priority,
            never_dial: config.never_dial,
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
                injection: injected,
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
        namespaces,
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
            engine: Engine::new(data),
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
