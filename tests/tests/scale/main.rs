//! What the controller takes with so many clusters: simulated agents over the true protocol (they join, hold their feeds, report what runs in
//! their clusters and how they are) against the true program and a true PostgreSQL. Prints each figure as soon as it is known, and tables.
//!
//! `make scale` runs it. An agent is a few tasks of this process with a connection, a certificate and a state of its own, so what is measured is
//! the controller; the time that this process takes of the machine is in the latencies, too.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]
#![expect(
    clippy::unwrap_used,
    reason = "a program for people who look at what went wrong; the lint knows test functions only"
)]

mod agent;
mod changes;
mod churn;
mod connector;
mod fill;
mod lists;
mod parts;
mod phase;
mod restart;
mod site;
mod world;

use phase::within;
use tombolo_tests::scale::{Options, curve, lists as shown_lists, targets};
use world::World;

#[tokio::main]
async fn main() {
    let options = Options::read(|name| std::env::var(name).ok()).unwrap_or_else(|error| panic!("{error}"));
    tombolo_runtime::limits::raise_open_files().unwrap();
    let (mut all, mut pages, mut failed) = (Vec::new(), Vec::new(), 0);
    let last = options.clusters.len().saturating_sub(1);
    for (at, clusters) in options.clusters.iter().enumerate() {
        println!("\n{clusters} clusters");
        let start = World::start(options.shape(*clusters));
        let Some(mut world) = within("all is made, and all know it", options.patience, start).await else {
            failed += 1;
            continue;
        };
        let limit = options.patience + options.idle + options.churn;
        let Some(mut measured) = within("idle and churn", limit, churn::measure(&world, &options)).await
        else {
            failed += 1;
            world.end().await;
            continue;
        };
        measured.restart = within("restart", options.patience, restart::measure(&mut world)).await;
        failed += usize::from(measured.restart.is_none());
        // lists are read where there is most
        let mut read = Vec::new();
        if at == last {
            let lists = lists::measure(&mut world, options.objects, &mut read);
            failed += usize::from(within("lists", options.patience, lists).await.is_none());
        }
        world.end().await;
        let (table, missed) = targets(&measured, &read);
        println!(
            "\n{clusters} clusters\n\n{table}\nrows written while nothing happened: {:?}",
            measured.writes
        );
        failed += if options.check { missed } else { usize::from(measured.lost > 0) };
        all.push(measured);
        pages.extend(read);
    }
    println!("\n{}\n{}", curve(&all), shown_lists(&pages));
    println!("{}", site::machine());
    assert!(failed == 0, "{failed} targets missed, or parts not done");
}
