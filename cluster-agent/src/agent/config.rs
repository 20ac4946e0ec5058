//! What an agent is told at its start, and what it is given.

use crate::{
    certificate::Pace, dns, gateways::HubConfig, health::HealthConfig, inject, lease::Standing,
    pod::Following, registries::Registries, source::kubernetes, vip::AddressMode,
};
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::watch;
use tombolo_model::AccountName;
use tombolo_runtime::clock::{Clock, SystemClock};

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
    /// Where egress gateways in pods dial no other cluster's gateway, beside what they know themselves.
    pub never_dial: Arc<[IpNet]>,
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
        inject: Option<Box<inject::Config>>,
    },
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
