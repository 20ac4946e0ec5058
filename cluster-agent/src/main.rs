//! `tombolo-agent`: joins a cluster to its controller, and runs its agent.

mod options;

use anyhow::{Context, bail};
use clap::Parser as _;
use options::{Command, Dns, Join, Options, Run, dns_config};
use std::{io::Read, path::Path, process::ExitCode, sync::Arc, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};
use tombolo_agent::{
    agent::{self, Config, Deps, Ended, Replica, SourceConfig},
    certificate::Pace,
    dns::process::Process,
    gateways::HubConfig,
    health::HealthConfig,
    join::{JoinConfig, join},
    lease::Election,
    pod::Prepared,
    registries::Registries,
    source::kubernetes,
    vip::AddressMode,
};
use tombolo_model::Locality;
use tombolo_runtime::{limits, memory, ready, signal::Signals, task, telemetry};

/// How long what is under way may take when the agent ends.
const DRAIN: Duration = Duration::from_secs(5);
/// A token is far shorter, in bytes.
const MAX_TOKEN: u64 = 4096;

fn main() -> ExitCode {
    memory::one_heap();
    let options = Options::parse();
    let result = telemetry::init(options.log_format).map_err(anyhow::Error::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            task::spawn("memory", memory::give_back_at_times());
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
