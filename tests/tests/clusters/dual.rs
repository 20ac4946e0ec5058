//! Clusters whose pods have IPv6 addresses beside the others: a pod calls another cluster by the name's IPv6 address, and a Service that has no other
//! address is called, from there and from within. The clusters are made anew for it, and after it.

use crate::{
    lab::{Cluster, Lab},
    onboard::{connected, join},
    proxied::{HTTP, Space, is_from, node_log},
    world::{SOON, World},
};
use serde_json::{Value, json};
use tombolo_testkit::wait::until_ok;

const SPACE: Space = Space("six");
const HOST: &str = "servers.six.example.com";
/// The namespace in mode `node`, of callers and servers.
const BELOW: Space = Space("below");
const HOST_BELOW: &str = "servers.below.example.com";

async fn install(world: &World, cluster: &Cluster) {
    let install = ["cluster", "install", &cluster.name, "--ingress", "node-port", "--node"];
    world.tombolo(&install).await.expect("it is installed");
}

/// A name's IPv6 address, as a pod is told.
async fn virtual_address(space: Space, cluster: &Cluster, host: &str) -> String {
    let found = async || {
        let said = space.tools(cluster, "caller", &["resolve", host]).await?;
        let six = said.split_whitespace().find(|word| word.starts_with("fd74:")).map(str::to_owned);
        six.ok_or(said)
    };
    until_ok("the name has an IPv6 address", SOON, found).await
}

/// The addresses of a pod in this family.
async fn address(cluster: &Cluster, app: &str) -> String {
    let all = SPACE.pod(cluster, app, "status.podIPs[*].ip").await;
    let six = all.split_whitespace().find(|address| address.contains(':'));
    six.unwrap_or_else(|| panic!("{app} of {} has no IPv6 address: {all}", cluster.name)).to_owned()
}

/// The same where the proxies are the nodes': the caller's takes the connection to the IPv6 address, and that of the server's node sees who calls.
async fn below(one: &Cluster, other: &Cluster) {
    let none = json!({});
    let only = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] });
    let servers = vec![
        BELOW.account("server"),
        BELOW.deployment("servers", "server", other, &none, true),
        BELOW.service("servers", &only),
    ];
    let callers = vec![BELOW.account("caller"), BELOW.deployment("caller", "caller", one, &none, true)];
    tokio::join!(
        BELOW.fill_in("node", one, callers, &["caller"]),
        BELOW.fill_in("node", other, servers, &["servers"])
    );
    let vip = virtual_address(BELOW, one, HOST_BELOW).await;
    let host = format!("[{vip}]");
    let workload = format!("/cluster/{}/ns/{}/sa/caller", one.name, BELOW.0);
    let dialled = format!("{host}:{HTTP}");
    let seen = async || {
        let answered = BELOW.get(one, "caller", &host).await?;
        if answered["server"] != other.name.as_str() {
            return Err(format!("answered by {answered}"));
        }
        let (sent, taken) = (node_log(one, "outbound").await, node_log(other, "inbound").await);
        let out = sent.iter().any(|line| line["original"] == dialled.as_str() && is_from(line, &workload));
        let known = taken.iter().any(|line| is_from(line, &workload));
        if out && known { Ok(()) } else { Err(format!("sent {sent:?}, taken {taken:?}")) }
    };
    until_ok("the nodes' proxies saw it", SOON, seen).await;
}

#[tokio::test]
async fn by_ipv6() {
    let lab = Lab::anew(2, &[("FAMILIES", "dual")]).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    for cluster in [one, other] {
        join(&world, cluster).await;
    }
    for cluster in [one, other] {
        until_ok("the agent connects", SOON, || connected(&world, &cluster.name)).await;
    }
    for space in [SPACE, BELOW] {
        let domain = format!("{}.example.com", space.0);
        let gns = ["gns", "create", space.0, "--domain", &domain, "--namespace", space.0];
        world.tombolo(&gns).await.expect("a global namespace");
    }
    tokio::join!(install(&world, one), install(&world, other));
    for cluster in [one, other] {
        let asked = async || {
            let path = "jsonpath={.webhooks[*].name}";
            let get = ["get", "mutatingwebhookconfiguration", "tombolo", "-o", path];
            let names = cluster.kubectl(&get).await?;
            if names.contains("sidecar.tombolo.io") { Ok(()) } else { Err(names) }
        };
        until_ok("the webhook is configured", SOON, asked).await;
    }

    let none = json!({});
    let only = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] });
    let servers = vec![
        SPACE.account("server"),
        SPACE.deployment("servers", "server", other, &none, true),
        SPACE.deployment("plain", "server", other, &none, false),
        SPACE.service("servers", &only),
    ];
    let callers = vec![
        SPACE.account("caller"),
        SPACE.deployment("caller", "caller", one, &none, true),
        SPACE.deployment("plain", "caller", one, &none, false),
    ];
    tokio::join!(
        SPACE.fill(one, callers, &["caller", "plain"]),
        SPACE.fill(other, servers, &["servers", "plain"])
    );
    let vip = virtual_address(SPACE, one, HOST).await;
    let host = format!("[{vip}]");

    // From another cluster: past the caller's proxy to the server's, which knows who calls; and from a pod without one, by the egress gateways.
    for app in ["caller", "plain"] {
        let answered = until_ok(app, SOON, || SPACE.get(one, app, &host)).await;
        assert_eq!(answered["server"], other.name.as_str(), "{app}: {answered}");
    }
    let workload = format!("/cluster/{}/ns/{}/sa/caller", one.name, SPACE.0);
    let dialled = format!("{host}:{HTTP}");
    let seen = async || {
        let sent = SPACE.log(one, "caller", "outbound").await;
        let taken = SPACE.log(other, "servers", "inbound").await;
        let out = sent.iter().any(|line| line["original"] == dialled.as_str());
        let known = taken.iter().any(|line| is_from(line, &workload));
        if out && known { Ok(()) } else { Err(format!("sent {sent:?}, taken {taken:?}")) }
    };
    until_ok("the proxies saw it", SOON, seen).await;

    // From within the cluster: what comes in by IPv6 is captured, too.
    let (from, to) = (address(other, "plain").await, address(other, "servers").await);
    let within = "servers.six.svc.cluster.local";
    let answered = until_ok("from within the cluster", SOON, || SPACE.get(other, "plain", within)).await;
    assert_eq!(answered["server"], other.name.as_str(), "{answered}");
    let passed = async || {
        let taken = SPACE.log(other, "servers", "inbound").await;
        let is = |line: &Value| {
            let client = line["client"].as_str().unwrap_or_default();
            line["original"] == format!("[{to}]:{HTTP}").as_str() && client.starts_with(&format!("[{from}]:"))
        };
        if taken.iter().any(is) { Ok(()) } else { Err(format!("{taken:?}")) }
    };
    until_ok("it passed the server's proxy", SOON, passed).await;
    for (cluster, app) in [(one, "caller"), (other, "servers")] {
        let restarts = SPACE.pod(cluster, app, "status.containerStatuses[*].restartCount").await;
        assert_eq!(restarts, "0", "{app}: probes");
    }
    println!("called by {vip}, served by a Service of IPv6 alone");
    below(one, other).await;
    lab.usual_again().await;
}
