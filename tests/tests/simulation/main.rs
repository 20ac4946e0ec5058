//! The control path in deterministic simulation. Two organizations with clusters of the same names, two replicas of the controller, agents
//! and gateways: their true decisions (`compile`, `publish`, `wire::session`, `feed::Follower`, `agent::engine`, `Hub`, `Synthesizer`, the
//! gateway's table), with a network that loses, delays, cuts and replays, disks that lie, and processes that die. One thread, no socket and
//! no clock: a seed says what happens next, and the same seed says the same.
//!
//! `TOMBOLO_SIM_SEEDS=N` runs seeds 1 to N, `TOMBOLO_SEED=S` that one alone, and prints what happened.
//!
//! What is not the true program here: PostgreSQL ([`database`]), who may connect (TLS), and when somebody wakes (the dice).
//!
//! # It can fail
//! Each of these changes of the true code was made once, alone, and found within the first 34 seeds (of two clusters each then):
//!
//! | where | what was changed | what was said |
//! |---|---|---|
//! | `wire::session` `not_older` | older generations are taken | the generation falls |
//! | the same, and `Publisher::open` | a replica that is behind sends all it has | the generation falls |
//! | `feed::cache` `read` | the digest is not looked at | not what it should be |
//! | controller `publish::org` `publish` | of changes that came together, the last one is told | not what it should be |
//! | controller `Settle::released_at` | whatever was written since | the virtual IP of a name that lives |
//! | controller `View::apply` | changes of one organization are applied to all | a byte of another tenant |
//! | `compile::incremental` `tell_peers` | peers that differ are not told | not what it should be |
//! | agent `engine` | no source is taken for an empty one | what its agent could never give it |
//! | agent `Hub::forgot` | never | an address that lives was withdrawn |
//!
//! Not found in 60 seeds by the simulation as it was then: base and digest of a delta not looked at; the seal of a kept generation not looked
//! at; an inventory of before stored over a later one; a gateway's later generation passed over (`Hub::open`); a lost inventory taken for stored
//! (the next connection asks); changes of the source passed over by `Synthesizer` (the controller's answer mends it); `TrustBundle::stands` not
//! asked. Since then it does what should find all but the first: digits of resources are wrong on their way, kept states are of another
//! generation than they say, requests are lost while the feed goes on and arrive at any time, the count of a cluster's gateways is lost while the
//! clock goes back, endpoints are replaced by as many others, and who was revoked is looked for among those who stand. None of these changes,
//! nor those of the table, was made once more to see it. A delta on another base whose digest is right leads to the right state all the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod agent;
mod database;
mod dice;
mod gateway;
mod network;
mod process;
mod replica;
mod running;
mod simulation;
mod site;
mod tenant;
mod wall;

use simulation::Simulation;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Instant,
};

/// Seeds of `make test`.
const SEEDS: u64 = 50;
/// Things that happen before everything is healed.
const STEPS: usize = 2000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a seed; the lines of what happened.
fn run(seed: u64) -> Vec<String> {
    let mut simulation = Simulation::new(seed);
    let whole = AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.heal();
    });
    let Err(cause) = catch_unwind(whole) else { return simulation.finish() };
    let lines = simulation.finish();
    let last = lines.len().saturating_sub(if number("TOMBOLO_SEED").is_some() { lines.len() } else { 30 });
    eprintln!("seed {seed}: what happened last, of {} things:", lines.len());
    lines[last..].iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("all of it: TOMBOLO_SEED={seed} cargo test --workspace --test simulation -- --nocapture");
    resume_unwind(cause)
}

#[test]
fn nothing_is_withdrawn_by_loss_and_all_converge() {
    let began = Instant::now();
    let seeds = match number("TOMBOLO_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("TOMBOLO_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut things = 0;
    for seed in seeds.clone() {
        things += run(seed).len();
    }
    eprintln!("seeds {seeds:?}: {things} things happened, in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn a_seed_says_the_same_twice() {
    let seed = number("TOMBOLO_SEED").unwrap_or(1);
    assert_eq!(run(seed), run(seed));
}
