//! The command line.

mod agent;

use agent::AgentOptions;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};
use tombolo_gateway::{
    budget,
    capture::redirect::{Inbound, Redirect},
    config::{Bring, Capture, Config, Limits, Timing},
};
use tombolo_model::{AccountName, GatewayRole, NamespaceName};
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CaptureMode {
    /// The proxy binds the names' addresses itself; the kernel says who calls.
    Explicit,
    /// nftables redirects to it (see the command `redirect`).
    Sidecar,
    /// For all pods of a node.
    Node,
    /// They do not.
    None,
}

/// How connections of a node's pods come to its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NodeCapture {
    /// By an nftables redirect before kube-proxy's; needs CAP_NET_ADMIN and the program nft.
    Redirect,
    /// By a local route and a BPF program, where kube-proxy does not hold the virtual addresses; needs CAP_NET_ADMIN and CAP_BPF.
    Lookup,
    /// By a local route and a BPF program where the node allows it, beside kube-proxy; else by the redirect. Needs what both need.
    Auto,
}

impl CaptureMode {
    fn with(self, node: NodeCapture) -> Capture {
        match self {
            Self::Explicit => Capture::Explicit,
            Self::Sidecar => Capture::Sidecar,
            Self::Node => Capture::Node(match node {
                NodeCapture::Redirect => Bring::Redirect,
                NodeCapture::Lookup => Bring::Lookup,
                NodeCapture::Auto => Bring::Auto,
            }),
            Self::None => Capture::None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RedirectOptions {
    /// The virtual addresses; several with commas between, or the option given several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', required_unless_present = "remove")]
    vips: Vec<IpNet>,
    /// The sidecar's --outbound-port.
    #[arg(long, default_value_t = 15001)]
    port: u16,
    /// Connections of this user pass untouched.
    #[arg(long, value_name = "UID")]
    exclude_uid: Option<u32>,
    /// Connections with this socket mark pass untouched.
    #[arg(long, value_name = "MARK")]
    exclude_mark: Option<u32>,
    /// Connections to these ports pass untouched.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<u16>,
    /// The ports whose incoming connections are redirected too.
    #[arg(long, value_name = "PORTS", value_delimiter = ',', requires = "inbound_port")]
    inbound: Vec<u16>,
    /// The sidecar's --inbound-port.
    #[arg(long, value_name = "PORT", requires = "inbound")]
    inbound_port: Option<u16>,
    /// Removes the rules.
    #[arg(long, conflicts_with_all = ["vips", "exclude_uid", "exclude_mark", "exclude_outbound_ports", "inbound"])]
    remove: bool,
}

impl RedirectOptions {
    /// What to install; nothing where the rules are to be removed.
    pub(crate) fn wanted(&self) -> Option<Redirect> {
        (!self.remove).then(|| Redirect {
            vips: self.vips.clone(),
            port: self.port,
            exclude_uid: self.exclude_uid,
            exclude_mark: self.exclude_mark,
            exclude_ports: self.exclude_outbound_ports.iter().copied().collect(),
            inbound: self
                .inbound_port
                .map(|port| Inbound { port, ports: self.inbound.iter().copied().collect() }),
        })
    }
}

/// `host:port`, the host a name or an address (an IPv6 one in brackets).
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort(String);
impl FromStr for HostPort {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "write it as host:port, as gateway.example.com:15443 or [fd00::1]:15443";
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        match port.parse::<u16>() {
            Ok(1..) if good => Ok(Self(text.to_owned())),
            _ => Err(WRONG),
        }
    }
}

/// An address and a port, or a port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Full(SocketAddr),
    Port(u16),
}
impl FromStr for Place {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        text.parse().map(Self::Full).map_err(|_| "write it as IP:PORT, or as a port of the pod's address")
    }
}

/// As it stands on the command line.
fn name(mode: CaptureMode) -> String {
    mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// `namespace/account`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WorkloadName(NamespaceName, AccountName);
impl FromStr for WorkloadName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, account) = text.split_once('/').ok_or("write it as namespace/service-account")?;
        let namespace = NamespaceName::parse(namespace).map_err(|e| format!("the namespace {e}"))?;
        let account = AccountName::parse(account).map_err(|e| format!("the service account {e}"))?;
        Ok(Self(namespace, account))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &str) -> Result<Config, String> {
        let args = format!("tombolo-gateway run --agent-socket /a.sock --tunnel 127.0.0.1:15008 {args}");
        let options = Options::try_parse_from(args.split_whitespace()).map_err(|e| e.to_string())?;
        match options.command {
            Command::Run(run) => run.config(),
            Command::Redirect(_) => unreachable!("it says run"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn a_sidecar_of_a_machine() {
        let config =
            run("--role sidecar --capture explicit --serve 127.0.0.1 --serve ::1 --access-log -").unwrap();
        assert_eq!((config.capture, config.serve.len()), (Capture::Explicit, 2));
        assert_eq!(config.instance, "sidecar-127.0.0.1-15008");
        assert_eq!(config.outbound_port, 15001);
    }

    #[test]
    fn tunnels_are_kept_as_long_as_asked() {
        let timing = |args: &str| run(args).map(|config| config.timing);
        let usual = timing("--role egress").unwrap();
        let kept = |timing: Timing| (timing.keepalive, timing.idle, timing.idle_taken);
        assert_eq!(kept(usual), kept(Timing::default()));
        let asked = timing("--role egress --keepalive 1 --idle 2").unwrap();
        assert_eq!(kept(asked), (Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)));
        for wrong in ["--keepalive 0", "--idle 0", "--idle 1h"] {
            timing(&format!("--role egress {wrong}")).unwrap_err();
        }
    }

    #[test]
    fn what_may_wait_is_a_part_of_the_memory_or_as_asked() {
        let buffers = |args: &str| run(args).map(|config| config.limits.buffers);
        assert_eq!(buffers("--role egress --buffers 64"), Ok(64 << 20));
        assert_eq!(buffers("--role egress"), Ok(budget::usual(limits::memory())));
        assert!(buffers("--role egress --buffers 0").is_err());
    }

    #[test]
    fn a_sidecar_of_a_pod_and_an_ingress() {
        let config = run("--role sidecar --capture sidecar --workload default/shopping").unwrap();
        assert_eq!(config.workload.unwrap().1.as_str(), "shopping");
        let config = run("--role ingress --advertise gw.example.com:15443 --advertise [fd00::1]:1").unwrap();
        assert_eq!(config.advertise.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_said_all_at_once() {
        let wrong = run("--role egress --capture explicit --serve 127.0.0.1 --advertise a:1").unwrap_err();
        assert!(
            wrong.contains("--capture") && wrong.contains("--serve") && wrong.contains("--advertise"),
            "{wrong}"
        );
        for bad in [
            "--role nowhere",
            "--role sidecar --workload shopping",
            "--role ingress --never-dial 10.0.0.0/8",
            "--role egress --never-dial 10.0.0.1/33",
            "--role sidecar --capture node",
            "--role node --capture sidecar",
            "--role egress --admin 15020",
            "--role sidecar --workload default/Shop_ping!",
            "--role ingress --advertise gw.example.com",
            "--role ingress --advertise gw:0",
            "--role ingress --advertise fd00::1:80",
        ] {
            assert!(run(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn in_a_pod() {
        let pod = |name: &str| match name {
            "POD_NAMESPACE" => Some("shop".to_owned()),
            "POD_NAME" => Some("cart-1".to_owned()),
            "POD_IP" => Some("10.0.0.7".to_owned()),
            "POD_IPS" => Some("10.0.0.7,fd00::7".to_owned()),
            "SERVICE_ACCOUNT" => Some("cart".to_owned()),
            "KUBERNETES_SERVICE_HOST" => Some("10.96.0.1".to_owned()),
            "TOMBOLO_AGENT_ROOTS" => Some("PEM".to_owned()),
            _ => None,
        };
        let run = |args: &str, pod: &dyn Fn(&str) -> Option<String>| {
            let args = format!("tombolo-gateway run {args}");
            let options = Options::try_parse_from(args.split_whitespace()).map_err(|e| e.to_string())?;
            match options.command {
                Command::Run(run) => run.config_in(pod),
                Command::Redirect(_) => unreachable!("it says run"),
            }
        };
        let agent =
            "--agent https://agent:15012 --agent-token-file /t --cluster c1 --trust-domain acme.internal";
        let config = run(&format!("--role sidecar --capture sidecar --admin 15020 {agent}"), &pod).unwrap();
        assert_eq!(config.admin.unwrap().to_string(), "10.0.0.7:15020");
        assert_eq!(
            (config.instance.as_str(), config.tunnel.to_string().as_str()),
            ("shop.cart-1", "10.0.0.7:15008")
        );
        let both = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(config.serve, BTreeSet::from(both));
        assert_eq!(config.workload.unwrap().1.as_str(), "cart");
        for (role, tunnel) in
            [("egress", "10.0.0.7:15008"), ("ingress", "10.0.0.7:15443"), ("node", "10.0.0.7:15008")]
        {
            let config = run(&format!("--role {role} {agent}"), &pod).unwrap();
            assert_eq!(config.tunnel.to_string(), tunnel);
            let beside = if role == "egress" { BTreeSet::from([both[1]]) } else { BTreeSet::new() };
            assert_eq!(config.beside, beside, "{role}");
            let never: Vec<String> = config.never_dial.iter().map(ToString::to_string).collect();
            let own = ["10.96.0.1/32", "10.0.0.7/32", "fd00::7/128"];
            assert_eq!(never, if role == "egress" { &own[..] } else { &[] }, "{role}");
            assert!(config.serve.is_empty() && config.workload.is_none(), "{role}");
            let node = Capture::Node(Bring::Auto);
            assert_eq!(config.capture, if role == "node" { node } else { Capture::None });
        }
        let told = run(&format!("--role egress --never-dial 10.244.0.0/16 {agent}"), &pod).unwrap();
        let told: Vec<String> = told.never_dial.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.96.0.1/32", "10.0.0.7/32", "fd00::7/128", "10.244.0.0/16"], "beside its own");
        for (args, why) in [
            ("--role egress".to_owned(), "--agent-socket"),
            ("--role egress --agent https://agent:1 --cluster c1".to_owned(), "--agent-token-file"),
            (format!("--role egress --agent-socket /s {agent}"), "cannot be used with"),
            (format!("--role egress --agent-roots /none/roots.pem {agent}"), "/none/roots.pem"),
        ] {
            let error = run(&args, &pod).unwrap_err();
            assert!(error.contains(why), "{args}: {error}");
        }
        let error = run(&format!("--role egress {agent}"), &|_| None).unwrap_err();
        assert!(error.contains("TOMBOLO_AGENT_ROOTS"), "{error}");
        let nowhere = |name: &str| (name == "TOMBOLO_AGENT_ROOTS").then(|| "PEM".to_owned());
        let error = run(&format!("--role egress {agent}"), &nowhere).unwrap_err();
        assert!(error.contains("--tunnel"), "{error}");
    }

    #[test]
    fn redirects() {
        let parse = |args: &str| {
            Options::try_parse_from(format!("tombolo-gateway redirect {args}").split_whitespace())
        };
        let Command::Redirect(install) = parse("--vips 240.0.0.0/4 --port 15001").unwrap().command else {
            unreachable!("it says redirect")
        };
        assert_eq!(install.wanted().unwrap().vips.len(), 1);
        let Command::Redirect(remove) = parse("--remove").unwrap().command else {
            unreachable!("it says redirect")
        };
        assert_eq!(remove.wanted(), None);
        assert!(parse("").is_err(), "neither");
        assert!(parse("--remove --vips 240.0.0.0/4").is_err(), "both");
    }
}
