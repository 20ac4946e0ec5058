//! `tombolo-gateway`: carries requests between workloads, across clusters.

mod options;

use anyhow::Context;
use clap::Parser;
use options::{Command, Options};
use serde_json::json;
use std::{num::NonZero, process::ExitCode, sync::Arc, thread::available_parallelism};
use tokio::{
    runtime::{Builder, Handle},
    signal::unix::{SignalKind, signal},
};
use tombolo_gateway::{capture::redirect::Redirect, config::Config, process};
use tombolo_model::GatewayRole;
use tombolo_runtime::{
    clock::SystemClock, drain::Drained, lanes::Lanes, limits, ready, signal::Signals, task, telemetry,
};

fn main() -> ExitCode {
    let options = Options::parse();
    let done =
        telemetry::init(options.log_format).context("set up logging").and_then(|()| match options.command {
            Command::Run(run) => run.config().map_err(anyhow::Error::msg).and_then(start),
            Command::Redirect(redirect) => match redirect.wanted() {
                Some(wanted) => wanted.install().context("install the redirect (it needs root and nft)"),
                None => Redirect::remove().context("remove the redirect (it needs root and nft)"),
            },
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "tombolo-gateway ends");
            ExitCode::FAILURE
        }
    }
}

/// Threads for connections, and one for the agent and the admin port.
fn start(mut config: Config) -> anyhow::Result<()> {
    limits::prepare();
    let (data, lanes, threads) = Lanes::start("data", lanes(config.role)).context("start the data path")?;
    config.lanes = lanes;
    let control = Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build();
    let control = control.context("start the control part")?;
    let ended = data.block_on(run(config, control.handle().clone()));
    // what still runs is what the drain gave up on
    control.shutdown_background();
    threads.stop();
    data.shutdown_background();
    ended
}

/// A thread for each processor, up to a number that a network card does not wait for. There are many proxies beside applications, and who
/// takes their tunnels has a bound.
fn lanes(role: GatewayRole) -> usize {
    let most = if role.is_beside_applications() { LANES_BESIDE } else { LANES };
    available_parallelism().map_or(1, NonZero::get).min(most)
}

/// The most threads of the data path: each has its own tunnels.
const LANES: usize = 8;
const LANES_BESIDE: usize = 2;

async fn run(config: Config, control: Handle) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("take over the signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("take over SIGHUP")?;
    let (ready_file, deadline) = (config.ready_file.clone(), config.timing.drain);
    let last_calls = config.timing.last_calls;
    let (role, instance) = (config.role, config.instance.clone());
    let bound = process::build(config, Arc::new(SystemClock), control).await?;
    tracing::info!(%role, instance, tunnel = %bound.tunnel, "bound");

    let log = bound.shared.log.clone();
    task::spawn("hangup", async move {
        while hangup.recv().await.is_some() {
            log.reopen();
        }
    });
    let why = tokio::select! {
        biased;
        why = signals.terminate() => why,
        () = bound.ready() => {
            tracing::info!("ready");
            if let Some(path) = &ready_file {
                let fields = json!({
                    "tunnel": bound.tunnel,
                    "admin": bound.admin,
                    "outbound": bound.outbound.first(),
                });
                ready::write(path, &fields).with_context(|| format!("write {}", path.display()))?;
            }
            signals.terminate().await
        }
    };
    tracing::info!(signal = ?why, "draining; a second signal ends it at once");
    bound.shared.leave();
    let ending = async {
        tokio::time::sleep(last_calls).await;
        bound.drain(deadline).await
    };
    tokio::select! {
        drained = ending => match drained {
            Drained::All => tracing::info!("drained"),
            Drained::Cut(left) => tracing::warn!(left, "the deadline passed; connections were cut"),
        },
        _ = signals.terminate() => tracing::warn!("ended without waiting"),
    }
    Ok(())
}
