//! The command line.

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
    capture::redirect::{Inbound, Redirect},
    config::{Capture, Config, Timing},
};
use tombolo_model::{AccountName, GatewayRole, NamespaceName};
use tombolo_runtime::telemetry::LogFormat;

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
    /// What this process is: sidecar, egress or ingress.
    #[arg(long)]
    role: GatewayRole,
    /// The unix socket of the cluster's agent.
    #[arg(long, value_name = "PATH")]
    agent_socket: PathBuf,
    /// The user under which the agent runs, where that is neither root nor the user of this process.
    #[arg(long, value_name = "UID")]
    agent_uid: Option<u32>,
    /// Where tunnels are taken.
    #[arg(long, value_name = "IP:PORT")]
    tunnel: SocketAddr,
    /// For an ingress gateway: how other clusters reach it; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<HostPort>,
    /// For an egress gateway: dial other clusters' gateways on this machine too (as where --tunnel is on loopback).
    #[arg(long)]
    dial_loopback: bool,
    /// For a sidecar: how applications' connections come in.
    #[arg(long, value_enum, default_value_t = CaptureMode::None)]
    capture: CaptureMode,
    /// For a sidecar: an address whose endpoints it stands before; may be given several times.
    #[arg(long, value_name = "IP")]
    serve: Vec<IpAddr>,
    /// For a sidecar beside one pod: the workload it speaks for.
    #[arg(long, value_name = "NAMESPACE/ACCOUNT")]
    workload: Option<WorkloadName>,
    /// For capture mode sidecar: the port to which connections are redirected.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// For capture mode sidecar: the port to which incoming connections are redirected, where they are.
    #[arg(long, value_name = "PORT")]
    inbound_port: Option<u16>,
    /// From keep-alive to keep-alive of a tunnel; one that answers none of two is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    keepalive: u64,
    /// How long a tunnel without a connection in it is kept; its taker waits twice as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    idle: u64,
    /// Where metrics, health and dumps are served.
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// The access log: a file to append to (opened again on SIGHUP), or - for standard output.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Where the last good table is kept: after a restart it is in force at once. Certificates come from the agent.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// A name for this process, of its own in the cluster [default: the role and the tunnel's address].
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
    /// They do not.
    None,
}
impl From<CaptureMode> for Capture {
    fn from(mode: CaptureMode) -> Self {
        match mode {
            CaptureMode::Explicit => Self::Explicit,
            CaptureMode::Sidecar => Self::Sidecar,
            CaptureMode::None => Self::None,
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
        let mut problems = Vec::new();
        let sidecar = self.role == GatewayRole::Sidecar;
        let only_sidecar = [
            ("--capture", self.capture != CaptureMode::None),
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
        if !self.advertise.is_empty() && self.role != GatewayRole::Ingress {
            problems.push(format!("--advertise is for --role ingress, not {}", self.role));
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        let instance = self.instance.unwrap_or_else(|| instance(self.role, self.tunnel));
        let timing = Timing {
            keepalive: Duration::from_secs(self.keepalive),
            idle: Duration::from_secs(self.idle),
            idle_taken: Duration::from_secs(self.idle * 2),
            ..Timing::default()
        };
        Ok(Config {
            timing,
            agent_socket: Some(self.agent_socket),
            advertise: self.advertise.into_iter().map(|HostPort(text)| text).collect::<BTreeSet<_>>(),
            capture: self.capture.into(),
            serve: self.serve.into_iter().collect(),
            workload: self.workload.map(|WorkloadName(namespace, account)| (namespace, account)),
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            admin: self.admin,
            access_log: self.access_log,
            cache: self.cache,
            ready_file: self.ready_file,
            agent_uid: self.agent_uid,
            dial_loopback: self.dial_loopback,
            ..Config::new(self.role, instance, self.tunnel)
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
            "--role node",
            "--role sidecar --workload shopping",
            "--role sidecar --workload default/Shop_ping!",
            "--role ingress --advertise gw.example.com",
            "--role ingress --advertise gw:0",
            "--role ingress --advertise fd00::1:80",
        ] {
            assert!(run(bad).is_err(), "{bad}");
        }
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
