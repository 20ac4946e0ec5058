//! A namespace in mode `sidecar` or `node` with pods of the tools, and what the proxies beside or below them wrote down.

use crate::lab::Cluster;
use serde_json::{Value, json};

/// The HTTP port, which the kubelet asks.
pub(crate) const HTTP: u16 = 8080;
/// The port of lines, where the kubelet makes connections.
pub(crate) const ECHO: u16 = 9001;

/// Its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space(pub(crate) &'static str);

impl Space {
    fn meta(self, name: &str) -> Value {
        json!({ "name": name, "namespace": self.0 })
    }

    pub(crate) fn account(self, name: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.meta(name) })
    }

    /// A Service of the pods of an app, at both ports.
    pub(crate) fn service(self, app: &str, more: &Value) -> Value {
        let ports = json!([{ "name": "http", "port": HTTP }, { "name": "echo", "port": ECHO }]);
        let mut spec = json!({ "selector": { "app": app }, "ports": ports });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": self.meta(app), "spec": spec })
    }

    /// A pod of the tools with these annotations, with or without a proxy.
    pub(crate) fn deployment(
        self,
        app: &str,
        account: &str,
        cluster: &Cluster,
        annotations: &Value,
        inject: bool,
    ) -> Value {
        let container = json!({
            "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": ["serve", "-name", cluster.name],
            "ports": [{ "name": "http", "containerPort": HTTP }, { "name": "echo", "containerPort": ECHO }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http" }, "periodSeconds": 1 },
            "livenessProbe": { "tcpSocket": { "port": "echo" }, "periodSeconds": 1, "timeoutSeconds": 5 },
        });
        let mut labels = json!({ "app": app });
        if !inject {
            labels["tombolo.io/inject"] = json!("false");
        }
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.meta(app), "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": app } },
            "template": {
                "metadata": { "labels": labels, "annotations": annotations },
                "spec": { "serviceAccountName": account, "terminationGracePeriodSeconds": 1, "containers": [container] },
            } } })
    }

    /// Makes the namespace and these objects, and waits for the pods of these apps.
    pub(crate) async fn fill(self, cluster: &Cluster, items: Vec<Value>, apps: &[&str]) {
        self.fill_in("sidecar", cluster, items, apps).await;
    }

    /// The same in another mode.
    pub(crate) async fn fill_in(self, mode: &str, cluster: &Cluster, items: Vec<Value>, apps: &[&str]) {
        let labels = json!({ "tombolo.io/capture": mode });
        let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.0, "labels": labels } });
        let items: Vec<Value> = [space].into_iter().chain(items).collect();
        let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        cluster.apply(&all.to_string()).await.expect("applied");
        for app in apps {
            let wait = ["-n", self.0, "rollout", "status", &format!("deploy/{app}"), "--timeout=240s"];
            if let Err(error) = cluster.kubectl(&wait).await {
                let described =
                    cluster.kubectl(&["-n", self.0, "describe", "pods"]).await.unwrap_or_default();
                panic!("{app}: {error}\n{described}");
            }
        }
    }

    /// What the proxy beside the pod of an app wrote down of connections in this direction.
    pub(crate) async fn log(self, cluster: &Cluster, app: &str, direction: &str) -> Vec<Value> {
        let logs = ["-n", self.0, "logs", &format!("deploy/{app}"), "-c", "tombolo-proxy"];
        let text = cluster.kubectl(&logs).await.expect("logs");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["direction"] == direction).collect()
    }

    /// The tools in a pod of an app.
    pub(crate) async fn tools(
        self,
        cluster: &Cluster,
        app: &str,
        command: &[&str],
    ) -> Result<String, String> {
        cluster.exec(self.0, &format!("deploy/{app}"), &[&["/tools"], command].concat()).await
    }

    /// The answer of the HTTP port of a host.
    pub(crate) async fn get(self, cluster: &Cluster, app: &str, host: &str) -> Result<Value, String> {
        let url = format!("http://{host}:{HTTP}/");
        let said = self.tools(cluster, app, &["get", "-timeout", "5s", &url]).await?;
        serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
    }

    /// A field of the pod of an app.
    pub(crate) async fn pod(self, cluster: &Cluster, app: &str, path: &str) -> String {
        let path = format!("jsonpath={{.items[0].{path}}}");
        let get = ["-n", self.0, "get", "pods", "-l", &format!("app={app}"), "-o", &path];
        cluster.kubectl(&get).await.expect("a pod")
    }

    pub(crate) async fn clear(self, cluster: &Cluster) {
        cluster.kubectl(&["delete", "namespace", self.0, "--timeout=180s"]).await.expect("it goes");
    }
}

/// What the proxy of a cluster's only node wrote down of connections in this direction.
pub(crate) async fn node_log(cluster: &Cluster, direction: &str) -> Vec<Value> {
    let logs = ["-n", "tombolo-system", "logs", "daemonset/tombolo-node", "-c", "gateway"];
    let text = cluster.kubectl(&logs).await.expect("logs");
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["direction"] == direction).collect()
}

/// The connection's caller proved to be this workload.
pub(crate) fn is_from(line: &Value, workload: &str) -> bool {
    line["source"].as_str().is_some_and(|source| source.ends_with(workload))
        && line["source_verified"] == true
}
