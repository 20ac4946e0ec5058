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

/// Waits until the API shows that a cluster is behind.
pub(crate) async fn lag_is_shown(world: &World, cluster: u8) {
    let behind = |status: &Value| {
        status["lag_ms"].as_u64().unwrap_or_default() > 0
            && status["applied_generation"].as_u64() < status["current_generation"].as_u64()
    };
    until("the lag is shown", SOON, || world.status(cluster), behind).await;
}

/// Waits until the agents of clusters know the name, and it is answered; gives how long that took from then. That the API shows it, too, is
/// waited for.
pub(crate) async fn followed(world: &World, clusters: &[u8], name: &str, since: Instant) -> Duration {
    for cluster in clusters {
        let agent = format!("cluster-{cluster}-agent");
        let page = format!("http://{}/dump/snapshot", world.program(&agent).address("admin"));
        let look = || async { world.api.page(page.clone()).await.to_string().contains(name) };
        until(&format!("{agent} knows {name}"), SOON, look, |known| *known).await;
    }
    until_ok("the new name is answered", SOON, || async { world.names().ask(name).await }).await;
    let took = since.elapsed();
    world.all_follow(clusters).await;
    eprintln!("  known after {took:?}; the API shows it after {:?}", since.elapsed());
    took
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
