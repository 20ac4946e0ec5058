//! An installation on a true API server: its steps, and an autoscaler that says how many gateways there are. No kubelet runs here, so
//! the test says that pods are there.

use crate::{
    capture::own_address,
    identity::{OWN, pod},
    make_endpoints, make_service, make_wide,
    rights::let_agent_as_in_the_manifest,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON, gateway},
};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Namespace, Pod, Service},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, PolicyRule, Role},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use tombolo_testkit::wait::until;

const PATH: &str = "/organizations/acme/clusters/cluster-1";

/// A cluster of which somebody measures the load of the pods, as the API server sees it.
async fn let_load_be_measured(client: &Client) {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let crd = json!({
        "metadata": {
            "name": "pods.metrics.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, stands for the metrics server"},
        },
        "spec": {
            "group": "metrics.k8s.io", "scope": "Namespaced",
            "names": {"kind": "PodMetrics", "plural": "pods", "singular": "pod", "listKind": "PodMetricsList"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": schema}],
        },
    });
    make_wide::<CustomResourceDefinition>(client, crd).await;
    let measured = || async {
        let groups = client.list_api_groups().await.expect("groups").groups;
        groups.iter().any(|group| group.name == "metrics.k8s.io")
    };
    until("the API of loads", SOON, measured, |found| *found).await;
}

async fn agent(home: &Path, server: &Server) -> Agent {
    let listen = SocketAddr::new(own_address(), 0).to_string();
    let options = [
        ["--namespace", OWN],
        ["--capture", "gateway"],
        ["--webhook-listen", &listen],
        ["--allowed-registry", "localhost"],
    ]
    .concat();
    Agent::start(home, server, &options).await
}

/// Takes all rights to these from the agent.
async fn forbid(client: &Client, resources: &[&str]) {
    let without = |rules: Option<Vec<PolicyRule>>| -> Vec<PolicyRule> {
        let mut rules = rules.unwrap_or_default();
        for named in rules.iter_mut().filter_map(|rule| rule.resources.as_mut()) {
            named.retain(|resource| !resources.contains(&resource.as_str()));
        }
        rules.retain(|rule| rule.resources.as_ref().is_none_or(|named| !named.is_empty()));
        rules
    };
    let (roles, all): (Api<Role>, Api<ClusterRole>) =
        (Api::namespaced(client.clone(), OWN), Api::all(client.clone()));
    let mut role = roles.get("tombolo-agent").await.expect("a role");
    role.rules = Some(without(role.rules));
    roles.replace("tombolo-agent", &PostParams::default(), &role).await.expect("changed");
    let mut role = all.get("tombolo-agent").await.expect("a role");
    role.rules = Some(without(role.rules));
    all.replace("tombolo-agent", &PostParams::default(), &role).await.expect("changed");
}

struct World {
    home: tempfile::TempDir,
    _store: Store,
    server: Server,
    client: Client,
    controller: Controller,
    agent: Agent,
}

impl World {
    async fn start() -> Self {
        Self::start_without(&[]).await
    }

    /// With an agent that may not read these.
    async fn start_without(forbidden: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::start(&home.path().join("kubernetes"));
        let server = store.server().await;
        let client = server.client(ADMIN).await;
        for name in ["shop", OWN] {
            make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
        }
        make_wide::<MutatingWebhookConfiguration>(&client, json!({"metadata": {"name": "tombolo"}})).await;
        let_agent_as_in_the_manifest(&client).await;
        forbid(&client, forbidden).await;
        let_load_be_measured(&client).await;
        let controller = Controller::start().await;
        controller.join(home.path()).await;
        let agent = agent(home.path(), &server).await;
        Self { home, _store: store, server, client, controller, agent }
    }

    /// Asks for this many gateways of each kind.
    async fn order(&self, min: u32, max: u32) {
        let replicas = json!({"replicas": min, "min": min, "max": max});
        let mut ingress = replicas.clone();
        ingress["exposure"] = json!([{"type": "address", "addresses": ["gw.example.com:443"]}]);
        let body = json!({"version": "dev", "registry": "localhost", "gateways": {"egress": replicas, "ingress": ingress}});
        self.controller.order(&format!("{PATH}/install"), &body).await;
    }

    /// The state of a step and what is said of it.
    async fn step(&self, name: &str) -> (String, String) {
        let status = self.controller.call(Method::GET, &format!("{PATH}/status"), None).await;
        let steps = status["install"]["steps"].as_array().cloned().unwrap_or_default();
        let text = |step: &Value, field: &str| step[field].as_str().unwrap_or_default().to_owned();
        let found = steps.iter().find(|step| step["step"] == name);
        found.map(|step| (text(step, "state"), text(step, "message"))).unwrap_or_default()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), OWN)
    }

    async fn replicas(&self) -> Option<i32> {
        let found = self.api::<Deployment>().get_opt("tombolo-egress").await.expect("an answer")?;
        found.spec?.replicas
    }

    /// Waits until the agent has mended what this deletes: then it has seen all that was before it.
    async fn looks_again(&self) {
        let budgets = self.api::<PodDisruptionBudget>();
        let before = budgets.get("tombolo-egress").await.expect("a budget").metadata.uid;
        budgets.delete("tombolo-egress", &DeleteParams::default()).await.expect("deleted");
        let again = || async {
            budgets.get_opt("tombolo-egress").await.expect("an answer").and_then(|found| found.metadata.uid)
        };
        until("it is made anew", SOON, again, |now| now.is_some() && *now != before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_serves_what_the_api_server_believes() {
    let world = World::start().await;
    let here = own_address().to_string();
    assert_eq!(world.agent.address("webhook").ip().to_string(), here);
    world.order(2, 2).await;
    let step = || world.step("injector");
    until("no agent is known", SOON, step, |(state, said)| state == "working" && said.contains("no pod"))
        .await;
    pod(&world.client, OWN, "tombolo-agent", "agent-1", "n1", &here).await;
    let said = |of: &'static str| move |(_, said): &(String, String)| said.contains(of);
    let (state, _) = until("one serves", SOON, step, said("1 of 1 agents serve")).await;
    assert_eq!(state, "done");
    // and one where nobody listens
    pod(&world.client, OWN, "tombolo-agent", "agent-2", "n2", "127.0.0.3").await;
    let (state, message) = until("one does not", SOON, step, said("1 of 2 agents serve")).await;
    assert!(state == "working" && message.contains("agent-2: "), "{state} {message}");
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    world.api::<Pod>().delete("agent-2", &now).await.expect("deleted");
    let (state, _) = until("it is gone", SOON, step, said("1 of 1 agents serve")).await;
    assert_eq!(state, "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_says_how_many_gateways_there_are() {
    let world = World::start().await;
    world.order(2, 6).await;
    let scalers = world.api::<HorizontalPodAutoscaler>();
    let most = || async {
        let found = scalers.get_opt("tombolo-egress").await.expect("an answer");
        found.and_then(|found| found.spec).map(|spec| (spec.min_replicas, spec.max_replicas))
    };
    until("an autoscaler", SOON, most, |found| *found == Some((Some(2), 6))).await;
    until("gateways", SOON, || world.replicas(), |found| *found == Some(2)).await;

    // what somebody changes or deletes is mended
    let change = json!({"spec": {"maxReplicas": 50}});
    scalers.patch("tombolo-egress", &PatchParams::default(), &Patch::Merge(change)).await.expect("changed");
    until("it is mended", SOON, most, |found| *found == Some((Some(2), 6))).await;
    scalers.delete("tombolo-egress", &DeleteParams::default()).await.expect("deleted");
    until("it is made anew", SOON, most, |found| *found == Some((Some(2), 6))).await;

    // as the autoscaler does it
    let deployments = world.api::<Deployment>();
    let version = || async {
        let found = deployments.get("tombolo-egress").await.expect("a Deployment").metadata;
        (found.generation, found.resource_version)
    };
    let scale = json!({"spec": {"replicas": 4}});
    let scaled =
        deployments.patch_scale("tombolo-egress", &PatchParams::default(), &Patch::Merge(scale)).await;
    scaled.expect("scaled");
    let before = version().await;
    world.looks_again().await;
    assert_eq!(world.replicas().await, Some(4), "its count is the autoscaler's");
    assert_eq!(version().await, before, "and nothing is written for it");
    // also where all else of the Deployment is mended
    let change = json!({"spec": {"template": {"spec": {"priorityClassName": "system-node-critical"}}}});
    let (name, params) = ("tombolo-egress", PatchParams::default());
    deployments.patch(name, &params, &Patch::Merge(change)).await.expect("changed");
    let class = || async {
        let found = deployments.get("tombolo-egress").await.expect("a Deployment");
        found.spec.and_then(|spec| spec.template.spec).and_then(|spec| spec.priority_class_name)
    };
    until("it is mended", SOON, class, |found| found.as_deref() == Some("system-cluster-critical")).await;
    assert_eq!(world.replicas().await, Some(4));

    // an order without a range is one without an autoscaler
    world.order(3, 3).await;
    until("no autoscaler", SOON, most, Option::is_none).await;
    until("as many as were ordered", SOON, || world.replicas(), |found| *found == Some(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_missing_is_said_and_takes_no_address_from_the_peers() {
    let mut world = World::start_without(&["poddisruptionbudgets"]).await;
    world.order(2, 2).await;
    let said = |what: &'static str| move |all: &Vec<String>| all.iter().any(|one| one.starts_with(what));
    let budgets = said("installation, PodDisruptionBudgets: can't be read");
    until("what is missing", SOON, || world.controller.problems(), budgets).await;
    until("gateways all the same", SOON, || world.replicas(), |found| *found == Some(2)).await;
    let addresses = || async { world.controller.call(Method::GET, PATH, None).await["ingress"].clone() };
    let given = json!(["gw.example.com:443"]);
    until("where peers reach it", SOON, addresses, |all| *all == given).await;

    // It starts anew without one that it can't do without.
    world.agent.kill();
    forbid(&world.client, &["nodes"]).await;
    world.agent = agent(world.home.path(), &world.server).await;
    let nodes = said("installation, Nodes: can't be read");
    until("what is missing now", SOON, || world.controller.problems(), nodes).await;
    let (state, message) = world.step("agent").await;
    assert!(state == "waiting" && message.contains("Nodes can't be read"), "{state} {message}");
    let cluster = world.controller.call(Method::GET, PATH, None).await;
    assert_eq!(cluster["ingress"], given, "peers go on where they went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ordered_out_takes_no_new_calls_and_lets_the_others_end() {
    let world = World::start().await;
    make_service(&world.client, "shop", "catalog").await;
    make_endpoints(&world.client, "shop", "catalog").await;
    world.order(2, 2).await;
    let mut ingress = gateway(world.home.path(), "ingress", own_address()).await;
    let inventory = || world.agent.inventory();
    let ready = |count: u8| [format!(r#"shop/catalog {count}/2 ["catalog"]"#)];
    until("it is reported", SOON, inventory, |all| *all == ready(2)).await;
    until("gateways", SOON, || world.replicas(), |found| *found == Some(2)).await;

    world.controller.withdraw(&format!("{PATH}/install")).await;
    until("no new calls", SOON, inventory, |all| *all == ready(0)).await;
    let step = || world.step("gateways");
    let ending =
        |(state, said): &(String, String)| state == "working" && said.contains("the calls at 1 ingress");
    until("its calls end", SOON, step, ending).await;
    until("no gateways are made any more", SOON, || world.replicas(), Option::is_none).await;
    let way = || async { world.api::<Service>().get_opt("tombolo-ingress").await.expect("an answer") };
    assert!(way().await.is_some(), "calls that are under way come by it");
    assert_eq!(inventory().await, ready(0), "and what they are at is served");
    let addresses = world.controller.call(Method::GET, PATH, None).await["ingress"].clone();
    let stands = addresses.as_array().is_some_and(|all| all.contains(&json!("gw.example.com:443")));
    assert!(stands, "where they came: {addresses}");

    ingress.kill();
    until("it is done", SOON, step, |(state, _)| state == "done").await;
    until("the way is gone", SOON, way, Option::is_none).await;
    until("nothing is reported", SOON, inventory, Vec::is_empty).await;
}
