//! Ports that a pod in mode `sidecar` takes out of its capture by annotations: what it calls there goes past its proxy, and so do those who call it.

use crate::{
    lab::Cluster,
    pair::Pair,
    world::{SOON, World},
};
use serde_json::{Value, json};
use tombolo_testkit::wait::until_ok;

const SPACE: &str = "ports";
const HOST: &str = "servers.ports.example.com";
/// Excluded: of callers what goes out to it, of servers what comes in. The kubelet asks it, too.
const EXCLUDED: u16 = 8080;
/// Captured as ever.
const CAPTURED: u16 = 9001;

fn meta(name: &str) -> Value {
    json!({ "name": name, "namespace": SPACE })
}

fn account(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name) })
}

/// A pod of the tools with these annotations and labels, whose ports are asked both ways: the one by HTTP, the other by a connection.
fn deployment(app: &str, account: &str, cluster: &Cluster, annotations: &Value, inject: bool) -> Value {
    let container = json!({
        "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": ["serve", "-name", cluster.name],
        "ports": [{ "name": "http", "containerPort": EXCLUDED }, { "name": "echo", "containerPort": CAPTURED }],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http" }, "periodSeconds": 1 },
        "livenessProbe": { "tcpSocket": { "port": "echo" }, "periodSeconds": 1, "timeoutSeconds": 5 },
    });
    let mut labels = json!({ "app": app });
    if !inject {
        labels["tombolo.io/inject"] = json!("false");
    }
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(app), "spec": {
        "replicas": 1, "selector": { "matchLabels": { "app": app } },
        "template": {
            "metadata": { "labels": labels, "annotations": annotations },
            "spec": { "serviceAccountName": account, "terminationGracePeriodSeconds": 1, "containers": [container] },
        } } })
}

async fn fill(cluster: &Cluster, items: Vec<Value>, apps: &[&str]) {
    let labels = json!({ "tombolo.io/capture": "sidecar" });
    let space =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SPACE, "labels": labels } });
    let items: Vec<Value> = [space].into_iter().chain(items).collect();
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("applied");
    for app in apps {
        let wait = ["-n", SPACE, "rollout", "status", &format!("deploy/{app}"), "--timeout=240s"];
        if let Err(error) = cluster.kubectl(&wait).await {
            let described = cluster.kubectl(&["-n", SPACE, "describe", "pods"]).await.unwrap_or_default();
            panic!("{app}: {error}\n{described}");
        }
    }
}

/// What the proxy beside the pod of an app wrote down of connections in this direction.
async fn log(cluster: &Cluster, app: &str, direction: &str) -> Vec<Value> {
    let logs = ["-n", SPACE, "logs", &format!("deploy/{app}"), "-c", "tombolo-proxy"];
    let text = cluster.kubectl(&logs).await.expect("logs");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["direction"] == direction).collect()
}

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

async fn tools(cluster: &Cluster, app: &str, command: &[&str]) -> Result<String, String> {
    cluster.exec(SPACE, &format!("deploy/{app}"), &[&["/tools"], command].concat()).await
}

async fn get(cluster: &Cluster, app: &str, host: &str) -> Result<Value, String> {
    let url = format!("http://{host}:{EXCLUDED}/");
    let said = tools(cluster, app, &["get", "-timeout", "5s", &url]).await?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}

async fn echoes(cluster: &Cluster, app: &str, host: &str) -> Result<(), String> {
    let said = tools(cluster, app, &["tcp", &format!("{host}:{CAPTURED}"), "hello"]).await?;
    if said.contains("hello") { Ok(()) } else { Err(said) }
}

async fn pod(cluster: &Cluster, app: &str, path: &str) -> String {
    let path = format!("jsonpath={{.items[0].{path}}}");
    let get = ["-n", SPACE, "get", "pods", "-l", &format!("app={app}"), "-o", &path];
    cluster.kubectl(&get).await.expect("a pod")
}

async fn clear(world: &World, clusters: [&Cluster; 2]) {
    world.tombolo(&["gns", "remove", SPACE, "--yes"]).await.expect("it goes");
    for cluster in clusters {
        cluster.kubectl(&["delete", "namespace", SPACE, "--timeout=180s"]).await.expect("it goes");
    }
}

#[tokio::test]
async fn excluded_ports_pass_the_proxy_by() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    let gns = ["gns", "create", SPACE, "--domain", "ports.example.com", "--namespace", SPACE];
    pair.world.tombolo(&gns).await.expect("a global namespace");
    let out = json!({ "tombolo.io/exclude-outbound-ports": EXCLUDED.to_string() });
    let into = json!({ "tombolo.io/exclude-inbound-ports": EXCLUDED.to_string() });
    let ports = json!([{ "name": "http", "port": EXCLUDED }, { "name": "echo", "port": CAPTURED }]);
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta("servers"),
                          "spec": { "selector": { "app": "servers" }, "ports": ports } });
    let servers = vec![
        account("server"),
        deployment("servers", "server", other, &into, true),
        deployment("plain", "server", other, &json!({}), false),
        service,
    ];
    let callers = vec![account("caller"), deployment("caller", "caller", one, &out, true)];
    tokio::join!(fill(one, callers, &["caller"]), fill(other, servers, &["servers", "plain"]));
    for (cluster, app) in [(one, "caller"), (other, "servers")] {
        let names = pod(cluster, app, "spec.initContainers[*].name").await;
        assert_eq!(names, "tombolo-init tombolo-proxy", "{app}");
    }

    // Outgoing: both ports are answered; the caller's proxy saw one of them, and the server's knows who called there.
    let answered = until_ok("the excluded port", SOON, || get(one, "caller", HOST)).await;
    assert_eq!(answered["server"], other.name.as_str(), "{answered}");
    let workload = format!("/cluster/{}/ns/{SPACE}/sa/caller", one.name);
    let seen = async || {
        echoes(one, "caller", HOST).await?;
        let (sent, taken) = (log(one, "caller", "outbound").await, log(other, "servers", "inbound").await);
        let is_caller = |line: &&Value| {
            let source = line["source"].as_str().unwrap_or_default();
            source.ends_with(&workload) && line["source_verified"] == true
        };
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
    let from = pod(other, "plain", "status.podIP").await;
    let answered = until_ok("from within the cluster", SOON, || get(other, "plain", within)).await;
    let peer = answered["peer"].as_str().unwrap_or_default();
    assert!(peer.starts_with(&format!("{from}:")), "called by {from}, seen from {peer}");
    let passed = async || {
        echoes(other, "plain", within).await?;
        let taken = log(other, "servers", "inbound").await;
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
        let restarts = pod(cluster, app, "status.containerStatuses[*].restartCount").await;
        assert_eq!(restarts, "0", "{app}");
    }
    clear(&pair.world, [one, other]).await;
    pair.park().await;
}
