//! The command line.

mod agent;
mod capture;
mod redirect;
#[cfg(test)]
mod tests;
mod text;

use agent::AgentOptions;
use capture::{CaptureMode, NodeCapture, name};
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use redirect::RedirectOptions;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use text::{HostPort, Place, WorkloadName};
use tombolo_gateway::{
    budget,
    config::{Config, Limits, Timing},
};
use tombolo_model::GatewayRole;
use tombolo_runtime::{limits, telemetry::LogFormat};

/// The gateway of Tombolo: carries requests between workloads, across clusters, over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "tombolo-gateway", version)]
pub(crate) struct Options {
    /// How log lines look, on standard error (auto: text on a terminal, JSON elsewhere); TOMBOLO_LOG sets their level.
    #[arg(long, global = true, value_name = "auto|json|text", default_value_t)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a gateway until it is told to end.
    Run(Box<Run>),
    /// Installs (or removes) the nftables rules that bring this network namespace's connections to virtual addresses, and
    /// incoming ones, to a sidecar. Needs the program nft and CAP_NET_ADMIN in the namespace, and a route to the addresses: a pod's
    /// default route is enough.
    Redirect(RedirectOptions),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What this process is: sidecar, node, egress or ingress.
    #[arg(long)]
    role: GatewayRole,
    #[command(flatten)]
    agent: AgentOptions,
    /// Where tunnels are taken [default in a pod: its address, port 15443 for an ingress gateway, 15008 for others].
    #[arg(long, value_name = "IP:PORT")]
    tunnel: Option<SocketAddr>,
    /// For an ingress gateway: how other clusters reach it; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<HostPort>,
    /// For an egress gateway: dial other clusters' gateways on this machine too (as where --tunnel is on loopback).
    #[arg(long)]
    dial_loopback: bool,
    /// For an egress gateway: addresses of this cluster's own, as its pods' and services', at which no other cluster's gateway can be. They
    /// are not dialled, whatever other clusters say [in a pod always beside: those of the API server's Service and of the pod].
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    never_dial: Vec<IpNet>,
    /// For a sidecar: how applications' connections come in.
    #[arg(long, value_enum, default_value_t = CaptureMode::None)]
    capture: CaptureMode,
    /// For a sidecar: an address whose endpoints it stands before; may be given several times [default in a pod: its own].
    #[arg(long, value_name = "IP")]
    serve: Vec<IpAddr>,
    /// For a sidecar beside one pod: the workload it speaks for [default in a pod: its own].
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    workload: Option<WorkloadName>,
    /// For capture mode sidecar: the port to which connections are redirected.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// For capture mode node: how connections are brought to it.
    #[arg(long, value_enum, default_value_t = NodeCapture::Auto)]
    node_capture: NodeCapture,
    /// For capture mode node: the virtual addresses.
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "240.0.0.0/4,fd74:6f6d:6265:6c6f::/64"
    )]
    vips: Vec<IpNet>,
    /// For capture mode sidecar: the port to which incoming connections are redirected, where they are.
    #[arg(long, value_name = "PORT")]
    inbound_port: Option<u16>,
    /// From keep-alive to keep-alive of a tunnel; one that answers none of two is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    keepalive: u64,
    /// How long a tunnel without a connection in it is kept; its taker waits twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    idle: u64,
    /// How long connections are taken once the end was asked for: until all who send some have heard of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    last_calls: u64,
    /// Where metrics, health and dumps are served; a port alone is one of the pod's address.
    #[arg(long, value_name = "[IP:]PORT")]
    admin: Option<Place>,
    /// How many MiB may wait in this process for readers that do not read; when more would, the largest connections of whoever has
    /// most are cut [default: a quarter of the memory that it may have, 16 at least and 4096 at most].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    buffers: Option<u32>,
    /// The access log: a file to append to (opened again on SIGHUP), or - for standard output.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Where the last good table is kept: after a restart it is in force at once. Certificates come from the agent.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// A name for this process, of its own in the cluster [default: the role and the tunnel's address; in a pod the only one it may have].
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Written as JSON once everything is bound and ready.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl Run {
    /// The configuration.
    ///
    /// # Errors
    /// Every option that does not fit the role, in one text.
    pub(crate) fn config(self) -> Result<Config, String> {
        self.config_in(&|name| std::env::var(name).ok())
    }

    /// The same, with these environment variables.
    fn config_in(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Config, String> {
        let mut problems = Vec::new();
        let sidecar = self.role == GatewayRole::Sidecar;
        let node = self.role == GatewayRole::Node;
        let capture = match self.capture {
            // It has no other use.
            CaptureMode::None if node => CaptureMode::Node,
            given => given,
        };
        if capture != CaptureMode::None && (capture == CaptureMode::Node) != node {
            problems.push(format!("--capture {} is not for --role {}", name(capture), self.role));
        }
        let only_sidecar = [
            ("--capture", capture != CaptureMode::None && !node),
            ("--serve", !self.serve.is_empty()),
            ("--workload", self.workload.is_some()),
            ("--inbound-port", self.inbound_port.is_some()),
        ];
        for (option, given) in only_sidecar {
            if given && !sidecar {
                problems.push(format!("{option} is for --role sidecar, not {}", self.role));
            }
        }
        if self.dial_loopback && self.role != GatewayRole::Egress {
            problems.push(format!("--dial-loopback is for --role egress, not {}", self.role));
        }
        if !self.never_dial.is_empty() && self.role != GatewayRole::Egress {
            problems.push(format!("--never-dial is for --role egress, not {}", self.role));
        }
        if !self.advertise.is_empty() && self.role != GatewayRole::Ingress {
            problems.push(format!("--advertise is for --role ingress, not {}", self.role));
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        let (agent, pod) = self.agent.read(variable)?;
        let port = if self.role == GatewayRole::Ingress { 15443 } else { 15008 };
        let first = pod.addresses.first().copied();
        let own = first.map(|address| SocketAddr::new(address, port));
        let admin = match self.admin {
            None => None,
            Some(Place::Full(address)) => Some(address),
            Some(Place::Port(port)) => {
                let address = first.ok_or("--admin: give it an address too; a port alone is for a pod")?;
                Some(SocketAddr::new(address, port))
            }
        };
        // A pod has an address in each family of its cluster; a name resolves in those in which it is reached.
        let beside = match self.role {
            GatewayRole::Egress if self.tunnel.is_none() => pod.addresses.iter().skip(1).copied().collect(),
            _ => BTreeSet::new(),
        };
        let never_dial = match self.role {
            GatewayRole::Egress => {
                let server = variable("KUBERNETES_SERVICE_HOST").and_then(|text| text.parse::<IpAddr>().ok());
                let own = server.into_iter().chain(pod.addresses.iter().copied()).map(IpNet::from);
                own.chain(self.never_dial).collect()
            }
            _ => Vec::new(),
        };
        let tunnel = self.tunnel.or(own).ok_or("give --tunnel, the address at which tunnels are taken")?;
        let instance = self.instance.or(pod.instance).unwrap_or_else(|| instance(self.role, tunnel));
        let workload = self.workload.map(|WorkloadName(namespace, account)| (namespace, account));
        let (serve, workload) = match sidecar {
            true if self.serve.is_empty() => (pod.addresses.into_iter().collect(), workload.or(pod.workload)),
            true => (self.serve.into_iter().collect(), workload.or(pod.workload)),
            false => (BTreeSet::new(), None),
        };
        let timing = Timing {
            keepalive: Duration::from_secs(self.keepalive),
            idle: Duration::from_secs(self.idle),
            idle_taken: Duration::from_secs(self.idle * 2),
            last_calls: Duration::from_secs(self.last_calls),
            ..Timing::default()
        };
        let buffers = match self.buffers {
            Some(mib) => (mib as usize) << 20,
            None => budget::usual(limits::memory()),
        };
        Ok(Config {
            timing,
            limits: Limits { buffers, ..Limits::default() },
            agent: Some(agent),
            advertise: self.advertise.into_iter().map(|HostPort(text)| text).collect::<BTreeSet<_>>(),
            capture: capture.with(self.node_capture),
            beside,
            serve,
            workload,
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            vips: self.vips,
            admin,
            access_log: self.access_log,
            cache: self.cache,
            ready_file: self.ready_file,
            dial_loopback: self.dial_loopback,
            never_dial,
            ..Config::new(self.role, instance, tunnel)
        })
    }
}

/// A name for a process that was given none, of the letters that an agent takes.
fn instance(role: GatewayRole, tunnel: SocketAddr) -> String {
    let address = tunnel.to_string().replace([':', '%'], "-");
    format!("{role}-{}", address.replace(['[', ']'], ""))
}
