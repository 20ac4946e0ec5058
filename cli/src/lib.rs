//! The `tombolo` command: a client of the published API, and nothing it does is out of another client's reach.
//!
//! One module for each noun, and one for each verb that spans nouns (`apply`, `explain`, `doctor`, `demo`).

pub mod apply;
pub mod args;
pub mod audit;
pub mod client;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod gns;
pub mod install;
pub mod kubernetes;
pub mod login;
pub mod org;
pub mod output;
mod plain;
pub mod problem;
pub mod service;
pub mod token;

use crate::{
    args::{Cli, Command},
    output::Output,
};
use anyhow::Result;

/// Runs one command.
///
/// # Errors
/// What went wrong, for people; [`problem::exit_code`] says with which code to end.
pub async fn run(cli: Cli) -> Result<()> {
    let out = Output::new(cli.global.output, cli.global.no_color);
    match cli.command {
        Command::Login(args) => login::run(&cli.global, args, &out).await,
        Command::Org(args) => org::run(&connect(&cli.global).await?, args, &out).await,
        Command::Cluster(args) => cluster::run(&connect(&cli.global).await?, args, &out).await,
        Command::Gns(args) => gns::run(&connect(&cli.global).await?, args, &out).await,
        Command::Service(args) => service::run(&connect(&cli.global).await?, args, &out).await,
        Command::Token(args) => token::run(&connect(&cli.global).await?, args, &out).await,
        Command::Audit(args) => audit::run(&connect(&cli.global).await?, args, &out).await,
        Command::Apply(args) => {
            apply::run(&connect(&cli.global).await?, args, apply::Mode::Apply, &out).await
        }
        Command::Diff(args) => apply::run(&connect(&cli.global).await?, args, apply::Mode::Diff, &out).await,
        Command::Explain(args) => explain::run(&connect(&cli.global).await?, args, &out).await,
        Command::Doctor => doctor::run(&cli.global, &out).await,
        Command::Demo(args) => demo::run(args, &out).await,
        Command::Completion { shell } => {
            args::completion(shell, &mut std::io::stdout());
            Ok(())
        }
    }
}

async fn connect(global: &args::Global) -> Result<client::Client> {
    client::Client::connect(config::resolve(global)?).await
}
