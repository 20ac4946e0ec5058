//! What runs in a Kubernetes cluster, from its API server.
//!
//! Each kind is watched for itself ([`watch`]); [`convert`] reads the objects, [`known`] keeps the account of what there
//! is: both without I/O. A list after a watch that broke, or whose version the server no longer has, is held against
//! what is known: what is new or different takes effect as it comes, what is in it no more goes when it is complete.
//! A watch that fails, a server that is away, a list that breaks off: none of these takes anything away.

mod connect;
mod convert;
mod known;
mod mcs;
mod patience;
mod watch;

#[cfg(test)]
mod tests;

pub use connect::ConnectError;
pub(crate) use convert::MANAGED_BY;
pub use mcs::McsVersion;

use super::Batch;
use crate::index::Guard;
use futures::StreamExt;
use ipnet::IpNet;
use known::Known;
use kube::Client;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};
use tombolo_model::NamespaceName;
use tombolo_runtime::clock::Clock;

/// Namespaces of Kubernetes itself; they are never read.
const SYSTEM: [&str; 3] = ["kube-node-lease", "kube-public", "kube-system"];
/// The agent's namespace where nothing else is said.
const OWN: &str = "tombolo-system";
/// Changes that are taken together at most.
const TOGETHER: usize = 1024;

/// The namespaces of Kubernetes itself.
pub(crate) fn system() -> impl Iterator<Item = NamespaceName> {
    SYSTEM.iter().map(|name| NamespaceName::parse(name).expect("a constant name"))
}

/// How to read a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API server is, and who asks.
    pub access: Access,
    /// The agent's own namespace, which is not read. None: the pod's, or `tombolo-system` outside of one.
    pub namespace: Option<NamespaceName>,
    /// More namespaces that are not read.
    pub exclude: BTreeSet<NamespaceName>,
    /// Whether the Multi-Cluster Services API is followed, where the cluster has it.
    pub mcs: bool,
    /// The installation's virtual addresses.
    pub vips: Arc<[IpNet]>,
    /// Whether endpoints are taken that are no pods of their slice's namespace.
    pub foreign_endpoints: bool,
    /// The class of the gateways' pods, where it is not the system's own; an empty one is none.
    pub gateway_priority: Option<Arc<str>>,
}

/// Where the API server is, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As Kubernetes tells each pod.
    InCluster,
    /// As a file says.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context in it; none for the current one.
        context: Option<String>,
    },
}

/// A cluster that can be watched.
pub struct Watching {
    client: Client,
    server: String,
    namespace: NamespaceName,
    excluded: BTreeSet<NamespaceName>,
    mcs: bool,
    vips: Arc<[IpNet]>,
    foreign_endpoints: bool,
    priority: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
}

/// A client, and the agent's own namespace. The API server need not be there.
///
/// # Errors
/// Says which setting can't be used.
pub async fn connected(config: &Config) -> Result<(Client, NamespaceName), ConnectError> {
    let connected = connect::connect(&config.access).await?;
    let own = || NamespaceName::parse(OWN).expect("a constant name");
    let namespace = config.namespace.clone().or(connected.namespace).unwrap_or_else(own);
    Ok((connected.client, namespace))
}

/// The address and port of a URL; none where it has a name.
fn place(url: &str) -> Option<SocketAddr> {
    let url: http::Uri = url.parse().ok()?;
    let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port))
}

impl Watching {
    /// Prepares to watch. The API server need not be there.
    ///
    /// # Errors
    /// Says which setting can't be used.
    pub async fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let connected = connect::connect(&config.access).await?;
        let own = || NamespaceName::parse(OWN).expect("a constant name");
        let namespace = config.namespace.or(connected.namespace).unwrap_or_else(own);
        let excluded = system().chain([namespace.clone()]).chain(config.exclude).collect();
        let (client, server) = (connected.client, connected.server);
        let (mcs, vips, foreign_endpoints) = (config.mcs, config.vips, config.foreign_endpoints);
        let priority = config.gateway_priority;
        Ok(Self { client, server, namespace, excluded, mcs, vips, foreign_endpoints, priority, clock })
    }

    /// The agent's own namespace.
    #[must_use]
    pub const fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The installation's virtual addresses.
    pub(crate) fn vips(&self) -> Arc<[IpNet]> {
        Arc::clone(&self.vips)
    }

    /// The class of the gateways' pods.
    pub(crate) fn priority(&self) -> Option<Arc<str>> {
        self.priority.clone()
    }

    /// What endpoints are held to.
    pub(crate) fn guard(&self) -> Guard {
        Guard { vips: self.vips(), server: place(&self.server), own_pods: !self.foreign_endpoints }
    }

    /// The client, for those who write.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Watches, and gives every batch to `sink`. Never ends; cancel by dropping.
    pub async fn run(self, mut sink: impl FnMut(Batch) + Send) {
        let mut known = Known::new(self.server, self.mcs);
        let mut reported = None;
        let (own, mcs) = (&self.namespace, self.mcs);
        let mut told = watch::all(&self.client, &self.excluded, own, mcs, &self.vips).ready_chunks(TOGETHER);
        while let Some(together) = told.next().await {
            let now = self.clock.now();
            let changes: Vec<_> = together.into_iter().flat_map(|one| known.take(one, now)).collect();
            let state = (known.problems(), known.is_read(), known.mcs());
            if !changes.is_empty() || reported.as_ref() != Some(&state) {
                sink(Batch { changes, problems: state.0.clone(), read: state.1, mcs: state.2 });
                reported = Some(state);
            }
        }
    }
}
