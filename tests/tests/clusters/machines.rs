//! What the lab does to its machines: the network between clusters, processes of nodes, clusters and nodes that come and go. Given clusters
//! (`TOMBOLO_KUBECONFIGS`) are not ours to handle: `scripts/test-clusters` leaves this module out by its name, and without that it fails.

use crate::{
    lab::{Act, Component, Lab, checkout, slot, state},
    smoke::{SOON, SPACE, clear, field, pod, serve, who},
};
use serde_json::json;
use std::{fs, path::Path};
use tombolo_testkit::wait::{until, until_ok};

#[tokio::test]
async fn faults() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    tokio::join!(serve(one, 1), serve(other, 1));
    let port = field(other, "svc/port", ".spec.ports[0].nodePort").await;
    let url = format!("http://{}:{port}/", other.node_address(1).await.expect("an address"));
    until_ok("the other cluster", SOON, || who(one, &url)).await;

    lab.cut(one, other).await.expect("cut");
    assert!(who(one, &url).await.is_err(), "the clusters are cut");
    lab.heal(one, other).await.expect("healed");
    until_ok("the other cluster, again", SOON, || who(one, &url)).await;

    // A packet with an address that is no node's is seen when it leaves.
    let before = lab.leaks().await.expect("a count");
    assert!(who(one, "http://240.0.0.1:8080/").await.is_err());
    assert!(lab.leaks().await.expect("a count") > before, "the leak is counted");

    let ready = || one.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"]);
    for component in [Component::ApiServer, Component::Etcd] {
        one.service(Act::Stop, component).await.expect("stopped");
        let _ = until("the API server is away", SOON, ready, Result::is_err).await;
        one.service(Act::Start, component).await.expect("started");
        until_ok("the API server is back", SOON, ready).await;
    }
    one.service(Act::Kill, Component::Kubelet).await.expect("killed");
    until_ok("a Service, still", SOON, || who(one, "http://web.smoke:8080/")).await;
    tokio::join!(clear(one), clear(other));
}

/// Whatever on this machine has to do with `cluster`.
fn traces(cluster: &str) -> Vec<String> {
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    let mut look = |what: &str, text: &str, part: &str| {
        found.extend(text.lines().filter(|line| line.contains(part)).map(|line| format!("{what}: {line}")));
    };
    let name = checkout().file_name().unwrap_or_default().to_string_lossy();
    let state = format!("/{name}/.run/{}/{cluster}/", state());
    let prefix = if slot() == 0 { "tombolo".to_owned() } else { format!("tombolo{}", slot()) };
    let groups = format!("/{prefix}/{cluster}n");
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let arguments = lines(&process.path().join("cmdline")).replace('\0', " ");
        look("process", &arguments, &state);
        look("mount", &lines(&process.path().join("mountinfo")), &state);
        look("cgroup of a process", &lines(&process.path().join("cgroup")), &groups);
    }
    for space in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        look("network namespace", &space.path().display().to_string(), &format!("/{prefix}-{cluster}n"));
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let group = hierarchy.path().join(format!("{prefix}/{cluster}n1"));
        if group.exists() {
            look("cgroup", &group.display().to_string(), &groups);
        }
    }
    found
}

#[tokio::test]
async fn a_third_cluster_comes_and_goes() {
    let lab = Lab::up(2).await;
    drop(lab);
    let lab = Lab::up(3).await;
    let [one, _, third] = lab.clusters.as_slice() else { panic!("three clusters") };
    serve(third, 1).await;
    let seen = traces(&third.name);
    for kind in ["process: ", "mount: ", "cgroup of a process: ", "network namespace: ", "cgroup: "] {
        assert!(seen.iter().any(|line| line.starts_with(kind)), "no {kind}of what runs is seen: {seen:?}");
    }
    lab.down(third).await.expect("down");
    let left = || async { traces(&third.name) };
    until("no trace of the cluster", SOON, left, Vec::is_empty).await;
    assert!(!third.kubeconfig.exists());
    one.kubectl(&["get", "--raw", "/readyz"]).await.expect("the others stay");
}

#[tokio::test]
async fn a_second_node_comes_and_goes() {
    let lab = Lab::up(1).await;
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    one.add_node(2).await.expect("a second node");
    serve(one, 1).await;
    // Its pods are reached from the first node's, and have its name.
    let mut pod = pod("second");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"] = json!({"name": "second", "namespace": SPACE});
    pod["spec"]["nodeName"] = json!(one.node(2));
    one.apply(&pod.to_string()).await.expect("applied");
    let ready = ["-n", SPACE, "wait", "--for=condition=Ready", "pod/second", "--timeout=180s"];
    one.kubectl(&ready).await.expect("the pod is ready");
    let address = field(one, "pod/second", ".status.podIP").await;
    let name = one.node_exec(2, &["hostname"]).await.expect("a name");
    assert_eq!(name.trim(), one.node(2));
    let url = format!("http://{address}:8080/");
    assert_eq!(until_ok("the second node's pod", SOON, || who(one, &url)).await, "second");
    clear(one).await;
    one.remove_node(2).await.expect("removed");
    let nodes = one.kubectl(&["get", "nodes", "-o", "name"]).await.expect("nodes");
    assert_eq!(nodes.trim(), format!("node/{}", one.node(1)));
}
