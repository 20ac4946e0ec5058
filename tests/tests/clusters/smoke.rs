//! The lab itself: what the other tests stand on.

use crate::lab::{Cluster, Lab};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use std::time::Duration;
use tombolo_testkit::wait::until_ok;

/// A pod is ready in seconds; on a machine that does other things, in more.
pub(crate) const SOON: Duration = Duration::from_secs(180);
pub(crate) const SPACE: &str = "smoke";

/// What a pod of the test tools' server needs.
pub(crate) fn pod(cluster: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": ["serve", "-name", cluster],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// A namespace with `replicas` servers, reached by the Service `web`, by a node's port, and by a load balancer.
pub(crate) async fn serve(cluster: &Cluster, replicas: usize) {
    let meta = |name: &str| json!({"name": name, "namespace": SPACE});
    let service = |name: &str, kind: &str| {
        let ports = json!([{"name": "http", "port": 8080}, {"name": "echo", "port": 9001}]);
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name),
            "spec": {"type": kind, "selector": {"app": "web"}, "ports": ports}})
    };
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"), "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": pod(&cluster.name)}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta("resolve"), "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "localhost/resolve:dev", "imagePullPolicy": "Never"}]}},
        service("web", "ClusterIP"), service("port", "NodePort"), service("balanced", "LoadBalancer"),
    ]});
    cluster.apply(&all.to_string()).await.expect("applied");
    let wait = ["-n", SPACE, "rollout", "status", "deploy/web", "--timeout=180s"];
    cluster.kubectl(&wait).await.expect("the servers are ready");
    let wait = ["-n", SPACE, "wait", "--for=condition=Ready", "pod/resolve", "--timeout=180s"];
    cluster.kubectl(&wait).await.expect("the pod is ready");
}

pub(crate) async fn clear(cluster: &Cluster) {
    cluster.kubectl(&["delete", "namespace", SPACE, "--timeout=120s"]).await.expect("the namespace goes");
}

/// The name of the cluster whose server answers at `url`, asked from a pod.
pub(crate) async fn who(cluster: &Cluster, url: &str) -> Result<String, String> {
    let said = cluster.exec(SPACE, "deploy/web", &["/tools", "get", "-timeout", "3s", url]).await?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    said["server"].as_str().map(str::to_owned).ok_or_else(|| format!("no server in {said}"))
}

pub(crate) async fn field(cluster: &Cluster, what: &str, path: &str) -> String {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["-n", SPACE, "get", what, "-o", &path]).await.expect("a field")
}

/// The addresses of the servers' pods.
async fn pods(cluster: &Cluster) -> Vec<String> {
    let path = "jsonpath={.items[*].status.podIP}";
    let all =
        cluster.kubectl(&["-n", SPACE, "get", "pods", "-l", "app=web", "-o", path]).await.expect("pods");
    all.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn two_clusters() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    tokio::join!(serve(one, 3), serve(other, 1));

    for (here, there) in [(one, other), (other, one)] {
        let nodes = Api::<Node>::all(here.client().await).list(&ListParams::default()).await.expect("nodes");
        assert!(!nodes.items.is_empty(), "{} has a node", here.name);

        // By name, which CoreDNS answers for each C library as well; then by the other cluster's node.
        let name = until_ok("a Service", SOON, || who(here, "http://web.smoke:8080/")).await;
        assert_eq!(name, here.name);
        let port = field(there, "svc/port", ".spec.ports[0].nodePort").await;
        let url = format!("http://{}:{port}/", there.node_address(1).await.expect("an address"));
        assert_eq!(until_ok("a NodePort", SOON, || who(here, &url)).await, there.name);

        let address = field(here, "svc/web", ".spec.clusterIP").await;
        for program in ["resolve-glibc", "resolve-musl"] {
            let said =
                here.exec(SPACE, "pod/resolve", &[program, "web", "web.smoke.svc.cluster.local"]).await;
            let said = said.expect("the names resolve");
            assert_eq!(said, format!("web {address}\nweb.smoke.svc.cluster.local {address}\n"), "{program}");
        }
        for nowhere in ["nowhere.smoke.svc.cluster.local", "nowhere.example.com"] {
            let said = here.exec(SPACE, "deploy/web", &["/tools", "dns", nowhere, "A"]).await;
            assert!(said.as_ref().is_ok_and(|said| said.starts_with("NXDOMAIN")), "{nowhere}: {said:?}");
        }
    }

    // The same addresses in both: one that only the first cluster uses leads nowhere from the second.
    let (mine, theirs) = (pods(one).await, pods(other).await);
    let only =
        mine.iter().find(|address| !theirs.contains(address)).expect("the first cluster has more pods");
    assert_eq!(who(one, &format!("http://{only}:8080/")).await, Ok(one.name.clone()));
    let refused = who(other, &format!("http://{only}:8080/")).await;
    assert!(refused.is_err(), "a pod of another cluster answered: {refused:?}");

    if lab.is_ours() {
        assert_eq!(
            mine[0].rsplit_once('.').map(|(net, _)| net),
            theirs[0].rsplit_once('.').map(|(net, _)| net)
        );
        one.balance().await.expect("an address");
        let address = one.node_address(1).await.expect("an address");
        assert_eq!(field(one, "svc/balanced", ".status.loadBalancer.ingress[0].ip").await, address);
        let url = format!("http://{address}:8080/");
        assert_eq!(until_ok("a LoadBalancer", SOON, || who(other, &url)).await, one.name);
    } else {
        println!("left out on given clusters: a LoadBalancer, and that pods of both have the same addresses");
    }
    tokio::join!(clear(one), clear(other));
}

#[tokio::test]
async fn protocols_of_the_tools() {
    let lab = Lab::up(1).await;
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    serve(one, 1).await;
    let tools =
        async |command: &[&str]| one.exec(SPACE, "deploy/web", &[&["/tools"], command].concat()).await;
    for (command, part) in [
        (["get", "-h2", "http://localhost:8080/"].as_slice(), r#""proto":"HTTP/2.0""#),
        (&["get", "-H", "a: b", "http://localhost:8080/"], r#""A":["b"]"#),
        (&["grpc", "localhost:9000", "hello"], "hello [c1] SERVING"),
        (&["chat", "localhost:9000", "20"], "20 answered"),
        (&["ws", "ws://localhost:8080/ws", "hello"], "hello"),
        (&["tcp", "localhost:9001", "hello"], "hello"),
        (&["udp", "localhost:9001", "hello"], "hello"),
        (&["greet", "localhost:9002"], "220 c1"),
        (&["half-close", "localhost:9003", "1000000"], "1000000 "),
        (&["bulk", "localhost:9004", "10000000"], "10000000 "),
        (&["load", "-for", "300ms", "http://localhost:8080/"], r#""failed":0"#),
        (&["resolve", "web"], "10."),
        (&["cat", "/etc/resolv.conf"], "nameserver "),
    ] {
        let said = tools(command).await;
        assert!(said.as_ref().is_ok_and(|said| said.contains(part)), "{command:?}: {said:?}");
    }
    let failed = tools(&["load", "-for", "300ms", "http://localhost:8080/?status=503"]).await.expect("a sum");
    assert!(failed.contains(r#""503 Service Unavailable "#), "{failed}");
    clear(one).await;
}
