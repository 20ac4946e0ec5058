//! What each capture mode adds to a small request, beside what the same request takes without Tombolo.

use super::stage::{MODES, Stage, apart, apply, exec, host, namespace, stands};
use crate::{lab::Cluster, world::SOON};
use serde_json::Value;
use tombolo_testkit::wait::until_ok;

const FLOOR: &str = "battery-floor";
/// How long requests follow each other.
const FOR: &str = "5s";

/// Requests one after the other by one client, all on one connection or each on its own.
async fn load(cluster: &Cluster, space: &str, url: &str, fresh: bool) -> Value {
    let more: &[&str] = if fresh { &["-fresh", url] } else { &[url] };
    let command = [&["/tools", "load", "-clients", "1", "-for", FOR][..], more].concat();
    let said = exec(cluster, space, "tools", &command).await.expect("counts");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test]
async fn what_each_mode_takes() {
    let stage = Stage::up().await;
    let [one, other] = stage.pair.clusters();
    for cluster in [one, other] {
        apply(cluster, apart(FLOOR, cluster)).await;
    }
    tokio::join!(stands(one, FLOOR), stands(other, FLOOR));
    // A pod that wants no mode reaches global names all the same.
    let url = format!("http://{}:8080/", host("gateway"));
    let get = ["/tools", "get", "-timeout", "5s", &url];
    let said = until_ok("without a mode", SOON, || one.exec(FLOOR, "deploy/servers", &get)).await;
    assert!(said.contains(&format!(r#""server":"{}""#, other.name)), "{said}");
    let path = "jsonpath={.spec.ports[0].nodePort}";
    let port = other.kubectl(&["-n", FLOOR, "get", "service", "servers", "-o", path]).await.expect("a port");
    let node = other.node_address(1).await.expect("an address");

    // The floor is asked from pods that nothing is in, for what is not ours to carry.
    let plain = namespace("gateway");
    let mut rows = vec![
        ("in the cluster, no Tombolo", plain.clone(), format!("servers.{FLOOR}"), 8080, one),
        ("node port, no Tombolo", plain, node, port.parse().expect("a number"), other),
    ];
    for (mode, _) in MODES {
        rows.push((mode, namespace(mode), host(mode), 8080_u16, other));
    }
    println!(
        "{:<28} {:>8} {:>8}   {:>8} {:>8}   {:>8}",
        "ms", "kept p50", "p99", "new p50", "p99", "requests"
    );
    for (what, space, host, port, server) in rows {
        let get = ["/tools", "get", "-timeout", "5s", &format!("http://{host}:{port}/")];
        until_ok(&format!("{what} answers"), SOON, || exec(one, &space, "tools", &get)).await;
        // Called by address, so that a new connection does not ask the cluster's DNS for its name.
        let found = exec(one, &space, "tools", &["/tools", "resolve", &host]).await.expect("an address");
        let url = format!("http://{}:{port}/", found.lines().next().unwrap_or_default());
        let (kept, new) = (load(one, &space, &url, false).await, load(one, &space, &url, true).await);
        let mut requests = 0;
        for sum in [&kept, &new] {
            let count = sum["requests"].as_u64().expect("a count");
            assert!(count > 20 && sum["failed"] == 0, "{what}: {sum}");
            assert_eq!(sum["servers"][&server.name].as_u64(), Some(count), "{what}: {sum}");
            requests += count;
        }
        let ms = |sum: &Value, which: &str| sum[which].as_f64().expect("milliseconds");
        println!(
            "{what:<28} {:>8.2} {:>8.2}   {:>8.2} {:>8.2}   {requests:>8}",
            ms(&kept, "p50_ms"),
            ms(&kept, "p99_ms"),
            ms(&new, "p50_ms"),
            ms(&new, "p99_ms"),
        );
    }
    for cluster in [one, other] {
        let delete = ["delete", "namespace", FLOOR, "--timeout=180s"];
        cluster.kubectl(&delete).await.expect("the namespace goes");
    }
    stage.down().await;
}
