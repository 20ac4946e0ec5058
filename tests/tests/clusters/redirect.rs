//! Capture mode `node` where nodes' proxies may load no BPF programs: a policy of the cluster takes the capability from their pods, as some platforms
//! do. They have nftables redirect connections then: a pod calls another cluster by name, the server's proxy sees who it is, a proxy that is replaced
//! captures again, and nothing is left when it goes. The clusters are made anew for it, with such policies switched on, and after it.

use crate::{
    capture::on_node,
    lab::{Cluster, Lab},
    onboard::{connected, join},
    proxied::{HTTP, Space, is_from, node_log},
    world::{SOON, World},
};
use serde_json::{Value, json};
use tombolo_testkit::wait::{until, until_ok};

const SPACE: Space = Space("led");
const HOST: &str = "servers.led.example.com";
/// Policies that change objects are off in this version of Kubernetes, unless asked for.
const POLICIES: &str =
    "--feature-gates=MutatingAdmissionPolicy=true --runtime-config=admissionregistration.k8s.io/v1beta1=true";

/// A policy that takes `BPF` from pods of nodes' proxies, whatever their DaemonSet says.
async fn withhold_bpf(cluster: &Cluster) {
    let api = "admissionregistration.k8s.io/v1beta1";
    let pods =
        json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
    let of_nodes = json!({ "name": "of-nodes",
        "expression": "object.metadata.?labels['app.kubernetes.io/name'].orValue('') == 'tombolo-node'" });
    let change = "[JSONPatch{ op: 'replace', path: '/spec/containers/0/securityContext/capabilities/add', value: ['NET_ADMIN'] }]";
    let policy = json!({ "apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": { "name": "no-bpf" },
        "spec": {
            "matchConstraints": { "resourceRules": [pods] }, "matchConditions": [of_nodes],
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": change } }],
        } });
    let binding = json!({ "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": "no-bpf" },
        "spec": { "policyName": "no-bpf" } });
    for object in [policy, binding] {
        cluster.apply(&object.to_string()).await.expect("a policy");
    }
    // the API server hears of it a moment later
    let probe = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "asked-only", "namespace": "default", "labels": { "app.kubernetes.io/name": "tombolo-node" } },
        "spec": { "containers": [{ "name": "tools", "image": "localhost/tools:dev",
            "securityContext": { "capabilities": { "add": ["NET_ADMIN", "BPF"] } } }] } });
    let path = "jsonpath={.spec.containers[0].securityContext.capabilities.add[*]}";
    let create = ["create", "--dry-run=server", "-f", "-", "-o", path];
    let given = async || cluster.kubectl_with(&create, &probe.to_string()).await;
    let _ =
        until("BPF is withheld", SOON, given, |given| given.as_deref().is_ok_and(|all| all == "NET_ADMIN"))
            .await;
}

async fn install(world: &World, cluster: &Cluster, node: &str) -> String {
    let order = ["cluster", "install", &cluster.name, "--ingress", "node-port", node];
    world.tombolo(&order).await.expect("it is installed")
}

/// The proxy has no choice, says why, and its node has the rules of this way and no route of the other.
async fn redirects(world: &World, cluster: &Cluster) {
    let shown = async || world.tombolo(&["cluster", "show", &cluster.name]).await;
    let told = |shown: &Result<String, String>| {
        shown.as_deref().is_ok_and(|shown| shown.contains("redirect: ") && !shown.contains("lookup"))
    };
    let _ = until(&format!("{} says so", cluster.name), SOON, shown, told).await;
    let look = "nft list table inet tombolo_node; echo; ip route show table local 240.0.0.0/4";
    let there = async || cluster.node_exec(1, &["bash", "-c", look]).await;
    let good = |found: &Result<String, String>| {
        found.as_deref().is_ok_and(|found| {
            let by_redirect = found.contains("redirect to :15001") && !found.contains("dnat");
            by_redirect && !found.contains("local 240.0.0.0/4")
        })
    };
    let _ = until("the node has the rules, and no route", SOON, there, good).await;
}

/// A call of the unchanged pod, which both nodes' proxies wrote down after so many others: with the caller's own proof.
async fn is_seen(one: &Cluster, other: &Cluster, after: usize) -> usize {
    let workload = format!("/cluster/{}/ns/{}/sa/caller", one.name, SPACE.0);
    let to = format!("{HOST}:{HTTP}");
    let seen = async || {
        let answered = SPACE.get(one, "caller", HOST).await?;
        if answered["server"] != other.name.as_str() {
            return Err(format!("answered by {answered}"));
        }
        let (sent, taken) = (node_log(one, "outbound").await, node_log(other, "inbound").await);
        let of_caller = |line: &&Value| is_from(line, &workload) && line["destination"] == to.as_str();
        let count = taken.iter().filter(of_caller).count();
        if count > after && sent.iter().any(|line| of_caller(&line)) {
            Ok(count)
        } else {
            Err(format!("sent {sent:?}, taken {taken:?}"))
        }
    };
    until_ok("the server's proxy sees who calls", SOON, seen).await
}

#[tokio::test]
async fn without_bpf_connections_are_redirected() {
    let lab = Lab::anew(2, &[("APISERVER_EXTRA", POLICIES)]).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    let before = [on_node(one).await, on_node(other).await];
    for cluster in [one, other] {
        withhold_bpf(cluster).await;
        join(&world, cluster).await;
    }
    for cluster in [one, other] {
        until_ok("the agent connects", SOON, || connected(&world, &cluster.name)).await;
    }
    let gns = ["gns", "create", SPACE.0, "--domain", "led.example.com", "--namespace", SPACE.0];
    world.tombolo(&gns).await.expect("a global namespace");
    tokio::join!(install(&world, one, "--node"), install(&world, other, "--node"));
    let servers = vec![
        SPACE.account("server"),
        SPACE.deployment("servers", "server", other, &json!({}), true),
        SPACE.service("servers", &json!({})),
    ];
    let callers = vec![SPACE.account("caller"), SPACE.deployment("caller", "caller", one, &json!({}), true)];
    tokio::join!(
        SPACE.fill_in("node", one, callers, &["caller"]),
        SPACE.fill_in("node", other, servers, &["servers"])
    );
    tokio::join!(redirects(&world, one), redirects(&world, other));
    let containers = SPACE.pod(one, "caller", "spec['initContainers','containers'][*].name").await;
    assert_eq!(containers.trim(), "tools", "the pod is as it was made");
    let calls = is_seen(one, other, 0).await;

    // The next proxy finds what the one before left, and captures again.
    for args in
        [&["restart", "daemonset/tombolo-node"][..], &["status", "daemonset/tombolo-node", "--timeout=240s"]]
    {
        let rollout = ["-n", "tombolo-system", "rollout"];
        one.kubectl(&[&rollout[..], args].concat()).await.expect("it is replaced");
    }
    redirects(&world, one).await;
    is_seen(one, other, calls).await;

    // Without proxies nothing is left on the nodes, and calls are answered, from nobody that is known.
    tokio::join!(install(&world, one, "--no-node"), install(&world, other, "--no-node"));
    for (cluster, before) in [one, other].into_iter().zip(&before) {
        let what = format!("{}: its node is as it was: {before}", cluster.name);
        let _ = until(&what, SOON, || on_node(cluster), |now| now == before).await;
    }
    let answered = until_ok("as in mode gateway", SOON, || SPACE.get(one, "caller", HOST)).await;
    assert_eq!(answered["server"], other.name.as_str(), "{answered}");
    lab.usual_again().await;
}
