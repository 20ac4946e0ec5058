//! How long a change of endpoints in one cluster takes until all calls from the other go by it: measured and printed.

use crate::{load::now, onboard::SHOP, pair::Pair, world::SOON};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::timeout;
use tombolo_testkit::wait::until_ok;

/// How often the service loses its only endpoint and gets it back.
const TIMES: usize = 40;
/// Within it dozens of calls are made, by both gateways.
const FOR_GOOD: Duration = Duration::from_millis(300);
const NAME: &str = "turns";
const URL: &str = "http://turns.acme.example.com:8082/";

fn since_1970() -> Duration {
    now().duration_since(UNIX_EPOCH).expect("a time")
}

/// The part of these that was no longer than the result.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    // A Service without a selector, so that nobody but this test says where it leads.
    let path = "jsonpath={.items[0].status.podIP}";
    let server = other.kubectl(&["-n", SHOP, "get", "pods", "-l", "app=catalog", "-o", path]).await;
    let server = server.expect("the server's address");
    let meta = json!({ "name": NAME, "namespace": SHOP, "labels": { "kubernetes.io/service-name": NAME } });
    let slice = |ready: bool| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
            "endpoints": [{ "addresses": [server], "conditions": { "ready": ready } }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] })
    };
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": NAME, "namespace": SHOP },
        "spec": { "ports": [{ "name": "http", "port": 8082, "targetPort": 8080 }] } });
    for object in [service, slice(true)] {
        other.apply(&object.to_string()).await.expect("applied");
    }
    let get = ["/tools", "get", "-timeout", "3s", URL];
    until_ok("it is called", SOON, || one.exec(SHOP, "deploy/caller", &get)).await;

    let args = ["load", "-for", "1h", "-clients", "1", "-pause", "2ms", "-fresh", "-turns", URL];
    let container =
        json!({ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": args });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": NAME, "namespace": SHOP },
        "spec": { "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container] } });
    one.apply(&pod.to_string()).await.expect("a pod");
    let ready = ["-n", SHOP, "wait", "--for=condition=Ready", "pod/turns", "--timeout=180s"];
    one.kubectl(&ready).await.expect("it calls");
    let pods: Api<Pod> = Api::namespaced(one.client().await, SHOP);
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream(NAME, &follow).await.expect("what it says").lines();
    // When calls turned that way for good, after a time: each of the gateways hears of a change for itself, so calls may turn back and again
    // until the last one has.
    let mut turned = async |ready: bool, after: Duration| {
        let mut turned = None;
        loop {
            let patience = if turned.is_some() { FOR_GOOD } else { SOON };
            let line = match (timeout(patience, lines.try_next()).await, turned) {
                (Err(_), Some(at)) => return at,
                (line, _) => line.expect("calls turn").expect("a line"),
            };
            let line: Value = serde_json::from_str(&line.expect("it calls on")).expect("a turn");
            let at = Duration::from_micros(line["at_us"].as_u64().expect("a time"));
            turned = (line["ok"] == ready && at >= after).then_some(at);
        }
    };
    turned(true, Duration::ZERO).await;

    let slices: Api<EndpointSlice> = Api::namespaced(other.client().await, SHOP);
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        for (ready, took) in [(false, &mut gone), (true, &mut back)] {
            let began = since_1970();
            let change = Patch::Merge(json!({ "endpoints": slice(ready)["endpoints"] }));
            slices.patch(NAME, &PatchParams::default(), &change).await.expect("changed");
            took.push(turned(ready, began).await - began);
        }
    }
    gone.sort();
    back.sort();
    let mut all = [gone.clone(), back.clone()].concat();
    all.sort();
    for (what, times) in [("gone", &gone), ("back", &back), ("both", &all)] {
        println!(
            "an endpoint in {} -> calls from {}, {what}: p50 {} ms, p99 {} ms of {} changes",
            other.name,
            one.name,
            percentile(times, 50).as_millis(),
            percentile(times, 99).as_millis(),
            times.len()
        );
    }
    one.kubectl(&["-n", SHOP, "delete", "pod", NAME, "--timeout=60s"]).await.expect("it goes");
    other.kubectl(&["-n", SHOP, "delete", "service,endpointslice", NAME]).await.expect("they go");
    pair.park().await;
}
