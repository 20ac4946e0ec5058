//! The `tombolo` program.

use clap::Parser as _;
use std::{io::Write as _, process::ExitCode};
use tombolo::{args::Cli, demo, problem};

fn main() -> ExitCode {
    // The demo's shop is this same program under another name: a proxy tells its services apart by their executable.
    let shop = demo::shop::Role::of_this_program();
    let cli = if shop.is_none() { Some(Cli::parse()) } else { None };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(async {
        match (shop, cli) {
            (Some(role), _) => demo::shop::main(role).await,
            (None, Some(cli)) => tombolo::run(cli).await,
            (None, None) => Ok(()),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to do where even this can't be written.
    let _ = writeln!(std::io::stderr(), "{}", problem::render(error));
    problem::exit_code(error)
}
