//! The ways from another cluster to the ingress gateways, one after the other, while a pod calls: a node's port, a load balancer with an
//! address and then a name, the network of the node; and two of them at once. No call fails.

use crate::{
    lab::{Cluster, Lab},
    load::Load,
    onboard::{URL, who},
    pair::Pair,
    world::{SOON, World},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tombolo_testkit::wait::{until, until_ok};

/// A Service of somebody's own.
const GIVEN: &str = "own-way";
const SERVICE: &str = "tombolo-system/tombolo-ingress";

async fn install(world: &World, cluster: &Cluster, options: &[&str]) {
    let install = ["cluster", "install", &cluster.name];
    let said = world.tombolo(&[&install[..], options].concat()).await;
    said.unwrap_or_else(|error| panic!("{options:?}: {error}"));
}

/// Where a cluster's gateways are, as it says itself, and how each address stands.
async fn advertised(world: &World, cluster: &Cluster) -> Result<Vec<Value>, String> {
    let shown = world.tombolo(&["cluster", "show", &cluster.name, "-o", "json"]).await?;
    let shown: Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
    shown["addresses"].as_array().cloned().ok_or_else(|| format!("no addresses in {shown}"))
}

/// Those that others use.
fn published(all: &[Value]) -> BTreeSet<String> {
    let is = |one: &&Value| one["state"] == "published";
    all.iter().filter(is).filter_map(|one| one["address"].as_str().map(str::to_owned)).collect()
}

/// An address of the ingress gateways that Tombolo did not make.
async fn given(cluster: &Cluster) -> String {
    let ports = json!([{ "port": 15443, "targetPort": "tunnel" }]);
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": GIVEN, "namespace": "tombolo-system" },
        "spec": { "type": "NodePort", "selector": { "app.kubernetes.io/name": "tombolo-ingress" }, "ports": ports } });
    cluster.apply(&service.to_string()).await.expect("a Service");
    let port = ["-n", "tombolo-system", "get", "service", GIVEN, "-o", "jsonpath={.spec.ports[0].nodePort}"];
    let port = cluster.kubectl(&port).await.expect("a port");
    format!("{}.wan.test:{port}", cluster.name)
}

#[tokio::test]
async fn each_way_to_the_ingress_gateways() {
    Lab::machines();
    let pair = Pair::up([0, 2]).await;
    let ([one, other], world) = (pair.clusters(), &pair.world);
    other.add_node(2).await.expect("a second node");
    let first = other.node_address(1).await.expect("an address");
    let second = other.node_address(2).await.expect("an address");
    let [at_first, at_second] = [&first, &second].map(|node| format!("{node}:15443"));
    let named = format!("{}.wan.test:15443", other.name);
    let is = async |what: &str, wanted: &[&str], ports: usize| {
        let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        let good = |all: &Result<Vec<Value>, String>| {
            all.as_ref().is_ok_and(|all| {
                let found = published(all);
                wanted.is_subset(&found) && found.difference(&wanted).count() == ports
            })
        };
        let _ = until(what, SOON, || advertised(world, other), good).await;
        let through = async || {
            let list = world.tombolo(&["cluster", "list"]).await?;
            let line = list.lines().find(|line| line.contains(&one.name)).unwrap_or_default();
            let good = line.contains(&format!("{} 2/2", other.name));
            if good { Ok(()) } else { Err(list.clone()) }
        };
        until_ok(what, SOON, through).await;
        assert_eq!(until_ok("a call", SOON, || who(one)).await, other.name, "{what}");
        println!("{what}: reached");
    };

    let load = Load::start(one, URL).await;
    // both at once: the one that is there stays while the other one comes
    let both =
        ["--ingress", "node-port", "--ingress", "load-balancer", "--ingress-annotation", "example.com/a=b"];
    let giving = async {
        let annotation = ["-n", "tombolo-system", "get", "service", "tombolo-ingress", "-o"];
        let path = r"jsonpath={.spec.type} {.metadata.annotations.example\.com/a}";
        let service = async || other.kubectl(&[&annotation[..], &[path]].concat()).await;
        let _ = until("a Service", SOON, service, |found| *found == Ok("LoadBalancer b".to_owned())).await;
        other.balance().await.expect("an address");
    };
    tokio::join!(install(world, other, &both), giving);
    is("the nodes' ports and a load balancer", &[&at_first], 2).await;
    install(world, other, &["--ingress", "load-balancer"]).await;
    is("a load balancer", &[&at_first], 0).await;
    // its address changes
    other.give(SERVICE, &format!("{}.wan.test", other.name)).await.expect("a name");
    is("a load balancer by name, too", &[&at_first, &named], 0).await;
    other.give(SERVICE, &second).await.expect("an address");
    is("a load balancer at another address", &[&at_second], 0).await;

    let host = ["--ingress", "host-network"];
    install(world, other, &[&host[..], &["--ingress", "node-port"]].concat()).await;
    is("the nodes' network and their ports", &[&at_first, &at_second], 2).await;
    install(world, other, &host).await;
    is("the nodes' network", &[&at_first, &at_second], 0).await;

    // an address that somebody gives, by a name alone: it leads to a Service that is not ours
    let given = given(other).await;
    install(world, other, &["--ingress", &given]).await;
    is("an address that was given", &[&given], 0).await;
    let counts = load.stop().await;
    println!("{} requests, {} failed, the slowest {} ms", counts.requests, counts.failed, counts.max_ms);
    counts.assert_none_failed();

    install(world, other, &["--ingress", "node-port"]).await;
    is("the nodes' ports", &[], 2).await;
    other.kubectl(&["-n", "tombolo-system", "delete", "service", GIVEN]).await.expect("it goes");
    let drain = ["drain", &other.node(2), "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"];
    other.kubectl(&drain).await.expect("drained");
    other.remove_node(2).await.expect("it goes");
    pair.park().await;
}
