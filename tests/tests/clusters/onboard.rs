//! Two clusters, two commands each, one name: from nothing to a pod's call that another cluster answers, and back to nothing.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{
    everything::{assert_as_before, everything},
    faults::exports,
    lab::{Cluster, Lab},
    load::Load,
    world::{SOON, World},
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tombolo_testkit::wait::{until, until_ok};
use tombolo_tests::content::Differences;

/// The namespace of the application.
pub(crate) const SHOP: &str = "shop";
pub(crate) const URL: &str = "http://catalog.acme.example.com:8082/";

/// The cluster joins by the two commands that are printed for it.
pub(crate) async fn join(world: &World, cluster: &Cluster) {
    let token = world.path(&format!("{}-token", cluster.name));
    let file = token.display().to_string();
    let printed = world.tombolo(&["cluster", "create", &cluster.name, "--join-token-file", &file]).await;
    let printed = printed.expect("a cluster is made");
    let lines: Vec<&str> = printed.lines().map(str::trim).collect();
    let from = |start: &str| lines.iter().position(|line| line.starts_with(start)).expect("a command");
    let manifest = lines[from("tombolo cluster manifest")];
    let secret = lines[from("kubectl -n tombolo-system create secret")];
    let secret_of_token = std::fs::read_to_string(&token).expect("a token");
    assert!(!printed.contains(secret_of_token.trim()), "the token is in no command");
    world.paste(cluster, manifest, "").await.expect("the manifest is applied");
    world.paste(cluster, secret, "").await.expect("the token is there");
}

pub(crate) async fn connected(world: &World, name: &str) -> Result<(), String> {
    let shown = world.tombolo(&["cluster", "show", name, "-o", "json"]).await?;
    let shown: Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
    if shown["state"] == "connected" { Ok(()) } else { Err(format!("{name} is {}", shown["state"])) }
}

/// Servers of the name `catalog`, or a pod that only calls.
pub(crate) async fn run(cluster: &Cluster, replicas: usize) {
    let meta = |name: &str| json!({ "name": name, "namespace": SHOP });
    let pod = |app: &str| {
        json!({
            "metadata": { "labels": { "app": app } },
            "spec": { "terminationGracePeriodSeconds": 5, "containers": [{
                "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never",
                "args": ["serve", "-name", cluster.name],
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
            }] },
        })
    };
    let deployment = |app: &str, replicas: usize| {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(app), "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": app } }, "template": pod(app) } })
    };
    let mut items = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SHOP } })];
    items.push(deployment("caller", 1));
    if replicas > 0 {
        items.push(deployment("catalog", replicas));
        let ports = json!([{ "name": "http", "port": 8082, "targetPort": 8080 }]);
        items.push(json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta("catalog"),
                           "spec": { "selector": { "app": "catalog" }, "ports": ports } }));
    }
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("applied");
    for app in ["caller", "catalog"].iter().take(if replicas > 0 { 2 } else { 1 }) {
        let wait = ["-n", SHOP, "rollout", "status", &format!("deploy/{app}"), "--timeout=180s"];
        cluster.kubectl(&wait).await.expect("pods are ready");
    }
}

/// The cluster whose server answers a call from a pod of this one.
pub(crate) async fn who(cluster: &Cluster) -> Result<String, String> {
    let said = cluster.exec(SHOP, "deploy/caller", &["/tools", "get", "-timeout", "3s", URL]).await?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    said["server"].as_str().map(str::to_owned).ok_or_else(|| format!("no server in {said}"))
}

/// How long a slow request takes: a gateway that ends goes on with it for longer.
const UNDER_WAY: Duration = Duration::from_secs(15);
/// How long a kept connection lives at least: a gateway that is told to end takes new ones for five seconds, and ends none for 20 after that.
const KEPT: Duration = Duration::from_secs(20);

/// The images of the version `next`, which are those that there are.
pub(crate) async fn another_version(cluster: &Cluster) {
    for image in ["tombolo-agent", "tombolo-gateway"] {
        let (old, new) = (format!("localhost/{image}:dev"), format!("localhost/{image}:next"));
        let tag = ["ctr", "-n", "k8s.io", "images", "tag", "--force", &old, &new];
        cluster.node_exec(1, &tag).await.expect("another name of the image");
    }
}

/// Both clusters get another version and one goes back, while a pod calls: no call fails.
async fn upgrade(world: &World, one: &Cluster, other: &Cluster) {
    for cluster in [one, other] {
        another_version(cluster).await;
    }
    // a new connection for each call, so that each is a choice of gateways
    let calls = ["/tools", "load", "-for", "5s", "-clients", "4", "-pause", "20ms", "-fresh", URL];
    let over = AtomicBool::new(false);
    let calling = async {
        let (mut requests, mut failures) = (0, Vec::new());
        while !over.load(Ordering::Relaxed) {
            let said = one.exec(SHOP, "deploy/caller", &calls).await.expect("counts");
            let counts: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
            requests += counts["requests"].as_u64().expect("a count");
            if counts["failed"] != 0 {
                failures.push(counts);
            }
        }
        (requests, failures)
    };
    let upgrading = async {
        for cluster in [one, other] {
            let done = world.tombolo(&["cluster", "upgrade", &cluster.name, "--to", "next"]).await;
            let done = done.expect("it is upgraded");
            assert!(done.contains("from dev to next"), "{done}");
        }
        let done = world.tombolo(&["cluster", "rollback", &one.name]).await.expect("it goes back");
        assert!(done.contains("back from next to dev"), "{done}");
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        for (cluster, tag) in [(one, "dev"), (other, "next")] {
            for deployment in ["tombolo-agent", "tombolo-egress", "tombolo-ingress"] {
                let get = ["-n", "tombolo-system", "get", "deploy", deployment, "-o", image];
                let image = cluster.kubectl(&get).await.expect("a Deployment");
                assert!(image.ends_with(&format!(":{tag}")), "{}: {deployment}: {image}", cluster.name);
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    // and those that are under way when a gateway is told to end: they take less than the time that it has
    let slow = Load::of_slow_requests(one, URL, UNDER_WAY).await;
    let ((requests, failures), ()) = tokio::join!(calling, upgrading);
    println!("calls during upgrade and rollback: {requests}, failed: {failures:?}");
    assert!(requests > 100 && failures.is_empty(), "{failures:?} of {requests}");
    let counts = slow.stop().await;
    println!("slow requests during upgrade and rollback: {}, failed: {}", counts.requests, counts.failed);
    assert!(counts.requests > 8 && counts.failed == 0, "{counts:?}");
}

/// The cluster that serves is taken out, while long requests are under way to it: they end well, and later ones find the servers at home.
async fn taken_out_under_load(world: &World, one: &Cluster, other: &Cluster) {
    let load = Load::of_long_requests(one, URL).await;
    assert_eq!(who(one).await, Ok(other.name.clone()));
    run(one, 1).await;
    let _ = until("it is served at home, too", SOON, || who(one), |who| *who == Ok(one.name.clone())).await;
    let kubeconfig = other.kubeconfig.display().to_string();
    let uninstall = ["cluster", "uninstall", &other.name, "--yes", "--kubeconfig", &kubeconfig];
    world.tombolo(&uninstall).await.expect("it is taken out");
    let counts = load.stop().await;
    println!("long requests during an uninstall: {}, failed: {}", counts.requests, counts.failed);
    assert_eq!(counts.failed, 0, "{counts:?}");
    assert!(counts.of(one) > 0 && counts.of(other) > 0, "{counts:?}");
    other.kubectl(&["delete", "namespace", SHOP, "--timeout=120s"]).await.expect("the application goes");
}

#[tokio::test]
async fn two_clusters_two_commands_each_one_name() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    let before = [everything(one).await, everything(other).await];

    let began = Instant::now();
    for cluster in [one, other] {
        join(&world, cluster).await;
    }
    for cluster in [one, other] {
        until_ok("the agent connects", SOON, || connected(&world, &cluster.name)).await;
    }
    println!("paste -> connected: {} ms", began.elapsed().as_millis());

    // what would be written is shown first, and nothing is
    let trial = ["cluster", "install", &one.name, "--ingress", "node-port", "--dry-run"];
    let trial = world.tombolo(&trial).await.expect("a trial");
    assert!(
        trial.contains("make Deployment tombolo-egress") && trial.contains("+ clusterset.local:53 {"),
        "{trial}"
    );
    let made = one.kubectl(&["-n", "tombolo-system", "get", "deploy", "tombolo-egress"]).await;
    assert!(made.is_err_and(|error| error.contains("NotFound")), "a trial made something");

    let gns = ["gns", "create", "acme", "--domain", "acme.example.com", "--namespace", SHOP];
    world.tombolo(&gns).await.expect("a global namespace");
    tokio::join!(run(one, 0), run(other, 2));
    let (here, there) = tokio::join!(order(&world, one, &[]), order(&world, other, &[]));
    for said in [here, there] {
        let said = said.expect("it is installed");
        for step in ["agent", "egress", "ingress", "address", "dns", "injector"] {
            let done = said.lines().any(|line| line.starts_with(step) && line.contains(" done "));
            assert!(done, "{step}: {said}");
        }
        // how the Corefile changes was shown before it was changed
        let line = |start: &str| said.lines().position(|line| line.trim_start().starts_with(start));
        let (shown, began) = (line("+ clusterset.local:53 {"), line("agent "));
        assert!(shown.is_some() && shown < began, "{said}");
    }
    let answered = until_ok("a call to another cluster", SOON, || who(one)).await;
    println!("paste -> first cross-cluster call: {} ms", began.elapsed().as_millis());
    assert_eq!(answered, other.name);
    assert_eq!(who(other).await, Ok(other.name.clone()), "its own servers answer the same name");

    peers_and_namespaces(&world, one, other).await;

    // what somebody deletes or changes is mended
    let generation = "jsonpath={.spec.replicas}";
    one.kubectl(&["-n", "tombolo-system", "delete", "deploy", "tombolo-egress", "--wait=false"])
        .await
        .expect("deleted");
    one.kubectl(&[
        "-n",
        "tombolo-system",
        "patch",
        "pdb",
        "tombolo-ingress",
        "--type=merge",
        "-p",
        r#"{"spec":{"maxUnavailable":2}}"#,
    ])
    .await
    .expect("changed");
    let mended = async || {
        let at = ["-n", "tombolo-system", "get", "deploy", "tombolo-egress", "-o", generation];
        let there = one.kubectl(&at).await.unwrap_or_default();
        let budget = [
            "-n",
            "tombolo-system",
            "get",
            "pdb",
            "tombolo-ingress",
            "-o",
            "jsonpath={.spec.maxUnavailable}",
        ];
        (there, one.kubectl(&budget).await.unwrap_or_default())
    };
    until("objects are mended", SOON, mended, |(replicas, budget)| replicas == "2" && budget == "1").await;
    assert_eq!(until_ok("calls go on", SOON, || who(one)).await, other.name);

    if lab.is_ours() {
        // from before the first change to after the last one
        let kept = Load::of_kept_connections(one, URL).await;
        upgrade(&world, one, other).await;
        taken_out_under_load(&world, one, other).await;
        kept.kept().await.assert_ended_in_order(KEPT);
    } else {
        println!(
            "left out on given clusters: upgrade, rollback and uninstall under load, which name images on nodes"
        );
    }

    let left: &[&Cluster] = if lab.is_ours() { &[one] } else { &[one, other] };
    for cluster in left.iter().copied() {
        let kubeconfig = cluster.kubeconfig.display().to_string();
        let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
        world.tombolo(&uninstall).await.expect("it is taken out");
        cluster
            .kubectl(&["delete", "namespace", SHOP, "--timeout=120s"])
            .await
            .expect("the application goes");
    }
    // and again, all in one go
    let kubeconfig = one.kubeconfig.display().to_string();
    let join = ["cluster", "join", &one.name, "--kubeconfig", &kubeconfig];
    let looked =
        world.tombolo(&[&join[..], &["--check"]].concat()).await.expect("all that is needed is there");
    for what in ["API server", "native sidecars", "permissions", "cluster DNS", "externalIPs"] {
        let good = looked.lines().any(|line| line.starts_with("ok") && line.contains(what));
        assert!(good || !lab.is_ours(), "{what}: {looked}");
    }
    assert_as_before(one, &before[0]).await;
    joined_only(&world, one).await;
    for (cluster, before) in [one, other].into_iter().zip(before) {
        assert_as_before(cluster, &before).await;
    }
}

/// Orders what is installed in a cluster, its gateways at node ports. What the command says.
async fn order(world: &World, cluster: &Cluster, more: &[&str]) -> Result<String, String> {
    let install = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
    world.tombolo(&[&install[..], more].concat()).await
}

/// A repeat of the order says that peers were reached, and the list how many gateways get through; a namespace that is left out is told to
/// nobody.
async fn peers_and_namespaces(world: &World, one: &Cluster, other: &Cluster) {
    let said = order(world, one, &[]).await.expect("the same order again");
    let reached = said.lines().any(|line| line.starts_with("peers") && line.contains(" done "));
    assert!(reached, "{said}");
    let through = format!("{} 2/2", other.name);
    let list = async || world.tombolo(&["cluster", "list"]).await;
    let _ =
        until("both get through", SOON, list, |list| list.as_ref().is_ok_and(|list| list.contains(&through)))
            .await;

    order(world, other, &["--exclude-namespace", SHOP]).await.expect("a namespace is left out");
    let _ = until("nothing of it is served", SOON, || who(one), Result::is_err).await;
    order(world, other, &["--all-namespaces"]).await.expect("it takes part again");
    let _ = until("it is served again", SOON, || who(one), |who| *who == Ok(other.name.clone())).await;
}

/// A cluster that only joins has objects of ours, too: of names, of imports, conditions of exports. Nothing of them is left.
async fn joined_only(world: &World, cluster: &Cluster) {
    exports::known(cluster, &["v1beta1"]).await;
    run(cluster, 1).await;
    exports::export(cluster, "v1beta1", "catalog").await;
    let before = everything(cluster).await;
    // the order to take everything out stands as long as the controller knows the cluster
    world.tombolo(&["cluster", "remove", &cluster.name, "--yes"]).await.expect("it is removed");
    let kubeconfig = cluster.kubeconfig.display().to_string();
    let join = ["cluster", "join", &cluster.name, "--kubeconfig", &kubeconfig];
    world.tombolo(&join).await.expect("it joins");
    let conditions = async || {
        let path = "jsonpath={.items[*].status.conditions[*].type}";
        cluster
            .kubectl(&["-n", SHOP, "get", "serviceexports.v1beta1.multicluster.x-k8s.io", "-o", path])
            .await
    };
    let _ = until("conditions", SOON, conditions, |all| all.as_ref().is_ok_and(|all| !all.is_empty())).await;
    let made = async || {
        let more = Differences::of(&before, &everything(cluster).await).left;
        ["ServiceImport shop catalog", "Service tombolo-system g-catalog-acme"]
            .map(|one| more.iter().any(|line| line.starts_with(one)))
    };
    until("what a join makes", SOON, made, |all| *all == [true, true]).await;
    let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
    world.tombolo(&uninstall).await.expect("it is taken out");
    assert_eq!(conditions().await.as_deref(), Ok(""), "the export has none of ours");
    assert_as_before(cluster, &before).await;
    cluster.kubectl(&["delete", "namespace", SHOP, "--timeout=120s"]).await.expect("the application goes");
    exports::forgotten(cluster).await;
}
