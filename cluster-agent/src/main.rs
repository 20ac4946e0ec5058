//! `tombolo-agent`: joins a cluster to its controller, and runs its agent.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::{
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tombolo_agent::{
    agent::{self, Config, Deps, Ended, Replica, SourceConfig},
    certificate::Pace,
    dns::{self, ForwardTo, process::Process},
    gateways::HubConfig,
    health::HealthConfig,
    inject,
    join::{JoinConfig, join},
    lease::Election,
    pod::{self, Prepared},
    registries::Registries,
    source::kubernetes,
    vip::{AddressMode, ExplicitPrefix},
};
use tombolo_model::{AccountName, ClusterName, Locality, NamespaceName, install::FailurePolicy};
use tombolo_runtime::{
    limits, ready,
    signal::Signals,
    task,
    telemetry::{self, LogFormat},
};

/// How long what is under way may take when the agent ends.
const DRAIN: Duration = Duration::from_secs(5);
/// A token is far shorter, in bytes.
const MAX_TOKEN: u64 = 4096;

/// The agent of a Tombolo cluster.
#[derive(Parser)]
#[command(name = "tombolo-agent", version, about)]
struct Options {
    /// How log lines look: json, text, or auto (text on a terminal, json elsewhere). TOMBOLO_LOG sets what is logged.
    #[arg(long, global = true, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join this cluster to a controller with a one-time token.
    Join(Join),
    /// Run the agent of a cluster that joined.
    Run(Box<Run>),
    /// Answer DNS from what the agent keeps on disk, as a process of its own: names resolve while no agent runs.
    Dns(Dns),
}

#[derive(Args)]
struct Dns {
    /// The directory of the agent's state. It says which names there are, and which addresses stand for them.
    #[arg(long)]
    data: PathBuf,
    /// Where DNS is answered, UDP and TCP.
    #[arg(long)]
    dns: SocketAddr,
    /// Where names of others are asked for: IP:PORT of a resolver, or refuse.
    #[arg(long)]
    dns_forward: ForwardTo,
    /// How long answers may be kept, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    ttl: u16,
    /// Where the admin port listens; no admin port without.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// The file to write once everything is bound: the process id and the addresses, as JSON.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

#[derive(Args)]
struct Join {
    /// The controller, as https://host:port.
    #[arg(long)]
    controller: String,
    /// The fingerprint of the controller's CA, as sha256:HEX.
    #[arg(long)]
    ca_fingerprint: String,
    /// The name of this cluster, as the controller knows it.
    #[arg(long)]
    cluster: ClusterName,
    /// The file that holds the token, or - for standard input. A token is never an argument: other users see those.
    #[arg(long)]
    token_file: PathBuf,
    /// The directory for the agent's state.
    #[arg(long)]
    data: PathBuf,
    /// The region that this cluster runs in.
    #[arg(long)]
    region: Option<String>,
    /// The zone in the region.
    #[arg(long, requires = "region")]
    zone: Option<String>,
}

#[derive(Args)]
struct Run {
    /// The directory for the agent's state, in which it joined.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    kubernetes: Kubernetes,
    #[command(flatten)]
    pod: Pod,
    /// Where DNS is answered, UDP and TCP. Without, `tombolo-agent dns` answers, whether or not the agent runs.
    #[arg(long, requires = "dns_forward")]
    dns: Option<SocketAddr>,
    /// Where names of others are asked for: IP:PORT of a resolver, or refuse.
    #[arg(long, requires = "dns")]
    dns_forward: Option<ForwardTo>,
    /// How long answers may be kept, in seconds: 1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    ttl: u16,
    /// The unix socket for gateways of this machine.
    #[arg(long, required_unless_present = "gateway_listen")]
    gateway_socket: Option<PathBuf>,
    /// Where gateways in pods come, over TLS and with the token of their service account: IP:PORT.
    #[arg(long, requires = "kubernetes", value_name = "IP:PORT")]
    gateway_listen: Option<SocketAddr>,
    /// How long everything goes on once the end was asked for: until all who ask have heard of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    last_calls: u64,
    /// How long certificates of workloads are good, which are renewed at half of it: 10s to 24h.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = Pace::parse)]
    leaf_life: Duration,
    /// Answer names with addresses inside this prefix (capture mode explicit), as 127.101.0.0/16.
    #[arg(long)]
    explicit_prefix: Option<ExplicitPrefix>,
    /// Where the admin port listens; no admin port without.
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// The file to write once everything is bound: the process id and the addresses, as JSON.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

/// Where the agent learns what runs in its cluster: one of the two.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The directory of Kubernetes manifests that describe this cluster's services.
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Read the services from Kubernetes: from the cluster that the agent runs in, or with --kubeconfig from another.
    #[arg(long)]
    kubernetes: bool,
}

#[derive(Args)]
struct Kubernetes {
    /// Reach the API server as this file says.
    #[arg(long, requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// The context in the file; the current one without.
    #[arg(long, requires = "kubeconfig")]
    context: Option<String>,
    /// The agent's own namespace [default: that of its pod, or tombolo-system outside of one].
    #[arg(long, requires = "kubernetes")]
    namespace: Option<NamespaceName>,
    /// How pods reach imported names: none, or gateway, where each name becomes a Service in the agent's namespace whose
    /// endpoints are the egress gateways, and DNS answers its address.
    #[arg(long, requires = "kubernetes", value_enum, default_value_t = Capture::None)]
    capture: Capture,
    /// Whether services that the Multi-Cluster Services API (ServiceExport) exports are shared by the organization's clusters.
    #[arg(long, requires = "kubernetes", value_enum, default_value_t = Mcs::On)]
    mcs: Mcs,
    /// Where the API server asks about new pods of namespaces in capture mode sidecar: IP:PORT. Nobody is asked without.
    #[arg(long, requires = "kubernetes")]
    webhook_listen: Option<SocketAddr>,
    /// A registry that images of an installation may come from, as registry.example.com/tombolo. May stand several times
    /// [default: where the image of the agent's own Deployment comes from].
    #[arg(long, requires = "kubernetes", value_name = "REGISTRY", value_delimiter = ',')]
    allowed_registry: Vec<String>,
    /// The gateway's image, for the proxies in pods of a cluster that the controller has installed nothing in.
    #[arg(long, requires = "webhook_listen")]
    gateway_image: Option<String>,
    /// Where proxies in pods find the agent [default: https://tombolo-agent.NAMESPACE.svc:15012].
    #[arg(long, requires = "webhook_listen", value_name = "https://HOST:PORT")]
    gateway_agent: Option<String>,
    /// What becomes of such pods while no agent answers: ignore starts them without a proxy, fail does not start them.
    #[arg(long, requires = "webhook_listen", value_enum, default_value_t = Failure::Ignore)]
    webhook_failure: Failure,
    /// The virtual addresses of the installation, as the controller was told.
    #[arg(
        long,
        requires = "kubernetes",
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "240.0.0.0/4,fd74:6f6d:6265:6c6f::/64"
    )]
    vips: Vec<IpNet>,
    /// Where egress gateways of the installation dial no other cluster's gateway, whatever other clusters say: the ranges of this cluster's pods
    /// and services, if no other cluster's gateway is ever reached at an address in them. Their own addresses and the API server's Service they
    /// leave alone anyway.
    #[arg(long, requires = "kubernetes", value_name = "CIDR", value_delimiter = ',')]
    never_dial: Vec<IpNet>,
    /// Leave this namespace out, beside kube-system, kube-public, kube-node-lease and the agent's own. May stand
    /// several times.
    #[arg(long, requires = "kubernetes", value_delimiter = ',')]
    exclude_namespace: Vec<NamespaceName>,
}

/// In a pod: one of several replicas, which join by themselves.
#[derive(Args)]
struct Pod {
    /// The Secret tombolo-state as it is mounted: what joining gave. It is read at the start and followed; the replica that
    /// holds the Lease writes it.
    #[arg(long, requires_all = ["kubernetes", "replica"])]
    state_dir: Option<PathBuf>,
    /// The name of this replica's pod.
    #[arg(long, env = "POD_NAME")]
    replica: Option<AccountName>,
    /// The token of this pod's service account, with the audience tombolo-agent: with it, it asks the other replicas.
    #[arg(long, requires = "state_dir", value_name = "FILE")]
    replica_token_file: Option<PathBuf>,
    /// Where the one-time token is, or will be: the cluster joins with it where there is no state, and again where there is a
    /// new one.
    #[arg(long, requires_all = ["state_dir", "controller", "ca_fingerprint", "cluster"], value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The controller, as https://host:port.
    #[arg(long, requires = "join_token_file")]
    controller: Option<String>,
    /// The fingerprint of the controller's CA, as sha256:HEX.
    #[arg(long, requires = "join_token_file")]
    ca_fingerprint: Option<String>,
    /// The name of this cluster, as the controller knows it.
    #[arg(long, requires = "join_token_file")]
    cluster: Option<ClusterName>,
    /// The region that this cluster runs in.
    #[arg(long, requires = "join_token_file")]
    region: Option<String>,
    /// The zone in the region.
    #[arg(long, requires = "region")]
    zone: Option<String>,
}

impl Pod {
    /// Nothing outside of a pod.
    fn config(self) -> Option<(pod::Config, AccountName, Option<PathBuf>)> {
        let (state_dir, name) = self.state_dir.zip(self.replica)?;
        let locality = Locality { region: self.region, zone: self.zone };
        let to = self.join_token_file.zip(self.controller).zip(self.ca_fingerprint).zip(self.cluster);
        let join = to.map(|(((token_file, controller), ca_fingerprint), cluster)| pod::Join {
            token_file,
            controller,
            ca_fingerprint,
            cluster,
            locality,
        });
        Some((pod::Config { state_dir, join }, name, self.replica_token_file))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Capture {
    /// Not by this agent's doing.
    None,
    /// Through Services of the egress gateways; nothing is in the pods.
    Gateway,
}

/// Whether the Multi-Cluster Services API is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mcs {
    /// Where the cluster has it.
    On,
    /// Not at all.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Failure {
    /// Pods start without a proxy.
    Ignore,
    /// Pods do not start.
    Fail,
}

impl Kubernetes {
    fn inject(&self) -> Option<inject::Config> {
        let policy = match self.webhook_failure {
            Failure::Ignore => FailurePolicy::Ignore,
            Failure::Fail => FailurePolicy::Fail,
        };
        Some(inject::Config {
            listen: self.webhook_listen?,
            image: self.gateway_image.clone(),
            agent: self.gateway_agent.clone(),
            vips: self.vips.clone(),
            policy,
            exclude: self.exclude_namespace.iter().cloned().collect(),
        })
    }
}

impl Source {
    /// Clap has seen to it that there is exactly one.
    fn config(self, kubernetes: Kubernetes) -> SourceConfig {
        if let Some(manifests) = self.manifests {
            return SourceConfig::Manifests(manifests);
        }
        let inject = kubernetes.inject().map(Box::new);
        let access = match kubernetes.kubeconfig {
            Some(path) => kubernetes::Access::Kubeconfig { path, context: kubernetes.context },
            None => kubernetes::Access::InCluster,
        };
        let cluster = kubernetes::Config {
            access,
            namespace: kubernetes.namespace,
            exclude: kubernetes.exclude_namespace.into_iter().collect(),
            mcs: kubernetes.mcs == Mcs::On,
            vips: kubernetes.vips.into(),
        };
        let expose = kubernetes.capture == Capture::Gateway;
        SourceConfig::Kubernetes { cluster, expose, inject }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = telemetry::init(options.log_format).map_err(anyhow::Error::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match options.command {
                Command::Join(options) => join_cluster(options).await,
                Command::Run(options) => run(*options).await,
                Command::Dns(options) => answer(options).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn join_cluster(options: Join) -> anyhow::Result<()> {
    let token = read_token(&options.token_file)?;
    let config = JoinConfig {
        controller: options.controller,
        ca_fingerprint: options.ca_fingerprint,
        cluster: options.cluster,
        data: options.data,
        locality: Locality { region: options.region, zone: options.zone },
        nodes: Locality::default(),
    };
    let membership = join(&config, &token).await?;
    tracing::info!(
        cluster.name = %membership.cluster,
        organization.name = %membership.organization,
        data = %config.data.display(),
        "joined; start the agent with `tombolo-agent run`"
    );
    Ok(())
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_TOKEN)
            .read_to_string(&mut text)
            .context("read the token from standard input")?;
    } else {
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
            .with_context(|| format!("read the token from {}", path.display()))?;
    }
    Ok(text)
}

async fn answer(options: Dns) -> anyhow::Result<()> {
    limits::prepare();
    let mut signals = Signals::install().context("take over SIGTERM and SIGINT")?;
    let config = dns_config(options.dns, options.dns_forward, options.ttl);
    let process = Process::build(&options.data, config, options.admin).await?;
    let ready = serde_json::json!({
        "dns": process.address().to_string(),
        "admin": process.admin().map(|address| address.to_string()),
    });
    tracing::info!(dns.address = %process.address(), "DNS is answered");
    if let Some(path) = &options.ready_file {
        ready::write(path, &ready).with_context(|| format!("write the ready file {}", path.display()))?;
    }
    let stop = async {
        let _ = signals.terminate().await;
    };
    let drained = process.run(stop, DRAIN).await;
    tracing::info!(drained = ?drained, "ended");
    Ok(())
}

async fn run(options: Run) -> anyhow::Result<()> {
    let last_calls = Duration::from_secs(options.last_calls);
    limits::prepare();
    let mut signals = Signals::install().context("take over SIGTERM and SIGINT")?;
    let registries = Registries::stated(options.kubernetes.allowed_registry.iter().cloned());
    let never_dial = options.kubernetes.never_dial.as_slice().into();
    let config = Config {
        data: options.data,
        registries,
        never_dial,
        source: options.source.config(options.kubernetes),
        dns: options
            .dns
            .zip(options.dns_forward)
            .map(|(listen, forward)| dns_config(listen, forward, options.ttl)),
        gateway_socket: options.gateway_socket,
        gateway_listen: options.gateway_listen,
        mode: options.explicit_prefix.map_or(AddressMode::Allocated, AddressMode::Explicit),
        admin: options.admin,
        pace: Pace::of(options.leaf_life),
        health: HealthConfig::default(),
        hub: HubConfig::default(),
    };
    let mut deps = Deps::default();
    let mut election = None;
    if let (Some((pod, name, token)), SourceConfig::Kubernetes { cluster, .. }) =
        (options.pod.config(), &config.source)
    {
        let (client, namespace) = kubernetes::connected(cluster).await?;
        let candidate = Election::new(client.clone(), &namespace, name.as_str(), Arc::clone(&deps.clock));
        let standing = candidate.standing();
        election = Some(Candidate::start(candidate));
        let prepared = Prepared { config: pod, client, namespace, standing: standing.clone() };
        let prepared = tokio::select! {
            prepared = prepared.joined(&config.data, config.admin) => prepared?,
            _ = signals.terminate() => {
                end(election).await;
                return Ok(());
            }
        };
        deps.replica = Some(Replica { name, standing, token, following: Some(prepared) });
    }
    let bound = agent::build(config, deps).await?;
    let ready = serde_json::json!({
        "dns": bound.dns.map(|address| address.to_string()),
        "admin": bound.admin.map(|address| address.to_string()),
        "webhook": bound.webhook.map(|address| address.to_string()),
        "gateway_socket": bound.gateway_socket,
        "gateways": bound.gateways.map(|address| address.to_string()),
        "cluster": bound.membership.cluster,
    });
    tracing::info!(
        cluster.name = %bound.membership.cluster,
        dns.address = bound.dns.map(tracing::field::display),
        gateway.socket = bound.gateway_socket.as_ref().map(|path| tracing::field::display(path.display())),
        gateway.address = bound.gateways.map(tracing::field::display),
        "the agent runs"
    );
    let stop = async {
        let signal = signals.terminate().await;
        tracing::info!(signal = ?signal, "draining");
        tokio::select! {
            () = tokio::time::sleep(last_calls) => {}
            _ = signals.terminate() => {}
        }
    };
    let ready_file = options.ready_file;
    let running = bound.run(stop, DRAIN);
    if let Some(path) = &ready_file {
        ready::write(path, &ready).with_context(|| format!("write the ready file {}", path.display()))?;
    }
    let ended = running.await;
    end(election).await;
    match ended {
        Ended::Stopped(drained) => {
            tracing::info!(drained = ?drained, "ended");
            Ok(())
        }
        Ended::Failed => bail!("a part of the agent failed; the log says which"),
    }
}

/// This replica's part in the election.
struct Candidate {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Candidate {
    fn start(election: Election) -> Self {
        let (stop, stopped) = oneshot::channel();
        let running = task::spawn("lease", election.run(async { drop(stopped.await) }));
        Self { stop, running }
    }
}

/// Lets go of the Lease.
async fn end(candidate: Option<Candidate>) {
    if let Some(Candidate { stop, running }) = candidate {
        let _ = stop.send(());
        let _ = running.await;
    }
}

fn dns_config(listen: SocketAddr, forward: ForwardTo, ttl: u16) -> dns::Config {
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
