//! The caller's side: a captured connection of an application goes into a tunnel to this cluster's egress gateway,
//! and where the server's side has a sidecar too, a TLS session between the two workloads runs inside.

use crate::{
    accesslog::{Direction, Record, Tls},
    budget::Who,
    carry::Journey,
    choose::{self, Candidate},
    conns::{Kind, Ticket},
    copy::{
        any::AnyEnd,
        stream::StreamEnd,
        tcp::TcpEnd,
        tls::{StreamIo, TlsEnd},
    },
    error::Refusal,
    head::{Answer, Connect, Destination, Inner},
    load::Load,
    pool::Key,
    race::{self, Verdict},
    reason::Reason,
    socket,
    state::{Shared, egress_key},
    table::{Route, RouteTable},
    trace::Trace,
    tunnel::Tunnel,
};
use rustls_pki_types::ServerName;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tombolo_model::{ClusterName, Proximity, SpiffeId, snapshot::EndToEnd};
use tombolo_mtls::{Credentials, Expect, client_config};
use tombolo_runtime::places::Source;

/// The protocol of the workloads' own sessions in TLS (ALPN).
pub const INNER_ALPN: &[u8] = b"tombolo/1";

/// How much later than an egress gateway this one may hear of a cluster.
const MOMENT: Duration = Duration::from_millis(500);

/// A captured connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// Where the application is.
    pub client: SocketAddr,
    /// What it dialled.
    pub original: SocketAddr,
    /// Which workload it is.
    pub source: Result<SpiffeId, Refusal>,
}

/// The path of a connection, open.
struct Path {
    end: AnyEnd,
    _load: Load<Arc<str>>,
}

/// Serves a captured connection to its end. A refused one is reset.
///
/// Dropping the future closes the connection.
pub async fn serve(accepted: Accepted, shared: Arc<Shared>) {
    let Accepted { stream, client, original, source } = accepted;
    let number = shared.conns.number();
    let mut record = Record::new(shared.clock.now(), shared.config.role, number, Direction::Outbound);
    record.client = Some(client);
    record.original = Some(original);
    let trace = Trace::fresh();
    record.trace = trace.to_string();
    let mut journey = Journey::begin(&shared, record);
    let ticket = match shared.conns.admit(Kind::Connection, number) {
        Ok(ticket) => ticket,
        Err(refusal) => {
            journey.refused(refusal);
            return socket::refuse(stream);
        }
    };
    let who = match &source {
        Ok(source) => Who::Identity(source.clone()),
        Err(_) => Who::Address(Source::of(client.ip())),
    };
    let mut waiting = shared.budget.connection(who, &ticket);
    let path = tokio::select! {
        biased;
        reason = ticket.ended() => Err(Refusal::new(reason, "before the path was open")),
        // Boxed: what opening needs goes when it is done, and the connection may last.
        path = Box::pin(timeout(
            shared.config.timing.open,
            open(&shared, &ticket, &mut journey.record, source, original, trace),
        )) => path.unwrap_or_else(|_| Err(Refusal::new(Reason::Timeout, "the path did not open in time"))),
    };
    match path {
        Ok(mut path) => {
            journey.opened(&ticket);
            journey.carry(&ticket, &mut waiting, &mut TcpEnd::accepted(stream), &mut path.end).await;
        }
        Err(refusal) => {
            journey.refused(refusal);
            socket::refuse(stream);
        }
    }
}

async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    source: Result<SpiffeId, Refusal>,
    original: SocketAddr,
    trace: Trace,
) -> Result<Path, Refusal> {
    let address = original.ip().to_canonical();
    let table = shared.table.load_full();
    let route = table.route_to(address);
    record.name = route.map(|route| route.name.clone());
    record.port = Some(original.port());
    let source = source?;
    record.source = Some(source.clone());
    record.source_verified = true;
    let route = route.filter(|route| route.ports.contains(&original.port())).ok_or_else(|| {
        Refusal::new(Reason::NoRoute, format!("no imported name has the address and port {original}"))
    })?;
    let credentials = certified(shared, &table, &source).await?;
    let connect = Connect {
        destination: Destination::Service(route.name.clone(), original.port()),
        source: None,
        trace,
        inner: Inner::Offered,
    };
    let (stream, answer, tunnel, load) =
        through_egress(shared, &table, record, &credentials, &connect).await?;
    record.peer = Some(tunnel.peer.id.clone());
    record.next_peer = Some(tunnel.peer.id.clone());
    record.upstream = Some(tunnel.address.to_string());
    record.cluster = Some(answer.cluster.clone());
    record.tls = Some(tunnel.tls);
    ticket.relies_on(&tunnel.peer, shared.bundle.get().as_deref())?;
    ticket.relies_on_cluster(&answer.cluster);
    let table = table_with(shared, address, &answer.cluster).await.unwrap_or(table);
    let route = table.route_to(address).ok_or_else(|| {
        Refusal::new(Reason::NoRoute, format!("the name of {original} is gone since the call began"))
    })?;
    let end = inside(shared, ticket, record, route, &credentials, stream, &answer).await?;
    ticket.check(&shared.table.load(), shared.bundle.get().as_deref())?;
    Ok(Path { end, _load: load })
}

/// The caller's certificate. A workload that starts together with its proxy, or its pod on a node, calls before the first one is there.
async fn certified(shared: &Shared, table: &RouteTable, source: &SpiffeId) -> Result<Credentials, Refusal> {
    let missing = |what: &str| Refusal::new(Reason::NoCredentials, what.to_owned());
    let late = || missing(&format!("no certificate for {source} came in time"));
    let credentials = match shared.credentials.get(source) {
        Some(credentials) => credentials,
        None if table.workloads().contains_key(source) => {
            let waited = timeout(shared.config.timing.handshake, shared.credentials.wait(source)).await;
            waited.ok().flatten().ok_or_else(late)?
        }
        None => return Err(missing(&format!("this gateway has no certificate for {source}"))),
    };
    match timeout(shared.config.timing.handshake, credentials.wait_ready()).await {
        Ok(_) => Ok(credentials),
        Err(_) => Err(late()),
    }
}

/// The first table, of now and of the moment after, by which that cluster serves the address. The egress gateway that chose it and this gateway
/// hear of a cluster from the same agent, but not in the same instant: it may be ahead.
async fn table_with(shared: &Shared, address: IpAddr, cluster: &ClusterName) -> Option<Arc<RouteTable>> {
    let serves =
        |table: &RouteTable| table.route_to(address).is_some_and(|route| route.target(cluster).is_some());
    let mut changed = shared.changed();
    let found = async {
        loop {
            let table = shared.table.load_full();
            if serves(&table) {
                return Some(table);
            }
            changed.changed().await.ok()?;
        }
    };
    timeout(MOMENT, found).await.ok().flatten()
}

type Opened = (StreamEnd, Answer, Arc<Tunnel>, Load<Arc<str>>);

/// Opens a stream through one of this cluster's egress gateways.
async fn through_egress(
    shared: &Shared,
    table: &RouteTable,
    record: &mut Record,
    credentials: &Credentials,
    connect: &Connect,
) -> Result<Opened, Refusal> {
    let Some(itself) = table.itself() else {
        return Err(Refusal::new(Reason::NoRoute, "there is no snapshot yet"));
    };
    shared.call();
    let key = |address: &SocketAddr| egress_key(credentials.id(), &itself.cluster, *address);
    let keys: Vec<Key> = table.egress().iter().map(key).collect();
    let share = |key: &Key| shared.egress_health.share(&key.cluster, &key.address);
    let candidate = |key: &Key| Candidate {
        proximity: Proximity::Cluster,
        weight: 1,
        share: share(key),
        refused: shared.pool.failed_lately(key),
        load: shared.gateway_loads.of(&key.address),
    };
    let candidates: Vec<Candidate> = keys.iter().map(candidate).collect();
    let mut order = choose::order(&candidates, &mut rand::random::<f64>);
    // Behind those that live, the dead: a probe may have been wrong.
    order.extend((0..keys.len()).filter(|at| candidates[*at].share == 0.0));
    let groups = order.into_iter().map(|at| [at].into()).collect();
    // The attempt that began last, once it has a tunnel.
    let reached = AtomicUsize::new(usize::MAX);
    let reached = &reached;
    let attempt = |at: usize| {
        let key = &keys[at];
        reached.store(usize::MAX, Ordering::Relaxed);
        async move {
            let load = shared.gateway_loads.add(&key.address);
            shared.pool.tunnel(key, credentials).await?;
            reached.store(at, Ordering::Relaxed);
            let (stream, answer, tunnel) = shared.pool.open(key, credentials, connect).await?;
            Ok((stream, answer, tunnel, load))
        }
    };
    // An egress gateway that answers has tried everything there is; only one that can't is passed over.
    let judge = |refusal: &Refusal| match (&refusal.hop, refusal.reason) {
        (_, Reason::Draining | Reason::Overloaded) => Verdict::NextGroup,
        (Some(_), _) => Verdict::Final,
        (None, _) => Verdict::NextGroup,
    };
    // One that is reached and lives asks several clusters, each after a silence of its own: it may take longer.
    let timing = shared.config.timing;
    let hold = |silence: Duration| {
        let at = reached.load(Ordering::Relaxed);
        silence < timing.gateway_hedge && keys.get(at).is_some_and(|key| share(key) > 0.0)
    };
    let (result, course) =
        race::first_with(groups, timing.hedge, shared.config.limits.attempts, attempt, judge, hold).await;
    record.attempts = course.attempts;
    (1..course.attempts).for_each(|_| shared.metrics.retry());
    (0..course.hedges).for_each(|_| shared.metrics.hedge());
    result.map_err(|mut failures| {
        // The verdict that ended the race is its last one.
        failures.pop().unwrap_or_else(|| {
            Refusal::new(Reason::PeerUnreachable, "this cluster has no egress gateway; start one")
        })
    })
}

/// The workloads' own session, where the endpoint takes it; and no way around it where it should.
async fn inside(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    route: &Route,
    credentials: &Credentials,
    stream: StreamEnd,
    answer: &Answer,
) -> Result<AnyEnd, Refusal> {
    let target = route.target(&answer.cluster).ok_or_else(|| {
        let detail = format!("cluster {} answered, which does not serve {}", answer.cluster, route.name);
        Refusal::new(Reason::WrongIdentity, detail)
    })?;
    if !answer.inner {
        if target.end_to_end == EndToEnd::All {
            let detail = format!(
                "every endpoint of {} in {} has a sidecar, and the answer says that this one has none",
                route.name, answer.cluster
            );
            return Err(Refusal::new(Reason::InnerRefused, detail));
        }
        return Ok(AnyEnd::Stream(stream));
    }
    let expect = Expect::OneOf(target.identities.clone());
    let config = client_config(&shared.bundle, credentials, expect, &[INNER_ALPN]);
    let name = ServerName::try_from(route.name.as_str().to_owned())
        .map_err(|_| Refusal::new(Reason::BadRequest, "the name is no DNS name"))?;
    let handshake = tombolo_mtls::connect(StreamIo::new(stream), config, name);
    let (tls, peer) = match timeout(shared.config.timing.handshake, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            shared.metrics.handshake(false);
            return Err(Refusal::handshake(&error, "the workload at the other end"));
        }
        Err(_) => {
            shared.metrics.handshake(false);
            return Err(Refusal::new(
                Reason::Timeout,
                "the workload at the other end did not finish its handshake",
            ));
        }
    };
    shared.metrics.handshake(true);
    ticket.relies_on(&peer, shared.bundle.get().as_deref())?;
    record.end_to_end = true;
    record.next_peer = Some(peer.id);
    record.tls = Some(Tls::of(tls.get_ref().1));
    Ok(AnyEnd::Tls(TlsEnd::new(tls)))
}
