//! What carries no bytes: nothing notices that it is gone.

use crate::{Load, SOON, World};
use serde_json::json;
use tokio::time::Instant;
use tombolo_testkit::{postgres, wait::until_ok};

/// A new organization: what is acknowledged is written.
async fn written(world: &World, name: &str) {
    let body = json!({ "name": name, "domain": format!("{name}.example.com"), "rules": [] });
    let path = "/organizations/acme/global-namespaces";
    until_ok("the controller writes", SOON, || world.api.try_post(path, &body)).await;
    let all = world.api.get(path).await;
    assert!(all.to_string().contains(&format!("{name}.example.com")), "{all}");
}

pub(crate) async fn a_replica_of_the_controller_is_killed(world: &mut World, load: &Load) {
    for (turn, name) in ["controller", "controller-b"].into_iter().enumerate() {
        load.whole().await;
        let begin = Instant::now();
        world.kill(name);
        written(world, &format!("without-{turn}")).await;
        load.since(begin, Instant::now()).await.nothing_noticed(world);
        world.restart(name).await;
    }
}

pub(crate) async fn both_replicas_are_killed(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    world.kill("controller");
    world.kill("controller-b");
    load.since(begin, begin).await.nothing_noticed(world);
    let back = Instant::now();
    world.restart("controller").await;
    world.restart("controller-b").await;
    written(world, "both-back").await;
    load.since(back, back).await.nothing_noticed(world);
}

pub(crate) async fn postgres_is_killed(world: &mut World, load: &Load) {
    load.whole().await;
    written(world, "before-the-crash").await;
    let begin = Instant::now();
    tokio::task::spawn_blocking(postgres::crash).await.unwrap();
    written(world, "after-the-crash").await;
    let all = world.api.get("/organizations/acme/global-namespaces").await.to_string();
    assert!(all.contains("before-the-crash.example.com"), "what was acknowledged is there: {all}");
    load.since(begin, begin).await.nothing_noticed(world);
}

pub(crate) async fn an_agent_is_killed(world: &mut World, load: &Load) {
    for name in ["cluster-1-agent", "cluster-2-agent"] {
        load.whole().await;
        let begin = Instant::now();
        world.kill(name);
        load.since(begin, begin).await.nothing_noticed(world);
        let back = Instant::now();
        world.restart(name).await;
        load.since(back, back).await.nothing_noticed(world);
    }
}

pub(crate) async fn an_agent_starts_without_a_controller(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    world.kill("controller");
    world.kill("controller-b");
    for name in ["cluster-1-agent", "cluster-2-agent"] {
        world.kill(name);
        world.restart(name).await;
    }
    load.since(begin, Instant::now()).await.nothing_noticed(world);
    world.restart("controller").await;
    world.restart("controller-b").await;
    load.whole().await;
}
