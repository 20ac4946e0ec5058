//! Two or more clusters in one process, with real sockets and TLS, and snapshots given by hand.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tombolo_gateway::{
    accesslog::{AccessLog, Target},
    config::Config,
    error::Refusal,
    inbound,
    metrics::Metrics,
    outbound::{self, Accepted},
    state::Shared,
};
use tombolo_model::{
    ClusterName, GatewayRole, GlobalName, Locality, Proximity, SpiffeId,
    inventory::{PortSpec, Protocol},
    snapshot::{
        EndToEnd, EndpointSpec, ExportPort, ExportSpec, GatewayResource, PeerSpec, Resource as _, RouteSpec,
        RouteTarget, SelfSpec, WorkloadSpec,
    },
};
use tombolo_runtime::{clock::SystemClock, drain, task};
use tombolo_testkit::ca::{Cluster, Organization};

pub(crate) const NAME: &str = "catalog.acme.example.com";
pub(crate) const PORT: u16 = 8082;
pub(crate) const VIP: &str = "240.0.0.7";
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A gateway process, without the process.
pub(crate) struct Gateway {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tunnel: SocketAddr,
    pub(crate) drain: Option<drain::Drain>,
    pub(crate) cluster: ClusterName,
    log: PathBuf,
    tasks: Mutex<Vec<AbortHandle>>,
    _dir: tempfile::TempDir,
}

impl Gateway {
    pub(crate) async fn start(role: GatewayRole, cluster: &Cluster, tweak: impl FnOnce(&mut Config)) -> Self {
        let started = Self::bare(role, cluster, tweak).await;
        started.shared.credentials.set_own(cluster.credentials(&cluster.gateway(role)));
        started
    }

    /// One that has no certificate yet.
    pub(crate) async fn bare(role: GatewayRole, cluster: &Cluster, tweak: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tunnel = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let mut config = Config::new(role, format!("{role}-{}", cluster.name), tunnel);
        // one is there and is counted; `balanced` has several
        config.limits.pool_spread = 1;
        tweak(&mut config);
        let access = AccessLog::open(Target::File(log.clone())).unwrap();
        let shared = Shared::new(config, Metrics::new(), access, Arc::new(SystemClock));
        shared.set_tunnel(tunnel);
        let (drain, watch) = drain::channel();
        let server = task::spawn("server", inbound::serve(listener, shared.clone(), watch));
        Self {
            shared,
            tunnel,
            drain: Some(drain),
            cluster: cluster.name.clone(),
            log,
            tasks: Mutex::new(vec![server.abort_handle()]),
            _dir: dir,
        }
    }

    /// Whole lines of the access log: the last one may be on its way.
    pub(crate) fn log(&self) -> Vec<Value> {
        assert!(self.shared.log.flush(LONG));
        let text = std::fs::read_to_string(&self.log).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the log has this many lines, and gives the last.
    pub(crate) async fn line(&self, count: usize) -> Value {
        let look = || async { self.log() };
        let lines =
            tombolo_testkit::wait::until("access log", LONG, look, |lines| lines.len() >= count).await;
        lines.last().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What a failed test saw, in place of a debugger.
            eprintln!("{} in {}: {:#?}", self.shared.config.role, self.cluster, self.log());
        }
        self.shared.stop();
        self.tasks.lock().unwrap().iter().for_each(AbortHandle::abort);
    }
}

/// What a cluster of the fixture is made of.
pub(crate) struct Site {
    pub(crate) ca: Cluster,
    pub(crate) egress: Gateway,
    pub(crate) ingress: Gateway,
    pub(crate) sidecar: Gateway,
    /// Applications here, by address.
    pub(crate) endpoints: Vec<SocketAddr>,
}

pub(crate) struct World {
    pub(crate) org: Organization,
    pub(crate) sites: BTreeMap<&'static str, Site>,
    pub(crate) spec: Spec,
}

/// What the snapshots say, for tests to change.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) callers: BTreeSet<ClusterName>,
    pub(crate) end_to_end: EndToEnd,
    /// Whether endpoints have a sidecar.
    pub(crate) tunnelled: bool,
    /// Whether the sidecars of endpoints say that they are about to end.
    pub(crate) leaving: bool,
    /// Clusters whose endpoints have none all the same.
    pub(crate) plain: BTreeSet<ClusterName>,
    /// The accounts that may answer.
    pub(crate) account: &'static str,
    pub(crate) proximity: BTreeMap<ClusterName, Proximity>,
    /// Where egress gateways take connections to the name from those without a proxy.
    pub(crate) captured_at: Option<u16>,
    /// Addresses of ingress gateways, where they are not the true ones.
    pub(crate) ingress: BTreeMap<ClusterName, BTreeSet<String>>,
}

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}
pub(crate) fn service() -> GlobalName {
    GlobalName::parse(NAME).unwrap()
}

impl World {
    /// Clusters with these names; the first is the caller's.
    pub(crate) async fn new(names: &[&'static str]) -> Self {
        Self::with(names, |_| {}).await
    }

    pub(crate) async fn with(names: &[&'static str], tweak: impl Fn(&mut Config)) -> Self {
        let mut org = Organization::new("acme.tombolo.internal");
        let mut sites = BTreeMap::new();
        for name in names {
            let ca = org.join(name);
            let egress = Gateway::start(GatewayRole::Egress, &ca, &tweak).await;
            let ingress = Gateway::start(GatewayRole::Ingress, &ca, &tweak).await;
            let sidecar = Gateway::start(GatewayRole::Sidecar, &ca, &tweak).await;
            for account in ["shopping", "catalog"] {
                sidecar.shared.credentials.insert(ca.credentials(&ca.workload("default", account)));
            }
            sites.insert(*name, Site { ca, egress, ingress, sidecar, endpoints: Vec::new() });
        }
        let spec = Spec {
            callers: names.iter().map(|name| cluster(name)).collect(),
            end_to_end: EndToEnd::All,
            tunnelled: true,
            leaving: false,
            plain: BTreeSet::new(),
            account: "catalog",
            proximity: BTreeMap::new(),
            captured_at: None,
            ingress: BTreeMap::new(),
        };
        Self { org, sites, spec }
    }

    /// An application in a cluster: `serve` gets each connection.
    pub(crate) async fn app<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        site: &str,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        task::spawn("app", async move {
            while let Ok((stream, _)) = listener.accept().await {
                task::spawn("app-connection", serve(stream));
            }
        });
        self.sites.get_mut(site).unwrap().endpoints.push(address);
        address
    }

    /// Gives every gateway its snapshot.
    pub(crate) fn publish(&self) {
        // Those who take come before those who probe them: nobody knocks where the trust bundle is not known yet, and each line of a log is a
        // call's.
        let roles: [fn(&Site) -> &Gateway; 3] =
            [|site| &site.ingress, |site| &site.egress, |site| &site.sidecar];
        for gateway in roles {
            for (name, site) in &self.sites {
                gateway(site).shared.apply(&self.resources(name)).unwrap();
            }
        }
    }

    pub(crate) fn resources(
        &self,
        name: &str,
    ) -> BTreeMap<tombolo_model::snapshot::ResourceKey, GatewayResource> {
        let site = &self.sites[name];
        let itself = SelfSpec {
            cluster: site.ca.name.clone(),
            trust_domain: self.org.trust_domain.clone(),
            locality: Locality::default(),
        };
        let mut all = vec![
            GatewayResource::Itself(itself.into()),
            GatewayResource::Bundle(self.org.bundle_spec().into()),
            GatewayResource::Gateways { egress: BTreeSet::from([site.egress.tunnel]).into() },
            GatewayResource::Workload(
                WorkloadSpec {
                    identity: site.ca.workload("default", "shopping"),
                    selectors: BTreeSet::new(),
                }
                .into(),
            ),
        ];
        let proximity =
            |cluster: &ClusterName| self.spec.proximity.get(cluster).copied().unwrap_or(Proximity::Elsewhere);
        for other in self.sites.values().filter(|other| other.ca.name != site.ca.name) {
            let ingress = [other.ingress.tunnel.to_string()].into();
            all.push(GatewayResource::Peer(
                PeerSpec {
                    cluster: other.ca.name.clone(),
                    proximity: proximity(&other.ca.name),
                    ingress: self.spec.ingress.get(&other.ca.name).cloned().unwrap_or(ingress),
                }
                .into(),
            ));
        }
        let target = |at: &Site| RouteTarget {
            cluster: at.ca.name.clone(),
            proximity: proximity(&at.ca.name),
            ports: [PORT].into(),
            ready: at.endpoints.len() as u32,
            end_to_end: self.spec.end_to_end,
            identities: [at.ca.workload("default", self.spec.account)].into(),
        };
        all.push(GatewayResource::Route(
            RouteSpec {
                name: service(),
                addresses: [VIP.parse::<IpAddr>().unwrap()].into(),
                ports: vec![PortSpec { port: PORT, protocol: Protocol::Tcp, name: None, app_protocol: None }]
                    .into(),
                captured_at: self.spec.captured_at.map(|at| (PORT, at)).into_iter().collect(),
                targets: self.sites.values().filter(|at| !at.endpoints.is_empty()).map(target).collect(),
            }
            .into(),
        ));
        let tunnelled = self.spec.tunnelled && !self.spec.plain.contains(&site.ca.name);
        let endpoint = |address: &SocketAddr| EndpointSpec {
            address: (*address).into(),
            ready: true,
            tunnel: tunnelled.then(|| site.sidecar.tunnel.into()),
            leaving: self.spec.leaving,
            identity: Some(site.ca.workload("default", "catalog")),
        };
        if !site.endpoints.is_empty() {
            all.push(GatewayResource::Export(
                ExportSpec {
                    name: service(),
                    callers: (&self.spec.callers).into(),
                    ports: vec![ExportPort {
                        port: PORT,
                        endpoints: site.endpoints.iter().map(endpoint).collect(),
                    }]
                    .into(),
                }
                .into(),
            ));
        }
        all.into_iter().map(|resource| (resource.key(), resource)).collect()
    }

    /// A connection as an application of this cluster makes it.
    pub(crate) async fn call(&self, site: &str) -> TcpStream {
        let site = &self.sites[site];
        self.call_as(&site.sidecar, Ok(site.ca.workload("default", "shopping"))).await
    }

    pub(crate) async fn call_as(&self, sidecar: &Gateway, source: Result<SpiffeId, Refusal>) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, client_address) = accepted.unwrap();
        // as of a listener of ours
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_nodelay(true).unwrap();
        socket.set_tcp_notsent_lowat(256 << 10).unwrap();
        let original = SocketAddr::new(VIP.parse().unwrap(), PORT);
        let shared = sidecar.shared.clone();
        sidecar.shared.config.lanes.serve(stream, move |stream| {
            outbound::serve(Accepted { stream, client: client_address, original, source }, shared)
        });
        client.unwrap()
    }
}

/// Sends back what comes, until the end.
pub(crate) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Writes a request, ends its side, and reads to the end.
pub(crate) async fn ask(mut stream: TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}
