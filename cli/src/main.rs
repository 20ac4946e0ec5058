//! The `tombolo` program.

use clap::Parser as _;
use std::{io::Write as _, process::ExitCode};
use tombolo::{
    args::Cli,
    demo::{self, shop::Role},
    problem,
};

fn main() -> ExitCode {
    // The demo's shop is this same program under other names: a proxy tells its services apart by their executables.
    if let Some(role) = Role::of_this_process() {
        return demo::shop::main(role);
    }
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(tombolo::run(cli)));
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
