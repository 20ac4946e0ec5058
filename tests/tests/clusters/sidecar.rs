//! Ports that a pod in mode `sidecar` takes out of its capture by annotations: what it calls there goes past its proxy, and so do those who call it.

use crate::{
    lab::Cluster,
    pair::Pair,
    proxied::{ECHO, HTTP, Space, is_from},
    world::SOON,
};
use serde_json::{Value, json};
use tombolo_testkit::wait::until_ok;

const SPACE: Space = Space("ports");
const HOST: &str = "servers.ports.example.com";
/// Excluded: of callers what goes out to it, of servers what comes in.
const EXCLUDED: u16 = HTTP;
/// Captured as ever.
const CAPTURED: u16 = ECHO;

/// Those of a global name's port.
fn to(lines: &[Value], port: u16) -> Vec<&Value> {
    let wanted = format!("{HOST}:{port}");
    lines.iter().filter(|line| line["destination"] == wanted.as_str()).collect()
}

/// Those that came to this port of the pod from within the cluster.
fn plain(lines: &[Value], port: u16) -> Vec<&Value> {
    let ending = format!(":{port}");
    let is = |line: &&Value| {
        line["destination"].is_null() && line["original"].as_str().is_some_and(|to| to.ends_with(&ending))
    };
    lines.iter().filter(is).collect()
}

async fn echoes(cluster: &Cluster, app: &str, host: &str) -> Result<(), String> {
    let said = SPACE.tools(cluster, app, &["tcp", &format!("{host}:{CAPTURED}"), "hello"]).await?;
    if said.contains("hello") { Ok(()) } else { Err(said) }
}

#[tokio::test]
async fn excluded_ports_pass_the_proxy_by() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    let gns = ["gns", "create", SPACE.0, "--domain", "ports.example.com", "--namespace", SPACE.0];
    pair.world.tombolo(&gns).await.expect("a global namespace");
    let out = json!({ "tombolo.io/exclude-outbound-ports": EXCLUDED.to_string() });
    let into = json!({ "tombolo.io/exclude-inbound-ports": EXCLUDED.to_string() });
    let servers = vec![
        SPACE.account("server"),
        SPACE.deployment("servers", "server", other, &into, true),
        SPACE.deployment("plain", "server", other, &json!({}), false),
        SPACE.service("servers", &json!({})),
    ];
    let callers = vec![SPACE.account("caller"), SPACE.deployment("caller", "caller", one, &out, true)];
    tokio::join!(SPACE.fill(one, callers, &["caller"]), SPACE.fill(other, servers, &["servers", "plain"]));
    for (cluster, app) in [(one, "caller"), (other, "servers")] {
        let names = SPACE.pod(cluster, app, "spec.initContainers[*].name").await;
        assert_eq!(names, "tombolo-init tombolo-proxy", "{app}");
    }

    // Outgoing: both ports are answered; the caller's proxy saw one of them, and the server's knows who called there.
    let answered = until_ok("the excluded port", SOON, || SPACE.get(one, "caller", HOST)).await;
    assert_eq!(answered["server"], other.name.as_str(), "{answered}");
    let workload = format!("/cluster/{}/ns/{}/sa/caller", one.name, SPACE.0);
    let seen = async || {
        echoes(one, "caller", HOST).await?;
        let (sent, taken) =
            (SPACE.log(one, "caller", "outbound").await, SPACE.log(other, "servers", "inbound").await);
        let is_caller = |line: &&Value| is_from(line, &workload);
        let known = to(&taken, CAPTURED).into_iter().filter(is_caller).count();
        let by_excluded = to(&taken, EXCLUDED).into_iter().filter(is_caller).count();
        if known == 0 || to(&sent, CAPTURED).is_empty() || to(&taken, EXCLUDED).is_empty() {
            return Err(format!("sent {sent:?}, taken {taken:?}"));
        }
        Ok((to(&sent, EXCLUDED).len(), by_excluded))
    };
    let past = until_ok("the captured port is seen with its caller", SOON, seen).await;
    assert_eq!(past, (0, 0), "the excluded port passed the caller's proxy");

    // Incoming: from within the cluster both are answered; at the excluded one the application sees who calls, and its proxy sees nobody.
    let within = "servers.ports.svc.cluster.local";
    let from = SPACE.pod(other, "plain", "status.podIP").await;
    let answered = until_ok("from within the cluster", SOON, || SPACE.get(other, "plain", within)).await;
    let peer = answered["peer"].as_str().unwrap_or_default();
    assert!(peer.starts_with(&format!("{from}:")), "called by {from}, seen from {peer}");
    let passed = async || {
        echoes(other, "plain", within).await?;
        let taken = SPACE.log(other, "servers", "inbound").await;
        let of_pod = |line: &&Value| {
            line["client"].as_str().is_some_and(|client| client.starts_with(&format!("{from}:")))
        };
        if plain(&taken, CAPTURED).iter().any(of_pod) {
            Ok(plain(&taken, EXCLUDED).len())
        } else {
            Err(format!("{taken:?}"))
        }
    };
    let past = until_ok("the captured port passes the server's proxy", SOON, passed).await;
    assert_eq!(past, 0, "the excluded port, which the kubelet asks each second, passed the proxy");

    // Probes of both ports went well all along.
    for (cluster, app) in [(one, "caller"), (other, "servers")] {
        let restarts = SPACE.pod(cluster, app, "status.containerStatuses[*].restartCount").await;
        assert_eq!(restarts, "0", "{app}");
    }
    pair.world.tombolo(&["gns", "remove", SPACE.0, "--yes"]).await.expect("it goes");
    tokio::join!(SPACE.clear(one), SPACE.clear(other));
    pair.park().await;
}
