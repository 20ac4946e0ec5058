//! The command line and the cluster that a context leads to: which one it is, and how everything is taken out of it, also where no agent
//! can be told to.

use crate::{
    capture::own_address,
    identity::OWN,
    make, make_wide, meta,
    rights::let_agent_as_in_the_manifest,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Secret, Service},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use tombolo_testkit::{process::binary, wait::until};

const PATH: &str = "/organizations/acme/clusters/cluster-1";
const INSTALL: &str = "/organizations/acme/clusters/cluster-1/install";

/// Runs the command line; whether it went well, and all that it said.
async fn tombolo(
    controller: &Controller,
    home: &Path,
    server: Option<&Server>,
    args: &[&str],
) -> (bool, String) {
    let mut command = tokio::process::Command::new(binary("tombolo"));
    command.args(controller.credentials(home)).env("TOMBOLO_CONFIG", home.join("config")).args(args);
    if let Some(server) = server {
        command.arg("--kubeconfig").arg(server.kubeconfig(ADMIN));
    }
    let done = command.output().await.expect("it runs");
    let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (done.status.success(), said)
}

async fn state(controller: &Controller) -> String {
    let shown = controller.call(Method::GET, PATH, None).await;
    shown["state"].as_str().unwrap_or_default().to_owned()
}

/// The namespace of the agent, as its manifest makes it.
async fn make_own(client: &Client, controller: &Controller) {
    let (url, _) = controller.place();
    let marks = json!({ "tombolo.io/organization": "acme", "tombolo.io/cluster": "cluster-1", "tombolo.io/controller": url });
    make_wide::<Namespace>(client, json!({ "metadata": { "name": OWN, "annotations": marks } })).await;
}

/// Takes a namespace away once it is deleted, as the controller that is not here would.
async fn bury(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let deleted = || async {
        let found = namespaces.get_opt(OWN).await.expect("an answer")?;
        found.metadata.deletion_timestamp.is_some().then_some(found)
    };
    let mut found = until("it is deleted", SOON, deleted, Option::is_some).await.expect("a namespace");
    found.spec.get_or_insert_default().finalizers = None;
    let done = namespaces.replace_subresource("finalize", OWN, &PostParams::default(), &found).await;
    done.expect("it goes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_cluster_is_not_the_one_that_is_connected() {
    let home = tempfile::tempdir().expect("a folder");
    let stores = ["here", "there"].map(|name| Store::start(&home.path().join(name)));
    let (here, there) = (stores[0].server().await, stores[1].server().await);
    let client = here.client(ADMIN).await;
    let controller = Controller::start_at(own_address()).await;
    for name in ["shop", OWN] {
        make_wide::<Namespace>(&client, json!({ "metadata": { "name": name } })).await;
    }
    let_agent_as_in_the_manifest(&client).await;
    controller.join(home.path()).await;
    let mut agent = Agent::start(home.path(), &here, &["--namespace", OWN]).await;
    until("it is connected", SOON, || state(&controller), |state| state == "connected").await;
    controller.order(INSTALL, &json!({})).await;

    let elsewhere = there.client(ADMIN).await;
    let run = async |args: &[&str]| {
        let (good, said) = tombolo(&controller, home.path(), Some(&there), args).await;
        assert!(!good && said.contains("is it the right --context?"), "{args:?}: {said}");
        assert!(said.contains("Nothing was changed"), "{said}");
        let made = Api::<Namespace>::all(elsewhere.clone()).get_opt(OWN).await.expect("an answer");
        assert!(made.is_none(), "{args:?} made something");
        assert!(!controller.lacks(INSTALL).await, "{args:?} ordered something");
    };
    run(&["cluster", "join", "cluster-1", "--check"]).await;
    run(&["cluster", "join", "cluster-1"]).await;
    run(&["cluster", "uninstall", "cluster-1", "--yes", "--timeout=3"]).await;
    // also where the agent is away: it would take everything out as soon as it is back
    agent.kill();
    until("it is away", SOON, || state(&controller), |state| state == "disconnected").await;
    run(&["cluster", "uninstall", "cluster-1", "--yes", "--timeout=3"]).await;
}

/// Joining again ends the calls under way: it is not done to one whose agent is away for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_back_keeps_its_trust() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    let controller = Controller::start_at(own_address()).await;
    make_own(&client, &controller).await;
    make_wide::<Namespace>(&client, json!({ "metadata": { "name": "shop" } })).await;
    let_agent_as_in_the_manifest(&client).await;
    let labels = json!({ "app.kubernetes.io/name": "tombolo-agent" });
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "agent", "image": "i" }] } });
    let spec = json!({ "selector": { "matchLabels": labels }, "template": template });
    make::<Deployment>(&client, json!({ "metadata": meta(OWN, "tombolo-agent"), "spec": spec })).await;
    let status = json!({ "status": { "replicas": 2, "readyReplicas": 2, "availableReplicas": 2 } });
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OWN);
    let ready = Patch::Merge(status);
    deployments.patch_status("tombolo-agent", &PatchParams::default(), &ready).await.expect("a status");

    controller.join(home.path()).await;
    let options = ["--namespace", OWN];
    let mut agent = Agent::start(home.path(), &server, &options).await;
    until("it is connected", SOON, || state(&controller), |state| state == "connected").await;
    agent.kill();
    until("it is away", SOON, || state(&controller), |state| state == "disconnected").await;

    let tokens = format!("{PATH}/onboarding-tokens");
    let tokens = async || controller.call(Method::GET, &tokens, None).await["items"].clone();
    let before = tokens().await;
    let back = async {
        let services: Api<Service> = Api::namespaced(client.clone(), OWN);
        let applied = || async { services.get_opt("tombolo-dns").await.expect("an answer") };
        let _ = until("the manifest is applied", SOON, applied, Option::is_some).await;
        Agent::start(home.path(), &server, &options).await
    };
    let join = ["cluster", "join", "cluster-1"];
    let ((good, said), _agent) = tokio::join!(tombolo(&controller, home.path(), Some(&server), &join), back);
    assert!(good && said.contains("s to come back") && said.contains("is connected"), "{said}");
    assert_eq!(tokens().await, before, "no token was made");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OWN);
    assert!(secrets.get_opt("tombolo-join").await.expect("an answer").is_none(), "nor given");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_without_an_agent_and_what_is_left_is_said() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    let controller = Controller::start().await;
    make_own(&client, &controller).await;
    let corefile = ".:53 {\n}\n\n# tombolo: begin. Made by tombolo-agent\n# tombolo: end\n";
    let coredns = json!({ "metadata": meta("kube-system", "coredns"), "data": { "Corefile": corefile } });
    make::<ConfigMap>(&client, coredns).await;
    // it joined, and is away
    controller.join(home.path()).await;
    assert_eq!(state(&controller).await, "disconnected");
    controller.order(INSTALL, &json!({})).await;

    let uninstall = ["cluster", "uninstall", "cluster-1", "--yes", "--timeout=1"];
    let (good, said) = tombolo(&controller, home.path(), None, &uninstall).await;
    assert!(!good && said.contains("The order stands"), "{said}");
    let run = async || tombolo(&controller, home.path(), Some(&server), &uninstall).await;
    let ((good, said), ()) = tokio::join!(run(), bury(&client));
    assert!(!good && said.contains("is waited for up to 1 s"), "{said}");
    assert!(said.contains("edit configmap coredns"), "{said}");
    let (good, said) = run().await;
    assert!(good && said.contains("nothing of Tombolo is left"), "{said}");

    // and one that nobody can order anything of
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    maps.delete("coredns", &DeleteParams::default()).await.expect("deleted");
    let (good, said) =
        tombolo(&controller, home.path(), None, &["cluster", "remove", "cluster-1", "--yes"]).await;
    assert!(good, "{said}");
    let (good, said) = tombolo(&controller, home.path(), None, &uninstall).await;
    assert!(!good && said.contains("--kubeconfig"), "{said}");
    make_own(&client, &controller).await;
    let ((good, said), ()) = tokio::join!(run(), bury(&client));
    assert!(good && said.contains("nothing of Tombolo is left"), "{said}");
}
