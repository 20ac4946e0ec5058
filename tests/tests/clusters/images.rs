//! The images: each starts as nobody, on a root file system that it can't write, and does what it is for.

use crate::lab::{Cluster, Lab};
use serde_json::{Value, json};
use std::time::Duration;
use tombolo_testkit::wait::until_ok;

const SOON: Duration = Duration::from_secs(180);
const SPACE: &str = "images";

/// A pod of one image, with a `/tmp` that it may write.
fn pod(name: &str, image: &str, command: &[&str]) -> Value {
    let mut container = json!({
        "name": "c", "image": format!("localhost/{image}:dev"), "imagePullPolicy": "Never",
        "env": [{"name": "LISTEN", "value": "0.0.0.0:8082"}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        },
    });
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    })
}

async fn make(cluster: &Cluster, pods: &[Value]) {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}});
    let items = [&[space], pods].concat();
    let all = json!({"apiVersion": "v1", "kind": "List", "items": items});
    cluster.apply(&all.to_string()).await.expect("applied");
}

#[tokio::test]
async fn each_image_runs() {
    let lab = Lab::up(1).await;
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    // What a program prints, and it ends well.
    let ending = [
        ("agent", pod("agent", "tombolo-agent", &["tombolo-agent", "--version"]), "tombolo-agent "),
        (
            "controller",
            pod("controller", "tombolo-controller", &["tombolo-controller", "--version"]),
            "tombolo-controller ",
        ),
        ("gateway", pod("gateway", "tombolo-gateway", &["tombolo-gateway", "--version"]), "tombolo-gateway "),
        ("nft", pod("nft", "tombolo-gateway", &["nft", "--version"]), "nftables v"),
    ];
    // What a server answers, asked from the pod that has its client.
    let serving = [
        pod("catalog", "shop", &["catalog"]),
        pod("redis", "redis", &[]),
        pod("postgres", "postgres", &[]),
        pod("tools", "tools", &[]),
    ];
    let mut all: Vec<_> = ending.iter().map(|(_, pod, _)| pod.clone()).collect();
    all.extend(serving);
    let tools = all.last_mut().expect("the tools");
    tools["spec"]["containers"][0]["args"] = json!(["sleep"]);
    make(one, &all).await;

    for (name, _, part) in &ending {
        let done = format!("pod/{name}");
        let wait = ["-n", SPACE, "wait", "--for=jsonpath={.status.phase}=Succeeded", &done, "--timeout=180s"];
        let ended = one.kubectl(&wait).await;
        let said = one.kubectl(&["-n", SPACE, "logs", &done]).await;
        assert!(
            ended.is_ok() && said.as_ref().is_ok_and(|said| said.contains(part)),
            "{name}: {ended:?} {said:?}"
        );
    }
    let address = || one.kubectl(&["-n", SPACE, "get", "pod/catalog", "-o", "jsonpath={.status.podIP}"]);
    let products = async || {
        let url = format!("http://{}:8082/products", address().await?);
        let said = one.exec(SPACE, "pod/tools", &["/tools", "get", &url]).await?;
        if said.contains("yoga-mat") { Ok(()) } else { Err(said) }
    };
    until_ok("the shop's catalog", SOON, products).await;
    for (pod, command, part) in [
        ("pod/redis", ["redis-cli", "set", "a", "b"].as_slice(), "OK"),
        ("pod/postgres", &["psql", "-tc", "select 6 * 7"], "42"),
    ] {
        let ask = async || {
            let said = one.exec(SPACE, pod, command).await?;
            if said.contains(part) { Ok(()) } else { Err(said) }
        };
        until_ok(pod, SOON, ask).await;
    }
    one.kubectl(&["delete", "namespace", SPACE, "--timeout=120s"]).await.expect("the namespace goes");
}
