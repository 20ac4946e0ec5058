//! The capture modes beside each other, namespace by namespace: unchanged pods call another cluster's services, and its proxies see who they are.

#![expect(clippy::print_stdout, reason = "which way a node captures is for people to see")]

use crate::{
    everything::{assert_as_before, everything},
    lab::{Cluster, Lab},
    onboard::{connected, join},
    world::{SOON, World},
};
use serde_json::{Value, json};
use tombolo_testkit::wait::{until, until_ok};
use tombolo_tests::content::Contents;

/// Namespaces of callers, each with its capture mode.
const CALLERS: [(&str, &str); 3] = [("beside", "sidecar"), ("below", "node"), ("plain", "gateway")];
/// Namespaces with a service, `catalog` and `ledger`, whose pods have a proxy beside them or below them.
const SERVERS: [(&str, &str, &str); 2] = [("shop", "catalog", "sidecar"), ("bank", "ledger", "node")];
const PORT: u16 = 8082;

fn url(service: &str) -> String {
    let (namespace, ..) = SERVERS.iter().find(|(_, name, _)| *name == service).expect("a service");
    format!("http://{service}.{namespace}.example.com:{PORT}/")
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({ "name": name, "namespace": namespace })
}

/// A namespace in a capture mode, with a service account of its own for the pods.
fn namespace(name: &str, mode: &str, account: &str) -> Vec<Value> {
    let labels = json!({ "tombolo.io/capture": mode });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }),
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name, account) }),
    ]
}

/// A pod of the tools, unchanged: it knows nothing of any mode.
fn pod(account: &str, app: &str, cluster: &Cluster) -> Value {
    let container = json!({
        "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never",
        "args": ["serve", "-name", cluster.name],
        "ports": [{ "name": "http", "containerPort": 8080 }],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
    });
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "serviceAccountName": account, "terminationGracePeriodSeconds": 5, "containers": [container] },
    })
}

fn deployment(namespace: &str, account: &str, app: &str, cluster: &Cluster) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(namespace, app), "spec": {
        "replicas": 1, "selector": { "matchLabels": { "app": app } }, "template": pod(account, app, cluster) } })
}

async fn apply(cluster: &Cluster, items: Vec<Value>) {
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("applied");
}

async fn rolled_out(cluster: &Cluster, namespace: &str, app: &str) {
    let wait = ["-n", namespace, "rollout", "status", &format!("deploy/{app}"), "--timeout=240s"];
    if let Err(error) = cluster.kubectl(&wait).await {
        let described = cluster.kubectl(&["-n", namespace, "describe", "pods"]).await.unwrap_or_default();
        panic!("{namespace}/{app}: {error}\n{described}");
    }
}

/// The cluster whose server answers.
async fn call(cluster: &Cluster, namespace: &str, url: &str) -> Result<String, String> {
    let said = cluster.exec(namespace, "deploy/caller", &["/tools", "get", "-timeout", "5s", url]).await?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    said["server"].as_str().map(str::to_owned).ok_or_else(|| format!("no server in {said}"))
}

/// Who called, as the proxy before the server's pods saw it, each with whether it proved itself to that proxy.
async fn callers(cluster: &Cluster, of: &str) -> Vec<(String, bool)> {
    let logs = match of {
        "catalog" => ["-n", "shop", "logs", "deploy/catalog", "-c", "tombolo-proxy"],
        _ => ["-n", "tombolo-system", "logs", "daemonset/tombolo-node", "-c", "gateway"],
    };
    let text = cluster.kubectl(&logs).await.expect("logs");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["direction"] == "inbound")
        .filter_map(|line| Some((line["source"].as_str()?.to_owned(), line["source_verified"] == true)))
        .collect()
}

async fn install(world: &World, cluster: &Cluster) {
    let order = ["cluster", "install", &cluster.name, "--ingress", "node-port", "--node"];
    let said = world.tombolo(&order).await.expect("it is installed");
    for step in ["egress", "ingress", "node"] {
        let done = said.lines().any(|line| line.starts_with(step) && line.contains(" done "));
        assert!(done, "{step}: {said}");
    }
    // The API server is told whom to ask about pods.
    let asked = || async {
        let path = "jsonpath={.webhooks[*].name}";
        let names = cluster.kubectl(&["get", "mutatingwebhookconfiguration", "tombolo", "-o", path]).await?;
        if names.contains("sidecar.tombolo.io") { Ok(()) } else { Err(format!("webhooks: {names}")) }
    };
    until_ok("the webhook is configured", SOON, asked).await;
}

/// What is in a cluster, and what its first node has of nftables' tables, and of rules and routes for packets.
async fn all(cluster: &Cluster) -> (Contents, String) {
    (everything(cluster).await, on_node(cluster).await)
}

/// What its first node has of nftables' tables, and of rules and routes for packets.
pub(crate) async fn on_node(cluster: &Cluster) -> String {
    let look = "nft list tables | grep tombolo; ip rule; ip route show table all | grep -e 240.0.0.0 -e fd74:6f6d; true";
    let said = cluster.node_exec(1, &["bash", "-c", look]).await;
    said.unwrap_or_default()
}

/// The DaemonSet is edited, then deleted: it comes back, and the pods of the mode are captured again.
async fn the_nodes_proxies_are_mended(cluster: &Cluster) {
    let ours = ["-n", "tombolo-system"];
    let set = async |args: &[&str]| cluster.kubectl(&[&ours[..], args].concat()).await;
    let grace = "jsonpath={.spec.template.spec.hostNetwork}";
    let patch = r#"{"spec":{"template":{"spec":{"hostNetwork":false}}}}"#;
    set(&["patch", "daemonset/tombolo-node", "--type=merge", "-p", patch]).await.expect("edited");
    let now = async || set(&["get", "daemonset/tombolo-node", "-o", grace]).await;
    let _ = until("it is as it was", SOON, now, |now| now.as_deref() == Ok("true")).await;
    let uid = "jsonpath={.metadata.uid}";
    let before = set(&["get", "daemonset/tombolo-node", "-o", uid]).await.expect("it is there");
    set(&["delete", "daemonset/tombolo-node"]).await.expect("deleted");
    let now = async || set(&["get", "daemonset/tombolo-node", "-o", uid]).await;
    let _ = until("it is back", SOON, now, |now| now.as_ref().is_ok_and(|uid| *uid != before)).await;
    set(&["rollout", "status", "daemonset/tombolo-node", "--timeout=240s"]).await.expect("it stands");
}

/// The way by which a node's proxy captures, as it says itself, and as its node has it.
async fn captures_by(cluster: &Cluster, lab: &Lab) {
    let logs = ["-n", "tombolo-system", "logs", "daemonset/tombolo-node", "-c", "gateway"];
    let said = async || {
        let text = cluster.kubectl(&logs).await?;
        let last = text.lines().rev().find(|line| line.contains("pods are captured")).map(str::to_owned);
        last.ok_or_else(|| format!("it has not said yet: {text}"))
    };
    let line = until_ok("the node's proxy says how it captures", SOON, said).await;
    let found = ["lookup", "redirect"].into_iter().find(|way| line.contains(&format!("\"{way}\"")));
    let way = found.unwrap_or_else(|| panic!("no way in {line}"));
    println!("{}: the node's proxy captures by {way}", cluster.name);
    if lab.is_ours() {
        // these nodes allow it
        let text = cluster.kubectl(&logs).await.unwrap_or_default();
        assert_eq!(way, "lookup", "{}: {text}", cluster.name);
        let look = "nft list table inet tombolo_node; ip route show table local 240.0.0.0/4";
        let there = async || cluster.node_exec(1, &["bash", "-c", look]).await;
        let good = |found: &Result<String, String>| {
            found.as_ref().is_ok_and(|found| {
                let rules = found.contains("dnat ip to ip daddr") && !found.contains("redirect");
                rules && found.contains("local 240.0.0.0/4")
            })
        };
        let _ = until("the node has the rules and the route", SOON, there, good).await;
    }
}

#[tokio::test]
async fn modes_mix_and_servers_see_who_calls() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    let before = [all(one).await, all(other).await];
    for cluster in [one, other] {
        join(&world, cluster).await;
    }
    for cluster in [one, other] {
        until_ok("the agent connects", SOON, || connected(&world, &cluster.name)).await;
    }
    for (name, ..) in SERVERS {
        let domain = format!("{name}.example.com");
        let create = ["gns", "create", name, "--domain", &domain, "--namespace", name];
        world.tombolo(&create).await.expect("a global namespace");
    }
    tokio::join!(install(&world, one), install(&world, other));

    for (name, service, mode) in SERVERS {
        let mut items = namespace(name, mode, "server");
        items.push(deployment(name, "server", service, other));
        let ports = json!([{ "name": "http", "port": PORT, "targetPort": 8080 }]);
        items.push(json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta(name, service),
                           "spec": { "selector": { "app": service }, "ports": ports } }));
        apply(other, items).await;
    }
    for cluster in [one, other] {
        for (name, mode) in CALLERS {
            let mut items = namespace(name, mode, "caller");
            items.push(deployment(name, "caller", "caller", cluster));
            apply(cluster, items).await;
        }
    }
    for (name, service, _) in SERVERS {
        rolled_out(other, name, service).await;
    }
    for cluster in [one, other] {
        for (name, _) in CALLERS {
            rolled_out(cluster, name, "caller").await;
        }
    }

    the_nodes_proxies_are_mended(one).await;
    for cluster in [one, other] {
        captures_by(cluster, &lab).await;
    }
    // Only the pods that should have a proxy do.
    for (name, mode) in CALLERS {
        let path = "jsonpath={.items[*].spec.initContainers[*].name}";
        let found = one.kubectl(&["-n", name, "get", "pods", "-o", path]).await.expect("pods");
        let wanted = if mode == "sidecar" { "tombolo-init tombolo-proxy" } else { "" };
        assert_eq!(found, wanted, "{name}");
    }

    // Every mode reaches every server, across the clusters.
    for (_, service, _) in SERVERS {
        for (name, _) in CALLERS {
            let (what, url) = (format!("{name} calls {service}"), url(service));
            let answered = until_ok(&what, SOON, || call(one, name, &url)).await;
            assert_eq!(answered, other.name, "{what}");
        }
    }
    // The servers' proxies saw the workloads where there is a proxy to speak for them, end to end.
    for (_, service, _) in SERVERS {
        for (name, mode) in CALLERS {
            let workload = format!("/cluster/{}/ns/{name}/sa/caller", one.name);
            let seen = || async {
                let all = callers(other, service).await;
                let found = all.iter().any(|(source, verified)| source.ends_with(&workload) && *verified);
                if found { Ok(()) } else { Err(format!("{service} saw {all:?}")) }
            };
            if mode == "gateway" {
                assert!(seen().await.is_err(), "nobody can know who calls from {name}");
            } else {
                until_ok(&format!("{service} sees {workload}"), SOON, seen).await;
            }
        }
    }

    // A plain connection inside the cluster works with a proxy before the server, and so do its probes.
    let inside = format!("http://catalog.shop.svc.cluster.local:{PORT}/");
    assert_eq!(call(other, "plain", &inside).await, Ok(other.name.clone()));

    // A Job in a namespace of sidecars calls, and ends.
    let get = json!(["get", "-timeout", "10s", url("catalog")]);
    let container =
        json!({ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": get });
    let template = json!({ "spec": { "serviceAccountName": "caller", "restartPolicy": "Never", "containers": [container] } });
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": meta("beside", "once"),
                      "spec": { "backoffLimit": 2, "template": template } });
    apply(one, vec![job]).await;
    let wait = ["-n", "beside", "wait", "--for=condition=complete", "job/once", "--timeout=180s"];
    one.kubectl(&wait).await.expect("the Job ends");

    // Without an agent, pods start as ever, and without a proxy.
    let scale = ["-n", "tombolo-system", "scale", "deploy/tombolo-agent", "--replicas=0"];
    one.kubectl(&scale).await.expect("scaled");
    let gone = [
        "-n",
        "tombolo-system",
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=tombolo-agent",
        "--timeout=120s",
    ];
    one.kubectl(&gone).await.expect("they end");
    apply(one, vec![deployment("beside", "caller", "late", one)]).await;
    rolled_out(one, "beside", "late").await;
    let path = "jsonpath={.items[*].spec.initContainers}";
    let late = one.kubectl(&["-n", "beside", "get", "pods", "-l", "app=late", "-o", path]).await;
    assert_eq!(late, Ok(String::new()), "fail-open");

    for cluster in [one, other] {
        let kubeconfig = cluster.kubeconfig.display().to_string();
        let scale = ["-n", "tombolo-system", "scale", "deploy/tombolo-agent", "--replicas=2"];
        cluster.kubectl(&scale).await.expect("scaled");
        let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
        world.tombolo(&uninstall).await.expect("it is taken out");
        for name in CALLERS.map(|(name, _)| name).into_iter().chain(SERVERS.map(|(name, ..)| name)) {
            let delete = ["delete", "namespace", name, "--ignore-not-found", "--timeout=180s"];
            cluster.kubectl(&delete).await.expect("the application goes");
        }
    }
    for (cluster, before) in [one, other].into_iter().zip(before) {
        assert_as_before(cluster, &before.0).await;
        // the local route goes with the proxy's last connection
        let what = format!("{}: its node is as it was: {}", cluster.name, before.1);
        let _ = until(&what, SOON, || on_node(cluster), |now| *now == before.1).await;
    }
}
