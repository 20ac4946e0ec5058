//! `tombolo demo`: a controller, two clusters and an online shop on this machine's loopback, set up through the public
//! API as a user would, until Ctrl-C. With `--check` every step is checked from outside.

mod check;
mod layout;
mod leftover;
mod lines;
mod manifests;
mod names;
mod process;
pub mod shop;
mod steps;
mod table;

use crate::{
    args::DemoArgs,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use layout::Layout;
use process::Fleet;
use tombolo_runtime::signal;

/// Runs it. Whatever happens, the processes are ended and the files removed before this returns.
///
/// # Errors
/// A step failed, or (with `--check`) something is not as it should be.
pub async fn run(args: DemoArgs, out: &Output) -> Result<()> {
    leftover::adopt_orphans()?;
    let layout = Layout::new(args.dir.as_deref())?;
    let mut fleet = Fleet::new(layout.logs());
    let outcome = tokio::select! {
        outcome = play(&args, &layout, &mut fleet, out) => outcome,
        _ = signal::terminate() => {
            out.line("");
            Ok(())
        }
        // The window was closed. Nobody reads what is said from here on.
        () = signal::hangup() => Ok(()),
    };
    if outcome.is_err() {
        fleet.print_last_lines(out);
    }
    out.line("stopping: every process is ended, every file removed");
    fleet.stop().await;
    // Before the folder goes: whoever is left may still write into it.
    let left = leftover::end_processes()?;
    let removed = if args.keep { Ok(()) } else { layout.remove() };
    if args.keep {
        out.line(&format!("its files are kept in {}", layout.dir().display()));
    }
    outcome?;
    removed?;
    if !left.is_empty() {
        let message = format!("these did not end by themselves, and were killed: {}", left.join(", "));
        if args.check {
            return Err(CliError::No(message).into());
        }
        out.line(&message);
    }
    if args.check {
        let files = if args.keep { Vec::new() } else { leftover::files(layout.dir()) };
        if !files.is_empty() {
            return Err(CliError::No(format!("files are left: {}", files.join(", "))).into());
        }
        out.line(&out.paint(Mood::Good, "✓ no process and no file is left"));
        out.line(&out.paint(Mood::Good, "the demo is as it should be"));
    }
    Ok(())
}

async fn play(args: &DemoArgs, layout: &Layout, fleet: &mut Fleet, out: &Output) -> Result<()> {
    let demo = steps::controller(layout, fleet, out).await?;
    steps::clusters(&demo, layout, fleet, out).await?;
    steps::shop(&demo, layout, fleet, out).await?;
    if args.check {
        check::before(layout, out).await?;
    }
    steps::global_namespace(&demo, layout, fleet, out).await?;
    if args.check {
        check::after(&demo, layout, out).await?;
    }
    table::print(&demo, layout, out).await?;
    if args.check {
        check::pasted(&demo, layout, out).await?;
        return Ok(());
    }
    table::live(&demo, out).await
}
