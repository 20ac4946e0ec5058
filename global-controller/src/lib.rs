//! The global controller: stores what organizations ask for in Postgres, signs their clusters' CAs, and tells every
//! cluster's agent what it must know.
//!
//! `http -> app -> store | ca | reconcile`: `http` never sees SQL, `store` never sees axum. `reconcile` keeps `publish`, this
//! replica's view of every organization, true to the database; `agent_api` feeds agents from there. Any number of replicas
//! run on one database, and none is special.

mod agent_api;
mod agreed;
mod app;
mod bootstrap;
mod ca;
pub mod config;
mod http;
mod json;
mod metrics;
mod postgres;
pub mod publish;
mod reconcile;
pub mod sequence;
mod store;
mod tls;
mod vips;

pub use config::Config;

use anyhow::Context as _;
use config::{Database, Tls, host_of};
use sqlx::postgres::PgConnectOptions;
use std::{net::SocketAddr, str::FromStr as _, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};
use tombolo_mtls::{Secret, optional_server_config};
use tombolo_runtime::{
    admin::{self, Readiness, Routes},
    clock::Clock,
    drain,
    metrics::Metrics,
    places::Places,
    task,
};
use uuid::Uuid;

/// Database connections of one replica.
const CONNECTIONS: u32 = 20;

/// How long open requests may take once the controller ends.
const DRAIN: Duration = Duration::from_secs(10);

/// What the controller takes from outside.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A running controller.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens.
    pub api: SocketAddr,
    /// The admin port, where there is one.
    pub admin: Option<SocketAddr>,
    /// How others reach it.
    pub public_url: String,
    /// What agents and the command line pin: `sha256:<hex>`.
    pub ca_fingerprint: String,
    /// The owner's token, where this start was the first and no file was asked for. To be shown once.
    pub owner_token: Option<Secret>,
    drain: drain::Drain,
    readiness: Readiness,
    tasks: Vec<JoinHandle<()>>,
    store: store::Store,
    postgres: Option<postgres::Embedded>,
}

impl Bound {
    /// Ends in order: no new connections, open requests to their end, feeds with a goodbye; then the database.
    pub async fn drain(self) {
        self.readiness.set_not_ready("ending");
        if let drain::Drained::Cut(left) = self.drain.drain(DRAIN).await {
            tracing::warn!(left, "not everything ended in time");
        }
        for task in self.tasks {
            // a panic was logged where it happened
            let _ = task.await;
        }
        self.store.close().await;
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}

/// Opens everything, binds, and serves. Returns once it is ready.
///
/// # Errors
/// Whatever keeps it from being ready, with what to do.
pub async fn build(config: Config, deps: Deps) -> anyhow::Result<Bound> {
    let (options, postgres) = match &config.database {
        Database::Private(bin) => {
            let postgres = postgres::Embedded::start(&config.data, bin.clone()).await?;
            (postgres.options(), Some(postgres))
        }
        Database::Url(url) => (PgConnectOptions::from_str(url).context("read the database's URL")?, None),
    };
    let store = store::Store::open(options.application_name("tombolo-controller"), CONNECTIONS)
        .await
        .context("open the database")?;
    let agreed = agreed::Agreed::new(deps.clock, &store).await.context("ask the database what time it is")?;
    let clock: Arc<dyn Clock> = agreed.clone();
    let installation = bootstrap::installation(&store, &config, clock.now()).await?;

    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let api = listener.local_addr().context("learn where we listen")?;
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("https://{}", reachable(api)));
    let certificate = match &config.tls {
        Tls::Own(names) => {
            let names = tls_names(names, &public_url, api);
            tls::Certificate::own(installation.authority, names, clock.now())?
        }
        Tls::Files(chain, key) => tls::Certificate::files(chain.clone(), key.clone())?,
    };
    let ca_fingerprint = certificate.pin();

    let metrics = Arc::new(Metrics::new("controller"));
    let (drain, watch) = drain::channel();
    let view = publish::View::new();
    let agent_metrics = metrics::Agents::new(&metrics);
    let liveness =
        reconcile::Liveness::new(Uuid::now_v7(), Arc::clone(&clock), agent_metrics.lag_seconds.clone());
    let driver = reconcile::Driver {
        commits: reconcile::Commits::default(),
        store: store.clone(),
        view: view.clone(),
        liveness: Arc::clone(&liveness),
        pools: config.pools,
        clock: Arc::clone(&clock),
        metrics: metrics::Reconciled::new(&metrics),
    };
    driver.first().await.context("read what is stored")?;

    let app = Arc::new(app::Deps {
        store: store.clone(),
        ca: installation.vault,
        clock: Arc::clone(&clock),
        view: view.clone(),
        public_url: public_url.clone(),
        ca_fingerprint: ca_fingerprint.clone(),
        image_registry: config.image_registry,
        image_version: config.image_version,
        vip_pools: config.pools.texts(),
        root_overlap: config.root_overlap,
        followers: Places::new(app::FOLLOWERS),
        stop: drain.watch(),
    });
    let agents = agent_api::Agent {
        deps: Arc::clone(&app),
        liveness: Arc::clone(&liveness),
        metrics: agent_metrics,
        joins: agent_api::join_limiter(),
        door: Arc::default(),
        allow_loopback: config.allow_loopback_gateways,
        stop: drain.watch(),
    };
    let server = tls::Server {
        tls: optional_server_config(
            Arc::new(view.clone()),
            Arc::new(certificate.live()),
            &[b"h2", b"http/1.1"],
        ),
        app: http::router(app).merge(agent_api::router(agents)),
        metrics: metrics::Listener::new(&metrics),
        limits: config.limits,
    };

    let readiness = Readiness::new();
    let mut tasks = vec![
        task::spawn("reconcile", driver.run(drain.watch())),
        task::spawn("clock", agreed.follow(store.clone(), drain.watch())),
        task::spawn("liveness", liveness.run(store.clone(), drain.watch())),
        task::spawn(
            "expire",
            reconcile::expire(store.clone(), certificate, Arc::clone(&clock), drain.watch()),
        ),
        task::spawn(
            "rotate",
            reconcile::rotate::run(store.clone(), config.root_overlap, clock, drain.watch()),
        ),
        task::spawn("pool metrics", pool_metrics(store.clone(), metrics::Pool::new(&metrics), drain.watch())),
        task::spawn("https", server.run(listener, drain.watch())),
    ];
    let admin = match config.admin {
        Some(address) => {
            let listener =
                TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
            let bound = listener.local_addr().context("learn where the admin port is")?;
            let served = admin::serve(listener, metrics, readiness.clone(), routes(view), drain.watch());
            tasks.push(task::spawn("admin", served));
            Some(bound)
        }
        None => None,
    };
    drop(watch);
    readiness.set_ready();
    tracing::info!(%api, public_url, ca_fingerprint, "the controller is ready");
    let owner_token = installation.owner_token;
    Ok(Bound {
        api,
        admin,
        public_url,
        ca_fingerprint,
        owner_token,
        drain,
        readiness,
        tasks,
        store,
        postgres,
    })
}

/// What the admin port shows beside metrics and health.
fn routes(view: publish::View) -> Routes {
    Routes::new().get("/view", "what this replica holds of every organization", move |_| {
        admin::Answer::json(&view.dump())
    })
}

/// An address that a client on this machine can dial.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => [127, 0, 0, 1].into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// What the server certificate is for: what was asked for, and what is obvious.
fn tls_names(asked: &[String], public_url: &str, api: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = asked.to_vec();
    names.extend(host_of(public_url));
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.push(reachable(api).ip().to_string());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    // a host's name may have characters that no certificate takes
    names.extend(host.filter(|name| tombolo_model::AccountName::parse(name).is_ok()));
    names.sort();
    names.dedup();
    names
}

async fn pool_metrics(store: store::Store, metrics: metrics::Pool, stop: drain::Watch) {
    let mut tick = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            biased;
            () = stop.signaled() => return,
            _ = tick.tick() => {}
        }
        metrics.open.set(store.pool().size().into());
        metrics.idle.set(i64::try_from(store.pool().num_idle()).unwrap_or(i64::MAX));
    }
}

/// The OpenAPI document of the REST API, as it is served.
#[must_use]
pub fn openapi() -> String {
    http::document()
}
