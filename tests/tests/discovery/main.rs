//! What an agent takes that knows 5,000 services with 50,000 endpoints, each a pod: memory and CPU, printed. It asserts nothing about them.
//!
//! `make measure-discovery` runs it, against a true API server. Nodes and their proxies have no part in it, for it is the agent that is looked at.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

mod fill;
#[path = "../kubernetes/server.rs"]
#[expect(dead_code, reason = "it measures with some of what the tests use")]
mod server;
mod taken;
#[path = "../kubernetes/world.rs"]
#[expect(dead_code, reason = "it measures with some of what the tests use")]
mod world;

use fill::{ENDPOINTS, services};
use server::{ADMIN, Store};
use std::time::{Duration, Instant};
use taken::Taken;
use tombolo_testkit::wait::until;
use world::{Agent, Controller};

/// How long it may take until all are known: on a machine that does other things, much longer than else.
const KNOWN: Duration = Duration::from_secs(900);
/// How long is looked at what it takes when nothing happens, and when one endpoint after the other changes.
const LOOK: Duration = Duration::from_secs(20);

/// How many services the agent reports with all their endpoints ready, and whether their last name has an address.
async fn known(agent: &Agent) -> (usize, bool) {
    let last = format!("service-{}.scale.example.com", services() - 1);
    // Only then the inventory: what it takes to tell it all would be measured too.
    if agent.ask(&last).await.is_err() {
        return (0, false);
    }
    let ready = format!(" {ENDPOINTS}/{ENDPOINTS} ");
    let all = agent.inventory().await.iter().filter(|line| line.contains(&ready)).count();
    (all, true)
}

/// What it takes while the time passes and this is done.
async fn meanwhile(agent: &Agent, what: &str, deed: impl Future<Output = usize>) {
    let (before, began) = (Taken::by(agent.program.pid()), Instant::now());
    let done = deed.await;
    let (after, passed) = (Taken::by(agent.program.pid()), began.elapsed().as_secs_f64());
    println!(
        "{what}: {:.1} % of a core, {} changes in {passed:.0} s, {after}",
        (after.cpu_s - before.cpu_s) / passed * 100.0,
        done
    );
}

/// The time itself is what is looked at.
async fn nothing() -> usize {
    tokio::time::sleep(LOOK).await;
    0
}

#[tokio::main]
async fn main() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    fill::rights(&client).await;
    let controller = Controller::start().await;
    let rules: Vec<_> = fill::namespaces()
        .map(|name| serde_json::json!({ "cluster": { "labels": {} }, "namespace": { "name": name } }))
        .collect();
    let gns = serde_json::json!({ "name": "scale", "domain": "scale.example.com", "rules": rules });
    controller.call(reqwest::Method::POST, "/organizations/acme/global-namespaces", Some(gns)).await;
    controller.join(home.path()).await;
    let agent = Agent::start(home.path(), &server, &["--capture", "gateway"]).await;
    println!("agent without anything: {}", Taken::by(agent.program.pid()));

    let began = Instant::now();
    fill::fill(&client).await;
    println!(
        "{} services with {} endpoints were made in {:.0} s",
        services(),
        services() * ENDPOINTS,
        began.elapsed().as_secs_f64()
    );
    until("all are known", KNOWN, || known(&agent), |all| *all == (services(), true)).await;
    println!(
        "known {:.0} s after the first was made: {}",
        began.elapsed().as_secs_f64(),
        Taken::by(agent.program.pid())
    );
    // Each has two names, and each name a Service: not before then has the agent nothing more to do.
    until("all names have a Service", KNOWN, || fill::exposed(&client), |made| *made == 2 * services()).await;
    println!(
        "all names have a Service {:.0} s after the first was made: {}",
        began.elapsed().as_secs_f64(),
        Taken::by(agent.program.pid())
    );

    meanwhile(&agent, "nothing happens", nothing()).await;
    drop(agent);
    let began = Instant::now();
    let agent = Agent::start(home.path(), &server, &["--capture", "gateway"]).await;
    until("all are known again", KNOWN, || known(&agent), |all| *all == (services(), true)).await;
    println!(
        "started anew, all are known after {:.0} s: {}",
        began.elapsed().as_secs_f64(),
        Taken::by(agent.program.pid())
    );
    meanwhile(&agent, "nothing happens", nothing()).await;
    meanwhile(&agent, "one endpoint after the other changes", fill::churn(&client, LOOK)).await;
}
