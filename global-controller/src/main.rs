//! `tombolo-controller`: reads options, runs the controller, ends in order.

use anyhow::Context as _;
use clap::Parser as _;
use serde_json::json;
use std::{io::Write as _, process::ExitCode, sync::Arc};
use tombolo_controller::{
    Config, Deps, build,
    config::{Cli, Command, Environment, LogFormat, ServeOptions},
    openapi,
};
use tombolo_runtime::{clock::SystemClock, limits, ready, signal::Signals, telemetry};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Openapi => print(&openapi()),
        Command::Serve(options) => start(*options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // the log may not be set up yet, and people look here first
            let _ = writeln!(std::io::stderr(), "tombolo-controller: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("write to standard output")
}

fn start(options: ServeOptions) -> anyhow::Result<()> {
    telemetry::init(match options.log_format {
        LogFormat::Auto => telemetry::LogFormat::Auto,
        LogFormat::Json => telemetry::LogFormat::Json,
        LogFormat::Text => telemetry::LogFormat::Text,
    })?;
    limits::prepare();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(options))
}

async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let mut signals = Signals::install().context("take over signals")?;
    let ready_file = options.ready_file.clone();
    let config = Config::new(options, Environment::read())?;
    let bound = tokio::select! {
        bound = build(config, Deps { clock: Arc::new(SystemClock) }) => bound?,
        _ = signals.terminate() => return Ok(()),
    };
    if let Some(token) = &bound.owner_token {
        print(&format!(
            "This is the first start. The owner token, shown only now:\n\n    {}\n\nLog in with it (it is asked for):\n\n    tombolo login --server {} --ca-fingerprint {}\n",
            token.as_str(),
            bound.public_url,
            bound.ca_fingerprint
        ))?;
    }
    if let Some(path) = &ready_file {
        let fields = json!({
            "api": bound.api,
            "admin": bound.admin,
            "public_url": bound.public_url,
            "ca_fingerprint": bound.ca_fingerprint,
        });
        ready::write(path, &fields).with_context(|| format!("write {}", path.display()))?;
    }
    signals.terminate().await;
    tracing::info!("ending");
    bound.drain().await;
    if let Some(path) = &ready_file {
        // a ready file without a process would mislead
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
