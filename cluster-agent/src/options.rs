//! The command line.

mod kubernetes;
mod pod;

use clap::{Args, Parser, Subcommand};
use kubernetes::{Kubernetes, Source};
use pod::Pod;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tombolo_agent::{
    certificate::Pace,
    dns::{self, ForwardTo},
    vip::ExplicitPrefix,
};
use tombolo_model::ClusterName;
use tombolo_runtime::telemetry::LogFormat;

/// The agent of a Tombolo cluster.
#[derive(Parser)]
#[command(name = "tombolo-agent", version, about)]
pub(crate) struct Options {
    /// How log lines look: json, text, or auto (text on a terminal, json elsewhere). TOMBOLO_LOG sets what is logged.
    #[arg(long, global = true, default_value_t)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Join this cluster to a controller with a one-time token.
    Join(Join),
    /// Run the agent of a cluster that joined.
    Run(Box<Run>),
    /// Answer DNS from what the agent keeps on disk, as a process of its own: names resolve while no agent runs.
    Dns(Dns),
}

#[derive(Args)]
pub(crate) struct Dns {
    /// The directory of the agent's state. It says which names there are, and which addresses stand for them.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Where DNS is answered, UDP and TCP.
    #[arg(long)]
    pub(crate) dns: SocketAddr,
    /// Where names of others are asked for: IP:PORT of a resolver, or refuse.
    #[arg(long)]
    pub(crate) dns_forward: ForwardTo,
    /// How long answers may be kept, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) ttl: u16,
    /// Where the admin port listens; no admin port without.
    #[arg(long)]
    pub(crate) admin: Option<SocketAddr>,
    /// The file to write once everything is bound: the process id and the addresses, as JSON.
    #[arg(long)]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Join {
    /// The controller, as https://host:port.
    #[arg(long)]
    pub(crate) controller: String,
    /// The fingerprint of the controller's CA, as sha256:HEX.
    #[arg(long)]
    pub(crate) ca_fingerprint: String,
    /// The name of this cluster, as the controller knows it.
    #[arg(long)]
    pub(crate) cluster: ClusterName,
    /// The file that holds the token, or - for standard input. A token is never an argument: other users see those.
    #[arg(long)]
    pub(crate) token_file: PathBuf,
    /// The directory for the agent's state.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// The region that this cluster runs in.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The zone in the region.
    #[arg(long, requires = "region")]
    pub(crate) zone: Option<String>,
}

#[derive(Args)]
pub(crate) struct Run {
    /// The directory for the agent's state, in which it joined.
    #[arg(long)]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) kubernetes: Kubernetes,
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// Where DNS is answered, UDP and TCP. Without, `tombolo-agent dns` answers, whether or not the agent runs.
    #[arg(long, requires = "dns_forward")]
    pub(crate) dns: Option<SocketAddr>,
    /// Where names of others are asked for: IP:PORT of a resolver, or refuse.
    #[arg(long, requires = "dns")]
    pub(crate) dns_forward: Option<ForwardTo>,
    /// How long answers may be kept, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) ttl: u16,
    /// The unix socket for gateways of this machine.
    #[arg(long, required_unless_present = "gateway_listen")]
    pub(crate) gateway_socket: Option<PathBuf>,
    /// Where gateways in pods come, over TLS and with the token of their service account: IP:PORT.
    #[arg(long, requires = "kubernetes", value_name = "IP:PORT")]
    pub(crate) gateway_listen: Option<SocketAddr>,
    /// How long everything goes on once the end was asked for: until all who ask have heard of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub(crate) last_calls: u64,
    /// How long certificates of workloads are good, which are renewed at half of it: 10s to 24h.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = Pace::parse)]
    pub(crate) leaf_life: Duration,
    /// Answer names with addresses inside this prefix (capture mode explicit), as 127.101.0.0/16.
    #[arg(long)]
    pub(crate) explicit_prefix: Option<ExplicitPrefix>,
    /// Where the admin port listens; no admin port without.
    #[arg(long)]
    pub(crate) admin: Option<SocketAddr>,
    /// The file to write once everything is bound: the process id and the addresses, as JSON.
    #[arg(long)]
    pub(crate) ready_file: Option<PathBuf>,
}

/// How DNS is answered.
pub(crate) fn dns_config(listen: SocketAddr, forward: ForwardTo, ttl: u16) -> dns::Config {
    dns::Config { ttl: Duration::from_secs(ttl.into()), ..dns::Config::new(listen, forward) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_leaves_has_bounds() {
        let base = [
            "tombolo-agent",
            "run",
            "--data",
            "d",
            "--manifests",
            "m",
            "--gateway-socket",
            "s",
            "--leaf-life",
        ];
        for (text, good) in [("10s", true), ("24h", true), ("9s", false), ("25h", false), ("1", false)] {
            let parsed = Options::try_parse_from(base.iter().chain([&text]));
            assert_eq!(parsed.is_ok(), good, "{text}");
        }
    }

    #[test]
    fn the_time_to_live_has_bounds() {
        let ttl = |ttl: &[&str]| {
            let args =
                ["tombolo-agent", "dns", "--data", "d", "--dns", "127.0.0.1:53", "--dns-forward", "refuse"];
            match Options::try_parse_from(args.iter().chain(ttl)).map(|options| options.command) {
                Ok(Command::Dns(o)) => Some(dns_config(o.dns, o.dns_forward, o.ttl).ttl.as_secs()),
                _ => None,
            }
        };
        assert_eq!(ttl(&[]), Some(5));
        for (text, seconds) in
            [("1", Some(1)), ("3600", Some(3600)), ("0", None), ("3601", None), ("-1", None), ("x", None)]
        {
            assert_eq!(ttl(&["--ttl", text]), seconds, "{text}");
        }
    }
}
