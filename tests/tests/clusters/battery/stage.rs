//! What the battery runs on: in both clusters of the pair a namespace for each capture mode, and each mode is chosen in another way. In
//! the one cluster are callers, in the other servers; all are unchanged pods.

use crate::{
    lab::Cluster,
    pair::Pair,
    world::{SOON, World},
};
use serde_json::{Value, json};
use tombolo_testkit::wait::until_ok;

/// Who chooses a namespace's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Label,
    Gns,
    Installation,
}

/// The modes, and who chooses each.
pub(super) const MODES: [(&str, By); 3] =
    [("gateway", By::Label), ("sidecar", By::Installation), ("node", By::Gns)];

/// The servers' ports, and what is behind each.
const PORTS: [(&str, u16); 8] = [
    ("http", 8080),
    ("grpc", 9000),
    ("echo", 9001),
    ("greet", 9002),
    ("half-close", 9003),
    ("bulk", 9004),
    ("redis", 6379),
    ("postgres", 5432),
];

pub(super) fn namespace(mode: &str) -> String {
    format!("battery-{mode}")
}

/// The global name of the servers of a mode.
pub(super) fn host(mode: &str) -> String {
    format!("servers.{mode}.example.com")
}

pub(super) struct Stage {
    pub(super) pair: Pair,
}

impl Stage {
    pub(super) async fn up() -> Self {
        let pair = Pair::up([0, 1]).await;
        for (mode, by) in MODES {
            let (domain, namespace) = (format!("{mode}.example.com"), namespace(mode));
            let create = ["gns", "create", mode, "--domain", &domain, "--namespace", &namespace];
            let more: &[&str] = if by == By::Gns { &["--capture", mode] } else { &[] };
            pair.world.tombolo(&[&create[..], more].concat()).await.expect("a global namespace");
        }
        let stage = Self { pair };
        let [one, other] = stage.pair.clusters();
        tokio::join!(stage.fill(one, callers), stage.fill(other, servers));
        stage
    }

    /// Installs what the modes need, and makes the pods once they are in force.
    async fn fill(&self, cluster: &Cluster, pods: fn(&str, &Cluster) -> Vec<Value>) {
        install(&self.pair.world, cluster, &["--node", "--capture", "sidecar"]).await;
        let labels =
            |by: By| if by == By::Label { json!({ "tombolo.io/capture": mode_of(by) }) } else { json!({}) };
        let space = |(mode, by): (&str, By)| {
            let metadata = json!({ "name": namespace(mode), "labels": labels(by) });
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
        };
        apply(cluster, Vec::from(MODES.map(space))).await;
        until_ok("pods get proxies", SOON, || asks(cluster)).await;
        apply(cluster, MODES.iter().flat_map(|(mode, _)| pods(mode, cluster)).collect()).await;
        for (mode, _) in MODES {
            stands(cluster, &namespace(mode)).await;
        }
    }

    /// Everything goes, and the pair is left as it was.
    pub(super) async fn down(self) {
        let [one, other] = self.pair.clusters();
        for (mode, _) in MODES {
            self.pair.world.tombolo(&["gns", "remove", mode, "--yes"]).await.expect("it goes");
        }
        let clear = async |cluster: &Cluster| {
            let spaces = MODES.map(|(mode, _)| namespace(mode));
            let delete = ["delete", "namespace", "--ignore-not-found", "--timeout=180s"];
            let all: Vec<&str> = delete.into_iter().chain(spaces.iter().map(String::as_str)).collect();
            let deleted = cluster.kubectl(&all);
            let (deleted, ()) = tokio::join!(deleted, install(&self.pair.world, cluster, &["--reset"]));
            deleted.expect("the namespaces go");
        };
        tokio::join!(clear(one), clear(other));
        self.pair.park().await;
    }
}

async fn install(world: &World, cluster: &Cluster, more: &[&str]) {
    let order = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
    world.tombolo(&[&order[..], more].concat()).await.expect("it is installed");
}

/// Whether the API server asks about pods of the namespace about which nobody says anything, and gets an answer; none is made.
async fn asks(cluster: &Cluster) -> Result<(), String> {
    let space = namespace(mode_of(By::Installation));
    let containers = json!([container("tools", json!({}))]);
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta(&space, "asked-only"),
                      "spec": { "containers": containers } });
    let path = "jsonpath={.spec.initContainers[*].name}";
    let create = ["create", "--dry-run=server", "-f", "-", "-o", path];
    let added = cluster.kubectl_with(&create, &pod.to_string()).await?;
    if added.contains("tombolo-proxy") { Ok(()) } else { Err(format!("to a new pod is added: {added:?}")) }
}

/// The mode that is chosen in this way.
fn mode_of(by: By) -> &'static str {
    MODES.iter().find(|(_, chosen)| *chosen == by).expect("each way has its mode").0
}

pub(super) async fn apply(cluster: &Cluster, items: Vec<Value>) {
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("applied");
}

/// Waits until all pods of a namespace are there.
pub(super) async fn stands(cluster: &Cluster, namespace: &str) {
    let all = cluster.kubectl(&["-n", namespace, "get", "deploy,statefulset", "-o", "name"]).await;
    for what in all.expect("names").lines() {
        let wait = ["-n", namespace, "rollout", "status", what, "--timeout=240s"];
        if let Err(error) = cluster.kubectl(&wait).await {
            let described = cluster.kubectl(&["-n", namespace, "describe", "pods"]).await.unwrap_or_default();
            panic!("{namespace}/{what}: {error}\n{described}");
        }
    }
}

/// Runs a command in a caller's container; what it prints.
pub(super) async fn exec(
    cluster: &Cluster,
    namespace: &str,
    container: &str,
    command: &[&str],
) -> Result<String, String> {
    let start = ["-n", namespace, "exec", "deploy/caller", "-c", container, "--"];
    cluster.kubectl(&[&start[..], command].concat()).await
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({ "name": name, "namespace": namespace })
}

fn account(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(namespace, name) })
}

fn container(name: &str, more: Value) -> Value {
    let mut all =
        json!({ "name": name, "image": format!("localhost/{name}:dev"), "imagePullPolicy": "Never" });
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

/// A Deployment, or a StatefulSet.
fn workload(kind: &str, namespace: &str, app: &str, account: &str, containers: Value, more: Value) -> Value {
    let pod = json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "serviceAccountName": account, "terminationGracePeriodSeconds": 1, "containers": containers,
                  "volumes": [{ "name": "tmp", "emptyDir": {} }] },
    });
    let mut spec = json!({ "selector": { "matchLabels": { "app": app } }, "template": pod });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": meta(namespace, app), "spec": spec })
}

/// A client of each kind; the images have no shell that could wait, so what else they have waits in them.
fn callers(mode: &str, _: &Cluster) -> Vec<Value> {
    let namespace = namespace(mode);
    let containers = json!([
        container("tools", json!({ "args": ["sleep"] })),
        container("postgres", json!({ "command": ["/bin/sh", "-c", "read never"], "stdin": true })),
        container("redis", json!({})),
    ]);
    vec![
        account(&namespace, "caller"),
        workload("Deployment", &namespace, "caller", "caller", containers, json!({})),
    ]
}

/// A server of the tools, with its ports.
pub(super) fn tools(name: Option<&str>) -> Value {
    let named: Vec<&str> = name.map(|name| ["-name", name]).into_iter().flatten().collect();
    let args: Vec<&str> = ["serve"].into_iter().chain(named).collect();
    let ports: Vec<Value> =
        PORTS[..6].iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
    let ready = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    container("tools", json!({ "args": args, "ports": ports, "readinessProbe": ready }))
}

fn servers(mode: &str, cluster: &Cluster) -> Vec<Value> {
    let namespace = namespace(mode);
    let database = |name: &str, port: u16, ask: &[&str]| {
        let ready = json!({ "exec": { "command": ask }, "periodSeconds": 1, "timeoutSeconds": 5 });
        container(
            name,
            json!({ "ports": [{ "containerPort": port }], "readinessProbe": ready,
                    "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }] }),
        )
    };
    let containers = json!([
        tools(Some(&cluster.name)),
        database("redis", 6379, &["redis-cli", "ping"]),
        database("postgres", 5432, &["psql", "-tc", "select 1"]),
    ]);
    let ports: Vec<Value> = PORTS.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
    let named = json!({ "serviceName": "named", "replicas": 2, "podManagementPolicy": "Parallel" });
    vec![
        account(&namespace, "server"),
        workload("Deployment", &namespace, "servers", "server", containers, json!({})),
        service(&namespace, "servers", json!({ "ports": ports })),
        workload("StatefulSet", &namespace, "named", "server", json!([tools(None)]), named),
        service(
            &namespace,
            "named",
            json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 8080 }] }),
        ),
    ]
}

/// A Service of the pods that are called as it is.
pub(super) fn service(namespace: &str, app: &str, more: Value) -> Value {
    let mut spec = json!({ "selector": { "app": app } });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta(namespace, app), "spec": spec })
}

/// A namespace of its own, in no mode, with a server of the tools.
pub(super) fn apart(namespace: &str, cluster: &Cluster) -> Vec<Value> {
    let labels = json!({ "tombolo.io/capture": "none" });
    let space = json!({ "name": namespace, "labels": labels });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": space }),
        account(namespace, "server"),
        workload(
            "Deployment",
            namespace,
            "servers",
            "server",
            json!([tools(Some(&cluster.name))]),
            json!({}),
        ),
        service(
            namespace,
            "servers",
            json!({ "type": "NodePort", "ports": [{ "name": "http", "port": 8080 }] }),
        ),
    ]
}
