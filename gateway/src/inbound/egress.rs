//! An egress gateway's streams: a workload of this cluster asks for a name. The nearest healthy cluster gets it; the
//! next one at once where it refuses, and in parallel where it is silent.

use super::Opened;
use crate::{
    accesslog::{Record, Tls},
    authz,
    choose::{self, Candidate},
    conns::Ticket,
    copy::any::AnyEnd,
    deliver,
    error::Refusal,
    head::{Connect, Destination, Inner},
    load::Load,
    race::{self, Verdict},
    reason::Reason,
    state::{Shared, peer_key},
    table::{Route, RouteTable},
    tunnel::Tunnel,
};
use std::{any::Any, collections::VecDeque, net::SocketAddr, sync::Arc};
use tokio::time::Instant;
use tombolo_model::{
    ClusterName, GlobalName, Proximity,
    snapshot::{EndToEnd, SelfSpec},
};
use tombolo_mtls::Peer;

/// Somewhere to try.
enum Attempt {
    /// The endpoints of this cluster.
    Here,
    /// An ingress gateway of another one.
    Peer(ClusterName, Arc<str>),
}

/// What an attempt won.
struct Won {
    end: AnyEnd,
    cluster: ClusterName,
    inner: bool,
    upstream: String,
    next: Next,
    hold: Box<dyn Any + Send + Sync>,
}

enum Next {
    Tunnel(Arc<Tunnel>),
    Endpoint(Option<Peer>, Option<Tls>),
}

pub(super) async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    peer: &Peer,
    connect: &Connect,
) -> Result<Opened, Refusal> {
    record.source = Some(peer.id.clone());
    record.source_verified = true;
    let Destination::Service(name, port) = &connect.destination else {
        return Err(Refusal::new(Reason::BadRequest, "endpoints are asked for by gateways, of sidecars"));
    };
    // Who calls is whose certificate it is; a header of a sidecar counts for nothing.
    let onward = Connect {
        destination: connect.destination.clone(),
        source: Some(peer.id.clone()),
        trace: connect.trace,
        inner: if connect.inner == Inner::Offered { Inner::Offered } else { Inner::None },
    };
    choose_and_open(shared, ticket, record, name, *port, &onward).await
}

/// Chooses a cluster for a name, and opens the way to it; the next one where it fails.
pub(super) async fn choose_and_open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    name: &GlobalName,
    port: u16,
    onward: &Connect,
) -> Result<Opened, Refusal> {
    record.name = Some(name.clone());
    record.port = Some(port);
    let table = shared.table.load_full();
    let itself = table.itself().ok_or_else(|| Refusal::new(Reason::NoRoute, "there is no snapshot yet"))?;
    let route = table
        .route(name)
        .filter(|route| route.ports.contains(&port))
        .ok_or_else(|| Refusal::new(Reason::NoRoute, format!("{name}:{port} is not imported here")))?;
    let groups = find(shared, &table, itself, route, port).await?;
    let attempt = |attempt| try_one(shared, &table, itself, attempt, name, port, onward);
    let judge = |failed: &(ClusterName, Refusal)| failed.1.verdict();
    let timing = shared.config.timing;
    let (result, course) =
        race::first(groups, timing.hedge, shared.config.limits.attempts, attempt, judge).await;
    record.attempts = course.attempts;
    (1..course.attempts).for_each(|_| shared.metrics.retry());
    (0..course.hedges).for_each(|_| shared.metrics.hedge());
    let won = result.map_err(|failures| {
        let failures: Vec<Refusal> = failures.into_iter().map(|(_, refusal)| refusal).collect();
        Refusal::most_telling(failures)
            .unwrap_or_else(|| Refusal::new(Reason::NoHealthyTarget, "no target was tried"))
    })?;
    shared.health.serve(&won.cluster, name);
    let (next_peer, tls) = match won.next {
        Next::Tunnel(tunnel) => (Some(tunnel.peer.clone()), Some(tunnel.tls)),
        Next::Endpoint(peer, tls) => (peer, tls),
    };
    if let Some(next) = &next_peer {
        ticket.relies_on(next, shared.bundle.get().as_deref())?;
    }
    if won.cluster == itself.cluster {
        ticket.relies_on_grant(name, &itself.cluster);
    } else {
        ticket.relies_on_cluster(&won.cluster);
    }
    let load = shared.cluster_loads.add(&won.cluster);
    Ok(Opened {
        end: won.end,
        cluster: won.cluster,
        inner: won.inner,
        inside: None,
        upstream: won.upstream,
        next_peer: next_peer.map(|peer| peer.id),
        tls,
        attempts: course.attempts,
        _hold: Box::new((load, won.hold)),
    })
}

/// Targets by cluster, in the order of preference.
type Groups = Vec<VecDeque<Attempt>>;

/// No cluster can be asked now.
struct Nobody {
    refusal: Refusal,
    /// Whether an address's first probe is still under way.
    unknown: bool,
}

/// A plan, now or within a moment: what is called dead may have come back since it was last looked at, and what was
/// never reached waits for its first handshake.
async fn find(
    shared: &Shared,
    table: &RouteTable,
    itself: &SelfSpec,
    route: &Route,
    port: u16,
) -> Result<Groups, Refusal> {
    let begin = Instant::now();
    let mut changes = shared.health.changes();
    loop {
        // One change need not be the change that is waited for: it may be another peer's, or a death.
        let nobody = match plan(shared, table, itself, route, port) {
            Ok(groups) => return Ok(groups),
            Err(nobody) if nobody.refusal.reason != Reason::NoHealthyTarget => return Err(nobody.refusal),
            Err(nobody) => nobody,
        };
        let timing = &shared.config.timing;
        let patience = begin + if nobody.unknown { timing.handshake } else { timing.hedge };
        if !shared.health.demand_change(&mut changes, patience).await {
            return Err(nobody.refusal);
        }
    }
}

/// Clusters in the order of preference, each with its addresses.
fn plan(
    shared: &Shared,
    table: &RouteTable,
    itself: &SelfSpec,
    route: &Route,
    port: u16,
) -> Result<Groups, Nobody> {
    let mut places = Vec::new();
    let mut candidates = Vec::new();
    let mut ready = 0;
    let mut unknown = false;
    for target in route.targets.iter().filter(|target| target.ports.contains(&port)) {
        let (addresses, share) = if target.cluster == itself.cluster {
            (Vec::new(), 1.0)
        } else {
            let addresses = table.peers().get(&target.cluster).map(|peer| &peer.ingress);
            let rotation = shared.health.cluster(&target.cluster, addresses.into_iter().flatten());
            unknown |= rotation.unknown && target.ready > 0;
            if rotation.alive.is_empty() { (rotation.lost, 0.0) } else { (rotation.alive, rotation.share) }
        };
        ready += target.ready;
        candidates.push(Candidate {
            proximity: if target.cluster == itself.cluster { Proximity::Cluster } else { target.proximity },
            weight: target.ready,
            share,
            refused: shared.health.refused(&target.cluster, &route.name),
            load: shared.cluster_loads.of(&target.cluster),
        });
        places.push((target.cluster.clone(), addresses));
    }
    let mut random = rand::random::<f64>;
    let mut order = choose::order(&candidates, &mut random);
    if order.is_empty() {
        let names: Vec<&str> = places.iter().map(|(cluster, _)| cluster.as_str()).collect();
        let names = if names.is_empty() { "no cluster".to_owned() } else { names.join(", ") };
        let refusal = if ready == 0 {
            let detail = format!("{}:{port} has no ready endpoint in {names}", route.name);
            Refusal::new(Reason::NoReadyEndpoint, detail)
        } else {
            let detail = format!("none of the clusters that serve {}:{port} is alive: {names}", route.name);
            Refusal::new(Reason::NoHealthyTarget, detail)
        };
        return Err(Nobody { refusal, unknown });
    }
    // Behind those that live, the dead: where all others fail or are silent, a probe may have been wrong. Not those
    // that never were reached: nobody has shown yet that they are the cluster's.
    order.extend(
        (0..candidates.len()).filter(|at| candidates[*at].weight > 0 && candidates[*at].share == 0.0),
    );
    let group = |at: usize| {
        let (cluster, addresses) = &places[at];
        if *cluster == itself.cluster {
            return VecDeque::from([Attempt::Here]);
        }
        let addresses: Vec<Arc<str>> = addresses.iter().map(|address| Arc::from(address.as_str())).collect();
        let candidate = |address: &Arc<str>| Candidate {
            proximity: Proximity::Cluster,
            weight: 1,
            share: 1.0,
            refused: false,
            load: shared.gateway_loads.of(address),
        };
        let candidates: Vec<Candidate> = addresses.iter().map(candidate).collect();
        let order = choose::order(&candidates, &mut rand::random::<f64>);
        order.into_iter().map(|at| Attempt::Peer(cluster.clone(), addresses[at].clone())).collect()
    };
    Ok(order.into_iter().map(group).collect())
}

async fn try_one(
    shared: &Shared,
    table: &RouteTable,
    itself: &SelfSpec,
    attempt: Attempt,
    name: &GlobalName,
    port: u16,
    onward: &Connect,
) -> Result<Won, (ClusterName, Refusal)> {
    let cluster = match &attempt {
        Attempt::Here => itself.cluster.clone(),
        Attempt::Peer(cluster, _) => cluster.clone(),
    };
    let result = match attempt {
        Attempt::Here => here(shared, table, itself, name, port, onward).await,
        Attempt::Peer(cluster, address) => there(shared, cluster, address, onward).await,
    };
    let result = result.and_then(|won| demand_inner(table, name, onward, won));
    result.map_err(|refusal| {
        // The cluster answered, and said no: it comes last for this name for a while.
        if refusal.verdict() == Verdict::NextGroup {
            shared.health.refuse(&cluster, name);
        }
        (cluster, refusal)
    })
}

/// The caller's sidecar would refuse an answer without the session between the workloads where every endpoint should take it. Another
/// cluster may do better: as where the sidecar of one has just died, which this cluster has not heard of yet.
fn demand_inner(table: &RouteTable, name: &GlobalName, onward: &Connect, won: Won) -> Result<Won, Refusal> {
    let target = table.route(name).and_then(|route| route.target(&won.cluster));
    let demanded = target.is_some_and(|target| target.end_to_end == EndToEnd::All);
    if onward.inner == Inner::Offered && demanded && !won.inner {
        let detail = format!(
            "every endpoint of {name} in {} has a sidecar, and this one answers without",
            won.cluster
        );
        return Err(Refusal::new(Reason::InnerRefused, detail));
    }
    Ok(won)
}

async fn here(
    shared: &Shared,
    table: &RouteTable,
    itself: &SelfSpec,
    name: &GlobalName,
    port: u16,
    onward: &Connect,
) -> Result<Won, Refusal> {
    let (export, at) = authz::export(table, &itself.cluster, name, port)?;
    let delivered = deliver::deliver(shared, itself, &export, at, onward).await?;
    let load: Load<SocketAddr> = delivered.load;
    Ok(Won {
        end: delivered.end,
        cluster: itself.cluster.clone(),
        inner: delivered.inner,
        upstream: delivered.endpoint.to_string(),
        next: Next::Endpoint(delivered.next_peer, delivered.tls),
        hold: Box::new(load),
    })
}

async fn there(
    shared: &Shared,
    cluster: ClusterName,
    address: Arc<str>,
    onward: &Connect,
) -> Result<Won, Refusal> {
    let own = shared
        .credentials
        .own()
        .ok_or_else(|| Refusal::new(Reason::NoCredentials, "this gateway has no certificate yet"))?;
    let load = shared.gateway_loads.add(&address);
    let key = peer_key(own.id(), &cluster, &address);
    let (stream, answer, tunnel) = shared.pool.open(&key, &own, onward).await?;
    // A cluster answers for itself alone.
    if answer.cluster != cluster {
        let detail = format!("cluster {cluster} answers as {}", answer.cluster);
        return Err(Refusal::new(Reason::WrongIdentity, detail));
    }
    Ok(Won {
        end: AnyEnd::Stream(stream),
        cluster,
        inner: answer.inner,
        upstream: address.to_string(),
        next: Next::Tunnel(tunnel),
        hold: Box::new(load),
    })
}
