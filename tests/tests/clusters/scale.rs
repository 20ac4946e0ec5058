//! One cluster with 5,000 services and 50,000 endpoints: what its agents take to know them all. `tests/bench/discovery` runs it.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{
    lab::{Cluster, Lab},
    world::{SOON, World},
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    time::{Duration, Instant},
};
use tombolo_testkit::wait::until;

const NAMESPACES: usize = 50;
const SERVICES: usize = 5_000;
const ENDPOINTS: usize = 10; // of each
/// What an agent may take, in MiB.
const MOST: f64 = 100.0;
/// How long is looked at what it takes when nothing happens.
const STEADY: Duration = Duration::from_secs(30);
/// Requests at the same time.
const TOGETHER: usize = 32;

fn namespace(service: usize) -> String {
    format!("scale-{}", service % NAMESPACES)
}

async fn make<K>(api: &Api<K>, object: Value)
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("made");
}

/// All of the services, each with a slice. No proxy of the cluster's takes them: it is the agents that are looked at.
async fn fill(cluster: &Cluster) {
    let client = cluster.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in 0..NAMESPACES {
        make(&namespaces, json!({ "metadata": { "name": namespace(number) } })).await;
    }
    let one = async |number: usize| {
        let (namespace, name) = (namespace(number), format!("service-{number}"));
        let ports = json!([{ "name": "http", "port": 8080, "appProtocol": "http" }, { "name": "grpc", "port": 9090 }]);
        let labels = json!({ "service.kubernetes.io/service-proxy-name": "none", "team": format!("team-{}", number % 7) });
        let service = json!({ "metadata": { "name": name, "labels": labels }, "spec": { "ports": ports } });
        make::<Service>(&Api::namespaced(client.clone(), &namespace), service).await;
        let endpoint = |at: usize| {
            let all = number * ENDPOINTS + at;
            let address = format!("10.{}.{}.{}", 128 + all / 65_536, all / 256 % 256, all % 256);
            json!({ "addresses": [address], "conditions": { "ready": true, "serving": true, "terminating": false },
                    "nodeName": format!("node-{}", all % 100),
                    "targetRef": { "kind": "Pod", "namespace": namespace, "name": format!("{name}-7d9c8b6f5-{at:05}") } })
        };
        let slice = json!({
            "metadata": { "name": format!("{name}-x7x7x"), "labels": {
                "kubernetes.io/service-name": name, "service.kubernetes.io/service-proxy-name": "none" } },
            "addressType": "IPv4", "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "grpc", "port": 9090, "protocol": "TCP" }],
        });
        make::<EndpointSlice>(&Api::namespaced(client.clone(), &namespace), slice).await;
    };
    stream::iter(0..SERVICES).map(one).buffer_unordered(TOGETHER).collect::<()>().await;
}

/// Names of which the controller knows that all their endpoints are ready.
async fn known(world: &World) -> usize {
    let listed = world.tombolo(&["service", "list", "-o", "json"]).await.unwrap_or_default();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap_or_default();
    listed.iter().filter(|one| one["targets"][0]["ready"] == ENDPOINTS).count()
}

/// Memory in MiB, and CPU seconds so far, of each of the cluster's agents.
async fn takes(cluster: &Cluster) -> Vec<(f64, f64)> {
    let all = cluster.stats().await.expect("processes");
    let agents = all.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (node, program) = (words.next()?, words.next()?);
        let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
        (node.starts_with(&cluster.name) && program == "tombolo-agent").then(|| (numbers[1], numbers[2]))
    });
    agents.collect()
}

#[tokio::test]
#[ignore = "it measures, for minutes: tests/bench/discovery"]
async fn agents_of_a_large_cluster() {
    let lab = Lab::up(1).await;
    if !lab.is_ours() {
        println!("what agents take was not measured: it needs the clusters of this machine");
        return;
    }
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    let world = World::start().await;
    let kubeconfig = one.kubeconfig.display().to_string();
    world.tombolo(&["cluster", "join", &one.name, "--kubeconfig", &kubeconfig]).await.expect("it joins");
    until("both replicas", SOON, || takes(one), |all| all.len() == 2).await;
    let empty = takes(one).await;
    let mut gns = vec!["gns", "create", "acme", "--domain", "acme.example.com"];
    let namespaces: Vec<String> = (0..NAMESPACES).map(namespace).collect();
    gns.extend(namespaces.iter().flat_map(|name| ["--namespace", name]));
    world.tombolo(&gns).await.expect("a global namespace");

    let began = Instant::now();
    fill(one).await;
    let filled = began.elapsed();
    until("all are known to the controller", SOON, || known(&world), |count| *count == SERVICES).await;
    let heard = began.elapsed();
    let before = takes(one).await;
    // nothing happens: what is looked at is what the agents take then
    tokio::time::sleep(STEADY).await;
    let after = takes(one).await;

    let count = SERVICES * ENDPOINTS;
    println!(
        "{SERVICES} services with {count} endpoints: made in {:.1} s, all known to the controller {:.1} s after the first",
        filled.as_secs_f64(),
        heard.as_secs_f64()
    );
    for ((empty, before), after) in empty.iter().zip(&before).zip(&after) {
        let share = (after.1 - before.1) / STEADY.as_secs_f64() * 100.0;
        println!(
            "agent: {:.1} MiB before them, {:.1} MiB with them; {:.1} s of CPU to learn them, {share:.1} % of a core after",
            empty.0,
            after.0,
            before.1 - empty.1
        );
    }
    let mut delete = vec!["delete", "namespace", "--wait=false"];
    delete.extend(namespaces.iter().map(String::as_str));
    one.kubectl(&delete).await.expect("they go");
    let uninstall = ["cluster", "uninstall", &one.name, "--yes", "--kubeconfig", &kubeconfig];
    world.tombolo(&uninstall).await.expect("it is taken out");
    delete[2] = "--ignore-not-found";
    one.kubectl(&delete).await.expect("they are gone");
    assert_eq!(after.len(), 2, "an agent was lost");
    assert!(after.iter().all(|(memory, _)| *memory < MOST), "an agent takes {MOST} MiB or more: {after:?}");
}
