//! How applications' connections come to this process: bound by it ([`explicit`]), or redirected to it ([`sidecar`]).
//! Either way the caller's workload is settled before anything else sees the connection. An egress gateway takes the
//! connections of those who have no proxy, too, and answers for them itself.

mod attest;
mod explicit;
mod listener;
mod lookup;
mod nft;
mod node;
mod original;
mod problems;
pub mod redirect;
mod sidecar;

pub use problems::Problems;

use crate::{
    config::{Bring, Capture, Config},
    error::Refusal,
    inbound,
    outbound::{self, Accepted},
    reason::Reason,
    state::Shared,
    table::RouteTable,
};
use attest::{AttestError, Attestor};
use explicit::Listeners;
use ipnet::IpNet;
use listener::{Accept, Listener};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};
use tombolo_model::{AccountName, GatewayRole, NamespaceName, SpiffeId};
use tombolo_runtime::{drain, task, telemetry};

/// How connections are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: gateways that only take tunnels.
    None,
    /// This process binds the addresses of the names; each caller is attested.
    Explicit,
    /// Connections are redirected to this port of loopback.
    Sidecar {
        /// The port; 0 takes a free one.
        port: u16,
        /// Whose connections they are, where the proxy stands beside one pod; each caller is attested where there is none.
        workload: Option<(NamespaceName, AccountName)>,
        /// The port, on all addresses, to which incoming connections are redirected, where they are.
        inbound: Option<u16>,
    },
    /// Connections of this node's pods are brought to this port; the table says whose addresses they have.
    Node {
        /// The port; 0 takes a free one.
        port: u16,
        /// The virtual addresses.
        vips: Vec<IpNet>,
        /// How they are brought.
        by: Bring,
    },
    /// At these addresses, each name's port has a port of ours that the agent chose; nobody knows who calls.
    Gateway(BTreeSet<IpAddr>),
}

impl Mode {
    /// As the configuration has it.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match config.capture {
            Capture::None if config.role == GatewayRole::Egress => {
                Self::Gateway(config.beside.iter().copied().chain([config.tunnel.ip()]).collect())
            }
            Capture::None => Self::None,
            Capture::Explicit => Self::Explicit,
            Capture::Node(by) => Self::Node { port: config.outbound_port, vips: config.vips.clone(), by },
            Capture::Sidecar => {
                let (port, inbound) = (config.outbound_port, config.inbound_port);
                Self::Sidecar { port, workload: config.workload.clone(), inbound }
            }
        }
    }
}

/// The running capture. Dropping it closes the listeners and leaves the connections.
#[derive(Debug)]
pub struct Handle {
    outbound: Vec<SocketAddr>,
    inbound: Vec<SocketAddr>,
    following: Option<JoinHandle<()>>,
    /// The number of the table whose addresses were bound last.
    followed: Option<watch::Receiver<u64>>,
    /// Local routes that go when the last connection has gone.
    routes: Option<Arc<lookup::Routes>>,
}

impl Handle {
    /// Where redirected connections are taken; empty in the other modes.
    #[must_use]
    pub fn outbound(&self) -> &[SocketAddr] {
        &self.outbound
    }

    /// Where redirected incoming connections are taken.
    #[must_use]
    pub fn inbound(&self) -> &[SocketAddr] {
        &self.inbound
    }

    /// Waits until the addresses of the table in force are bound, or known to be problems. Cancel-safe.
    pub async fn followed(&self, shared: &Shared) {
        let Some(followed) = &self.followed else { return };
        let now = *shared.changed().borrow();
        // without a sender the draining has begun, and nothing is bound any more
        let _ = followed.clone().wait_for(|table| *table >= now).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
        if let Some(routes) = &self.routes {
            routes.remove();
        }
    }
}

/// Starts to capture. In mode `explicit` the listeners follow the table from now on; when the draining begins, they are
/// closed, and the connections go on.
///
/// # Errors
/// In mode `sidecar`, where the port can't be bound. In mode `explicit` that is a problem to be told, never an error.
pub async fn start(
    shared: Arc<Shared>,
    mode: Mode,
    problems: Problems,
    drain: drain::Watch,
) -> io::Result<Handle> {
    let attestor = Attestor::new();
    let mut handle =
        Handle { outbound: Vec::new(), inbound: Vec::new(), following: None, followed: None, routes: None };
    match mode {
        Mode::None => {}
        Mode::Explicit => {
            let accept = accept(shared.clone(), drain.clone(), move |shared, stream, client| {
                let attestor = attestor.clone();
                async move {
                    let original = stream.local_addr()?;
                    let source = attest(&shared, &attestor, client, original).await;
                    Ok(Accepted { stream, client, original, source })
                }
            });
            let listeners = Listeners::new(accept, problems.sender());
            let (done, followed) = watch::channel(0);
            handle.followed = Some(followed);
            let wanted = |table: &RouteTable| table.addresses().map(SocketAddr::from).collect();
            handle.following = Some(task::spawn(
                "explicit capture",
                follow(shared, listeners, wanted, problems, done, drain),
            ));
        }
        Mode::Gateway(addresses) => {
            let (held, carried) = (drain.clone(), shared.clone());
            let accept: Accept = Arc::new(move |stream, client| {
                carried.metrics.captured();
                let (held, lanes, carried) = (held.clone(), &carried.config.lanes, carried.clone());
                lanes.serve(stream, move |stream| async move {
                    let _held = held;
                    match stream.local_addr() {
                        Ok(original) => inbound::captured::serve(stream, client, original, carried).await,
                        Err(error) => tracing::debug!(%client, %error, "the caller went at once"),
                    }
                });
            });
            let listeners = Listeners::new(accept, problems.sender());
            let (done, followed) = watch::channel(0);
            handle.followed = Some(followed);
            let wanted = move |table: &RouteTable| {
                let at = |port| addresses.iter().map(move |address| SocketAddr::new(*address, port));
                table.captured_at().flat_map(at).collect()
            };
            handle.following = Some(task::spawn(
                "gateway capture",
                follow(shared, listeners, wanted, problems, done, drain),
            ));
        }
        Mode::Node { port, vips, by } => {
            let held: Arc<[IpNet]> = vips.clone().into();
            let accept = accept(shared.clone(), drain.clone(), move |shared, stream, client| {
                let held = held.clone();
                async move {
                    let local = stream.local_addr()?;
                    // What came by the lookup has the address that was dialled for its own.
                    let dialled = held.iter().any(|net| net.contains(&local.ip().to_canonical()));
                    let original = match dialled {
                        true => local,
                        false => original::destination(&stream, local).unwrap_or(local),
                    };
                    let source = pod(&shared, client);
                    Ok(Accepted { stream, client, original, source })
                }
            });
            let listeners = sidecar::bind_everywhere(port, &accept)?;
            handle.outbound = listeners.iter().map(Listener::local).collect();
            let (done, followed) = watch::channel(0);
            handle.followed = Some(followed);
            let routes = Arc::new(lookup::Routes::default());
            // Where it is the lookup alone, nobody else would take what is sent there: it does not leave the node.
            handle.routes = (by == Bring::Auto).then(|| routes.clone());
            let node = node::Node::new(listeners, vips, routes, problems.sender());
            let following = node.follow(by, shared, done, drain);
            handle.following = Some(task::spawn("node capture", following));
        }
        Mode::Sidecar { port, workload, inbound } => {
            let workload = Arc::new(workload);
            let plain = plain(shared.clone(), drain.clone());
            let accept = accept(shared, drain.clone(), move |shared, stream, client| {
                let (attestor, workload) = (attestor.clone(), workload.clone());
                async move {
                    // who was not redirected dialled this port itself, which is no name's address
                    let local = stream.local_addr()?;
                    let original = original::destination(&stream, local).unwrap_or(local);
                    let source = match &*workload {
                        Some(workload) => only(&shared, workload),
                        None => attest(&shared, &attestor, client, original).await,
                    };
                    Ok(Accepted { stream, client, original, source })
                }
            });
            let mut redirected = sidecar::bind(port, &accept)?;
            handle.outbound = redirected.iter().map(Listener::local).collect();
            if let Some(port) = inbound {
                let incoming = sidecar::bind_everywhere(port, &plain)?;
                handle.inbound = incoming.iter().map(Listener::local).collect();
                redirected.extend(incoming);
            }
            handle.following = Some(task::spawn("sidecar capture", async move {
                let redirected = redirected;
                drain.signaled().await;
                for listener in redirected {
                    listener.close().await;
                }
            }));
        }
    }
    Ok(handle)
}

/// What a listener does with an incoming connection that was redirected: passes it on to where it meant to go.
fn plain(shared: Arc<Shared>, drain: drain::Watch) -> Accept {
    Arc::new(move |stream, client| {
        let (held, lanes, shared) = (drain.clone(), &shared.config.lanes, shared.clone());
        lanes.serve(stream, move |stream| async move {
            let _held = held;
            match stream.local_addr() {
                Ok(local) => {
                    let original = original::destination(&stream, local).unwrap_or(local);
                    inbound::plain::serve(stream, client, (local, original), shared).await;
                }
                Err(error) => tracing::debug!(%client, %error, "the caller went at once"),
            }
        });
    })
}

/// What a listener does with a connection: finds out about it, and carries it, in a task of its own. The draining waits
/// for it.
fn accept<F>(
    shared: Arc<Shared>,
    drain: drain::Watch,
    find_out: impl Fn(Arc<Shared>, TcpStream, SocketAddr) -> F + Send + Sync + 'static,
) -> Accept
where
    F: Future<Output = io::Result<Accepted>> + Send + 'static,
{
    let find_out = Arc::new(find_out);
    Arc::new(move |stream, client| {
        shared.metrics.captured();
        let (held, find_out) = (drain.clone(), find_out.clone());
        let (lanes, shared) = (&shared.config.lanes, shared.clone());
        lanes.serve(stream, move |stream| async move {
            let _held = held;
            match find_out(shared.clone(), stream, client).await {
                Ok(accepted) => outbound::serve(accepted, shared).await,
                Err(error) => tracing::debug!(%client, %error, "the caller went before it was asked for"),
            }
        });
    })
}

async fn follow(
    shared: Arc<Shared>,
    mut listeners: Listeners,
    wanted: impl Fn(&RouteTable) -> BTreeSet<SocketAddr> + Send,
    problems: Problems,
    followed: watch::Sender<u64>,
    drain: drain::Watch,
) {
    let mut changed = shared.changed();
    loop {
        let table = *changed.borrow_and_update();
        let addresses = wanted(&shared.table.load());
        listeners.follow(addresses).await;
        shared.metrics.capture_problems(problems.count());
        followed.send_replace(table);
        tokio::select! {
            biased;
            () = drain.signaled() => break,
            table = changed.changed() => if table.is_err() { break },
            () = tokio::time::sleep(explicit::AGAIN), if listeners.incomplete() => {}
        }
    }
    listeners.close().await;
}

/// The workload of the pod that has this address on this node.
fn pod(shared: &Shared, client: SocketAddr) -> Result<SpiffeId, Refusal> {
    let ip = client.ip().to_canonical();
    let known = shared.table.load().pod(ip).cloned();
    known.ok_or_else(|| {
        let detail =
            format!("{ip} is no pod of this node that the agent knows, in a namespace of capture mode node");
        Refusal::new(Reason::UnknownWorkload, detail)
    })
}

/// The one workload that this proxy stands beside.
fn only(shared: &Shared, (namespace, account): &(NamespaceName, AccountName)) -> Result<SpiffeId, Refusal> {
    match shared.table.load().itself() {
        Some(itself) => Ok(SpiffeId::workload(&itself.trust_domain, &itself.cluster, namespace, account)),
        None => Err(Refusal::new(Reason::NoCredentials, "the agent has not said yet which cluster this is")),
    }
}

async fn attest(
    shared: &Shared,
    attestor: &Attestor,
    client: SocketAddr,
    original: SocketAddr,
) -> Result<SpiffeId, Refusal> {
    let workloads = shared.table.load().workloads().values().cloned().collect();
    attestor.attest(workloads, client, original).await.map_err(|error| {
        let reason = match error {
            AttestError::Overloaded => Reason::Overloaded,
            AttestError::Kernel(_)
            | AttestError::Process(_)
            | AttestError::Nobody(_)
            | AttestError::Several { .. }
            | AttestError::Shared { .. } => Reason::UnknownWorkload,
        };
        Refusal::new(reason, telemetry::chain(&error))
    })
}
