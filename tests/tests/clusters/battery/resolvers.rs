//! The resolvers of C libraries, at the names of another cluster: search lists, names that are not there or have no such address, and
//! answers that are too long for a packet.

use super::stage::apply;
use crate::{lab::Cluster, onboard::SHOP, pair::Pair, world::SOON};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tombolo_testkit::wait::until_ok;

const SPACE: &str = "resolvers";
const LIBRARIES: [&str; 2] = ["resolve-glibc", "resolve-musl"];
/// Its A answer is longer than the 512 bytes that C libraries take by UDP.
const MANY: u8 = 48;

/// A pod with both libraries, and one with the tools; the domain is in their search list, behind the cluster's own.
fn pods() -> Vec<Value> {
    let pod = |name: &str, image: &str, args: &[&str]| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": SPACE }, "spec": {
            "terminationGracePeriodSeconds": 1, "dnsConfig": { "searches": ["acme.example.com"] },
            "containers": [{ "name": "c", "image": format!("localhost/{image}:dev"), "imagePullPolicy": "Never", "args": args }],
        } })
    };
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SPACE } });
    vec![space, pod("resolve", "resolve", &["wait"]), pod("tools", "tools", &["sleep"])]
}

/// A headless service of many pods that have names; the addresses lead nowhere, and nobody calls them.
fn crowd() -> Vec<Value> {
    let meta = json!({ "name": "crowd", "namespace": SHOP });
    let ports = json!([{ "name": "http", "port": 8080 }]);
    let mut labelled = meta.clone();
    labelled["labels"] = json!({ "kubernetes.io/service-name": "crowd" });
    let endpoints: Vec<Value> = (0..MANY)
        .map(|n| {
            json!({ "addresses": [format!("10.244.200.{}", n + 1)], "hostname": format!("crowd-{n}"),
                    "conditions": { "ready": true } })
        })
        .collect();
    vec![
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": { "clusterIP": "None", "ports": ports } }),
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": labelled,
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints }),
    ]
}

/// What the cluster's DNS answers, asked for exactly this: code and flags, then the records' data.
async fn dns(cluster: &Cluster, args: &[&str]) -> Result<(String, Vec<String>), String> {
    let said = cluster.exec(SPACE, "pod/tools", &[&["/tools", "dns"][..], args].concat()).await?;
    let mut lines = said.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let data = lines.filter(|line| line.contains(" IN ")).filter_map(|line| line.split(' ').next_back());
    Ok((first, data.map(str::to_owned).collect()))
}

/// The addresses that a library finds.
async fn resolve(cluster: &Cluster, library: &str, name: &str) -> Result<BTreeSet<String>, String> {
    let said = cluster.exec(SPACE, "pod/resolve", &[library, name]).await?;
    let found = said.trim().strip_prefix(name).ok_or_else(|| format!("it says {said:?}"))?;
    Ok(found.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test]
async fn of_both_c_libraries() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    apply(one, pods()).await;
    apply(other, crowd()).await;
    for pod in ["pod/resolve", "pod/tools"] {
        let wait = ["-n", SPACE, "wait", "--for=condition=Ready", pod, "--timeout=180s"];
        one.kubectl(&wait).await.expect("the pod is ready");
    }
    let file = one.exec(SPACE, "pod/tools", &["/tools", "cat", "/etc/resolv.conf"]).await.expect("a file");
    for part in ["ndots:5", "svc.cluster.local", "acme.example.com"] {
        assert!(file.contains(part), "{file}");
    }
    let (name, nowhere) = ("catalog.acme.example.com", "nowhere.acme.example.com");
    let answered = async || {
        let (code, all) = dns(one, &[name, "A"]).await?;
        if code.starts_with("NOERROR") && all.len() == 1 { Ok(all) } else { Err(format!("{code} {all:?}")) }
    };
    let v4 = until_ok("the name is answered", SOON, answered).await;
    // There is such a name, and it has no such address: a library that is told otherwise takes the whole name for absent.
    let (code, v6) = dns(one, &[name, "AAAA"]).await.expect("an answer");
    assert!(code.starts_with("NOERROR") && v6.is_empty(), "pods have no IPv6 here: {code} {v6:?}");
    let (code, none) = dns(one, &[nowhere, "A"]).await.expect("an answer");
    assert!(code.starts_with("NXDOMAIN") && none.is_empty(), "{code} {none:?}");

    let vip: BTreeSet<String> = v4.into_iter().collect();
    for library in LIBRARIES {
        // Fewer than five dots: the search list goes first, and must not end it. The last is found by the search list alone.
        for asked in [name, "catalog.acme.example.com.", "catalog"] {
            let found = resolve(one, library, asked).await;
            assert_eq!(found.as_ref(), Ok(&vip), "{library} {asked}");
        }
        let found = resolve(one, library, nowhere).await;
        let absent = |said: &String| said.contains("not known") || said.contains("does not resolve");
        assert!(found.as_ref().is_err_and(absent), "{library}: {found:?}");
    }

    // Too long for a packet: it is said, and what comes by TCP is whole.
    let many = "crowd.acme.example.com";
    let whole = async || {
        let (code, all) = dns(one, &["-tcp", many, "A"]).await?;
        let all: BTreeSet<String> = all.into_iter().collect();
        if all.len() == usize::from(MANY) { Ok(all) } else { Err(format!("{code} {}", all.len())) }
    };
    let whole = until_ok("all are answered by TCP", SOON, whole).await;
    let (code, part) = dns(one, &["-size", "0", many, "A"]).await.expect("an answer");
    assert!(code.contains("tc=true") && part.len() < whole.len(), "{code} {}", part.len());
    // musl does so since 1.2.4; an older one takes what the packet has.
    assert_eq!(resolve(one, "resolve-glibc", many).await.as_ref(), Ok(&whole));
    let found = resolve(one, "resolve-musl", many).await.expect("addresses");
    assert!(!found.is_empty() && found.is_subset(&whole), "{found:?}");
    println!("of {} addresses musl takes {}", whole.len(), found.len());

    let crowd = ["-n", SHOP, "delete", "service,endpointslice", "crowd"];
    let space = ["delete", "namespace", SPACE, "--timeout=120s"];
    let (gone, all) = tokio::join!(other.kubectl(&crowd), one.kubectl(&space));
    gone.expect("the crowd goes");
    all.expect("the namespace goes");
    pair.park().await;
}
