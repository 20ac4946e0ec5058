//! The last step inside the cluster that serves: to the less loaded of two endpoints, through its sidecar where it
//! has one, and to the next one where it refuses.

use crate::{
    accesslog::Tls,
    choose::{self, Candidate},
    copy::{any::AnyEnd, tcp::TcpEnd},
    error::Refusal,
    head::{Connect, Destination, Inner},
    load::Load,
    pool::Key,
    race::{self, Verdict},
    reason::Reason,
    socket,
    state::Shared,
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::time::timeout;
use tombolo_model::{
    GatewayRole, Place, Proximity,
    snapshot::{EndpointSpec, ExportSpec, SelfSpec},
};
use tombolo_mtls::Peer;

/// Endpoints tried for one connection.
const ATTEMPTS: u32 = 3;

/// A connection to an endpoint.
pub(crate) struct Delivered {
    /// Its end.
    pub(crate) end: AnyEnd,
    /// Whether the caller's TLS session runs on to the endpoint's sidecar.
    pub(crate) inner: bool,
    /// The endpoint.
    pub(crate) endpoint: SocketAddr,
    /// Its sidecar: the connection relies on it.
    pub(crate) next_peer: Option<Peer>,
    /// The session with the sidecar.
    pub(crate) tls: Option<Tls>,
    /// Endpoints tried.
    pub(crate) attempts: u32,
    /// Counts while the connection lasts.
    pub(crate) load: Load<SocketAddr>,
}

/// Connects to an endpoint of a port of an export.
///
/// # Errors
/// [`Reason::NoReadyEndpoint`], [`Reason::EndpointRefused`], or what the sidecar said.
pub(crate) async fn deliver(
    shared: &Shared,
    itself: &SelfSpec,
    export: &Arc<ExportSpec>,
    port: usize,
    connect: &Connect,
) -> Result<Delivered, Refusal> {
    let number = export.ports[port].port;
    let endpoints = &export.ports[port].endpoints;
    let candidate = |endpoint: &EndpointSpec| Candidate {
        proximity: Proximity::Cluster,
        weight: u32::from(endpoint.ready),
        share: 1.0,
        refused: false,
        load: shared.endpoint_loads.of(&endpoint.address.socket()),
    };
    let candidates: Vec<Candidate> = endpoints.iter().map(candidate).collect();
    let order = choose::order(&candidates, &mut rand::random::<f64>);
    if order.is_empty() {
        let detail =
            format!("{}:{number} has {} endpoints, none of them ready", export.name, endpoints.len());
        return Err(Refusal::new(Reason::NoReadyEndpoint, detail));
    }
    let groups = order.into_iter().map(|at| [at].into()).collect();
    let attempt = |at: usize| {
        let endpoint = &endpoints[at];
        async move {
            let address = endpoint.address.socket();
            let load = shared.endpoint_loads.add(&address);
            let (end, inner, next_peer, tls) =
                reach(shared, itself, export, number, endpoint, connect).await?;
            Ok((end, inner, next_peer, tls, address, load))
        }
    };
    let hedge = shared.config.timing.hedge;
    // Each endpoint stands for itself.
    let judge = |_: &Refusal| Verdict::NextGroup;
    let (result, course) = race::first(groups, hedge, ATTEMPTS, attempt, judge).await;
    (1..course.attempts).for_each(|_| shared.metrics.retry());
    match result {
        Ok((end, inner, next_peer, tls, endpoint, load)) => {
            Ok(Delivered { end, inner, endpoint, next_peer, tls, attempts: course.attempts, load })
        }
        Err(failures) => Err(Refusal::most_telling(failures)
            .unwrap_or_else(|| Refusal::new(Reason::NoReadyEndpoint, "no endpoint was tried"))),
    }
}

type Reached = (AnyEnd, bool, Option<Peer>, Option<Tls>);

async fn reach(
    shared: &Shared,
    itself: &SelfSpec,
    export: &ExportSpec,
    port: u16,
    endpoint: &EndpointSpec,
    connect: &Connect,
) -> Result<Reached, Refusal> {
    let Some(tunnel) = endpoint.tunnel else { return in_clear(shared, endpoint).await };
    if !endpoint.leaving {
        return through(shared, itself, export, port, endpoint, tunnel, connect).await;
    }
    // Those who want the caller's own session to reach the endpoint still get it while the proxy is there, for they have not heard yet
    // that it goes; the others need not meet it any more.
    if connect.inner != Inner::Offered {
        return in_clear(shared, endpoint).await;
    }
    match through(shared, itself, export, port, endpoint, tunnel, connect).await {
        Err(refusal) if is_gone(&refusal) => in_clear(shared, endpoint).await,
        result => result,
    }
}

async fn in_clear(shared: &Shared, endpoint: &EndpointSpec) -> Result<Reached, Refusal> {
    let end = dial(shared, endpoint.address.socket()).await?;
    Ok((AnyEnd::Tcp(end), false, None, None))
}

/// Whether a proxy did not take a connection because it ends.
const fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::PeerUnreachable | Reason::TunnelLost | Reason::Draining)
}

/// By the tunnel of the endpoint's sidecar, or of its node's proxy.
async fn through(
    shared: &Shared,
    itself: &SelfSpec,
    export: &ExportSpec,
    port: u16,
    endpoint: &EndpointSpec,
    tunnel: Place,
    connect: &Connect,
) -> Result<Reached, Refusal> {
    let own = shared
        .credentials
        .own()
        .ok_or_else(|| Refusal::new(Reason::NoCredentials, "this gateway has no certificate yet"))?;
    let key = Key {
        identity: own.id().clone(),
        address: Arc::from(tunnel.to_string()),
        cluster: itself.cluster.clone(),
        role: GatewayRole::Sidecar,
    };
    let inner = connect.inner == Inner::Offered;
    let onward = Connect {
        destination: Destination::Endpoint(endpoint.address.socket(), export.name.clone(), port),
        source: connect.source.clone(),
        trace: connect.trace,
        inner: if inner { Inner::Accepted } else { Inner::None },
    };
    let (stream, _, tunnel) = shared.pool.open(&key, &own, &onward).await?;
    Ok((AnyEnd::Stream(stream), inner, Some(tunnel.peer.clone()), Some(tunnel.tls)))
}

/// Whether an endpoint is a port of this gateway's own: whoever writes endpoints must not get at what listens for those who are here.
fn is_own(tunnel: SocketAddr, admin: Option<SocketAddr>, endpoint: SocketAddr) -> bool {
    let ip = endpoint.ip().to_canonical();
    let here = ip.is_loopback() || ip.is_unspecified() || ip == tunnel.ip().to_canonical();
    let ours = |own: SocketAddr| {
        own.port() == endpoint.port()
            && (own.ip().to_canonical() == ip || (own.ip().is_unspecified() && here))
    };
    ours(tunnel) || admin.is_some_and(ours)
}

/// Connects to an application.
///
/// # Errors
/// [`Reason::EndpointRefused`].
pub(crate) async fn dial(shared: &Shared, address: SocketAddr) -> Result<TcpEnd, Refusal> {
    let refused = |detail: String| Refusal::new(Reason::EndpointRefused, detail);
    if is_own(shared.config.tunnel, shared.config.admin, address) {
        return Err(refused(format!("{address} is this gateway itself")));
    }
    match timeout(shared.config.timing.endpoint, socket::connect(address)).await {
        Ok(Ok((stream, false))) => Ok(TcpEnd::new(stream)),
        Ok(Ok((stream, true))) => Ok(TcpEnd::broken(stream)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(refused(format!("nobody listens at {address}")))
        }
        Ok(Err(error)) => Err(refused(format!("{address}: {error}"))),
        Err(_) => {
            Err(refused(format!("{address} did not accept within {:?}", shared.config.timing.endpoint)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_ports_are_no_endpoints() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let own = |endpoint: &str| is_own(at("10.0.0.1:15008"), Some(at("0.0.0.0:15014")), at(endpoint));
        for ours in ["10.0.0.1:15008", "10.0.0.1:15014", "127.0.0.1:15014", "[::ffff:10.0.0.1]:15014"] {
            assert!(own(ours), "{ours}");
        }
        for other in ["10.0.0.2:15014", "10.0.0.1:80", "127.0.0.1:8080", "10.0.0.2:15008"] {
            assert!(!own(other), "{other}");
        }
    }
}
