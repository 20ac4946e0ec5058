//! What is looked at: lag, rotation, and what was made meanwhile.

use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;
use tombolo_testkit::wait::{until, until_ok};
use tombolo_tests::loopback::{SOON, World};

/// The addresses of wires.
pub(crate) fn addresses(world: &World, wires: &[&str]) -> Vec<SocketAddr> {
    wires.iter().map(|name| world.wire(name).address()).collect()
}

/// Another global namespace with everything in it: news for every cluster, agent and gateway.
pub(crate) async fn news(world: &World, name: &str) -> String {
    let rules = json!([{ "cluster": { "labels": {} }, "namespace": { "name": "default" } }]);
    let body = json!({ "name": name, "domain": format!("{name}.example.com"), "rules": rules });
    let path = "/organizations/acme/global-namespaces";
    until_ok("the controller writes", SOON, || world.api.try_post(path, &body)).await;
    format!("greet.{name}.example.com")
}

/// How a cluster is, as the API shows it.
pub(crate) async fn status(world: &World, cluster: u8) -> Value {
    world.api.get(&format!("/organizations/acme/clusters/cluster-{cluster}/status")).await
}

/// Waits until the API shows that a cluster is behind.
pub(crate) async fn lag_is_shown(world: &World, cluster: u8) {
    let behind = |status: &Value| {
        status["lag_ms"].as_u64().unwrap_or_default() > 0
            && status["applied_generation"].as_u64() < status["current_generation"].as_u64()
    };
    until("the lag is shown", SOON, || status(world, cluster), behind).await;
}

/// Waits until clusters are connected, have applied all and answer the name; gives how long that took from then.
pub(crate) async fn followed(world: &World, clusters: &[u8], name: &str, since: Instant) -> Duration {
    applied(world, clusters).await;
    until_ok("the new name is answered", SOON, || async { world.names().ask(name).await }).await;
    since.elapsed()
}

/// Waits until clusters are connected and have applied all.
pub(crate) async fn applied(world: &World, clusters: &[u8]) {
    for cluster in clusters {
        let whole = |status: &Value| {
            status["state"] == "connected"
                && status["lag_ms"] == 0
                && status["applied_generation"].as_u64() >= status["current_generation"].as_u64()
        };
        until("the cluster follows", SOON, || status(world, *cluster), whole).await;
    }
}

/// Waits until gateways are connected to their agent and know the name; gives how long that took from then.
pub(crate) async fn told(world: &World, gateways: &[&str], name: &str, since: Instant) -> Duration {
    for gateway in gateways {
        let knows = |state: &Value| {
            let routes = state["routes"].as_array().into_iter().flatten();
            let exports = state["exports"].as_array().into_iter().flatten();
            state["feed"]["connected"] == true
                && state["feed"]["lag"] == 0
                && routes.chain(exports).any(|one| one["name"] == name)
        };
        until(&format!("{gateway} knows {name}"), SOON, || world.state(gateway), knows).await;
    }
    since.elapsed()
}

/// Addresses of cluster-2 that the callers' egress gateways have in rotation.
pub(crate) async fn in_rotation(world: &World) -> usize {
    let mut alive = 0;
    for gateway in ["cluster-1-egress", "cluster-1-egress-b"] {
        let state = world.state(gateway).await;
        let peers = state["peers"]["cluster-2"].as_object().into_iter().flatten();
        alive +=
            peers.filter(|(_, peer)| !matches!(peer["health"].as_str(), Some("dead" | "unknown"))).count();
    }
    alive
}
