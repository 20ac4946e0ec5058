//! Whole installations, without a cluster: what is planned is put into what was read, until nothing is planned any more.

use super::{
    address::Node,
    object::{Key, Kind},
    objects::{AGENT, Abilities, EGRESS, INGRESS},
    plan::{Action, Asked, Found, Plan, RESTARTED_FOR, plan},
};
use crate::{inject::Injection, registries::Registries};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, Locality, NamespaceName, Proximity,
    install::{InstallOrder, InstallSpec, StepState, Trial, TrialStatus},
    snapshot::{ClusterResource, DomainSpec, PeerSpec, Resource as _, Resources, SelfSpec, TrustBundleSpec},
};

const COREFILE: &str = ".:53 {\n    forward . /etc/resolv.conf\n}\n";

fn spec() -> InstallSpec {
    let spec = json!({ "revision": 1, "version": "1.0.0", "registry": "r.example.com/t" });
    InstallSpec {
        gateways: gateways(&[json!({ "type": "node_port" })]),
        ..serde_json::from_value(spec).unwrap()
    }
}

fn gateways(ways: &[Value]) -> tombolo_model::install::Gateways {
    let ingress = json!({ "replicas": 2, "min": 2, "max": 4, "exposure": ways });
    serde_json::from_value(json!({ "ingress": ingress })).unwrap()
}

fn snapshot(order: InstallOrder) -> Resources<ClusterResource> {
    let trust_domain: tombolo_model::TrustDomain = "acme.tombolo.internal".parse().unwrap();
    let cluster = ClusterName::parse("east").unwrap();
    let all = [
        ClusterResource::Itself(
            SelfSpec {
                cluster: cluster.clone(),
                trust_domain: trust_domain.clone(),
                locality: Locality::default(),
            }
            .into(),
        ),
        ClusterResource::Bundle(
            TrustBundleSpec { trust_domain, roots: vec!["ROOT".to_owned()], clusters: BTreeMap::new() }
                .into(),
        ),
        ClusterResource::Domain(
            DomainSpec {
                domain: "acme.example.com".parse().unwrap(),
                gns: "acme".parse().unwrap(),
                members: BTreeSet::from([cluster]),
            }
            .into(),
        ),
        ClusterResource::Peer(
            PeerSpec {
                cluster: "west".parse().unwrap(),
                proximity: Proximity::Elsewhere,
                ingress: BTreeSet::new(),
            }
            .into(),
        ),
        ClusterResource::Install(order.into()),
    ];
    all.into_iter().map(|one| (one.key(), one)).collect()
}

/// Two replicas of the agent, of which these do not serve what they should.
fn told(silent: &[&str]) -> Injection {
    let silent = silent.iter().map(|pod| ((*pod).to_owned(), "the peer is refused".to_owned())).collect();
    Injection::Told { replicas: 2, silent }
}

/// A cluster that does what it is told.
struct Cluster {
    found: Found,
    order: InstallOrder,
}

impl Cluster {
    fn new(order: InstallOrder) -> Self {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let node = json!({
            "metadata": { "name": "n1" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }], "conditions": ready },
        });
        let mut found = Found {
            answers_at: Some("10.96.0.53".parse().unwrap()),
            nodes: BTreeSet::from([Node::read(&node).unwrap()]),
            registries: Registries::stated(["r.example.com/t".to_owned()]).with_running([]),
            ..Found::default()
        };
        found.injection = told(&[]);
        found.dns.config =
            Some(json!({ "metadata": { "resourceVersion": "7" }, "data": { "Corefile": COREFILE } }));
        found.dns.deployment = Some(rolled_out(json!({ "spec": { "replicas": 2 } })));
        Self { found, order }
    }

    fn plan(&self) -> Plan {
        let resources = snapshot(self.order.clone());
        plan(&Asked::of(&resources).unwrap(), &NamespaceName::parse("tombolo-system").unwrap(), &self.found)
    }

    /// What the agent says of a trial beside the order.
    fn tried(&self, trial: Trial) -> TrialStatus {
        let mut resources = snapshot(self.order.clone());
        let resource = ClusterResource::Trial(trial.into());
        resources.insert(resource.key(), resource);
        let asked = Asked::of(&resources).unwrap();
        let trial = asked.trial.unwrap();
        super::trial::answer(&asked, trial, &NamespaceName::parse("tombolo-system").unwrap(), &self.found)
    }

    /// Does what is planned, and says what that was.
    fn step(&mut self) -> Vec<String> {
        let plan = self.plan();
        let mut done = Vec::new();
        for (_, action) in plan.actions {
            match action {
                Action::Apply(key, value) => {
                    done.push(format!("apply {key}"));
                    let mut value = *value;
                    if key.kind == Kind::Service && value["spec"]["type"] != "ClusterIP" {
                        value["spec"]["ports"][0]["nodePort"] = json!(31_443);
                    }
                    if key.kind == Kind::Deployment {
                        value = rolled_out(value);
                    }
                    self.found.objects.insert(key, value);
                }
                Action::Delete(key) => {
                    done.push(format!("delete {key}"));
                    self.found.objects.remove(&key);
                }
                Action::Scale(key, count) => {
                    done.push(format!("scale {key} to {count}"));
                    self.found.objects.get_mut(&key).unwrap()["spec"]["replicas"] = json!(count);
                }
                Action::Corefile { text, version } => {
                    assert_eq!(version, "7");
                    done.push("corefile".to_owned());
                    self.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(text);
                }
                Action::Restart { mark } => {
                    done.push("restart".to_owned());
                    let template = &mut self.found.dns.deployment.as_mut().unwrap()["spec"]["template"];
                    template["metadata"]["annotations"][RESTARTED_FOR] = json!(mark);
                }
                Action::Agent { image } => {
                    done.push(format!("agent {image}"));
                    self.found.agent = Some(agent(&image));
                }
            }
        }
        done
    }

    fn settle(&mut self) {
        self.step();
        assert_eq!(self.step(), [""; 0], "what is there is written again");
    }

    fn steps(&self) -> BTreeMap<String, (StepState, String)> {
        self.plan().steps.into_iter().map(|step| (step.step, (step.state, step.message))).collect()
    }

    fn object(&mut self, kind: Kind, name: &str) -> &mut Value {
        self.found.objects.get_mut(&Key::new(kind, name)).unwrap()
    }
}

fn rolled_out(mut deployment: Value) -> Value {
    let count = deployment["spec"]["replicas"].clone();
    deployment["status"] = json!({ "replicas": count, "updatedReplicas": count, "availableReplicas": count });
    deployment
}

fn agent(image: &str) -> Value {
    let containers = json!([{ "name": "agent", "image": image }]);
    rolled_out(json!({ "spec": { "replicas": 2, "template": { "spec": { "containers": containers } } } }))
}

#[test]
fn all_that_is_asked_for_is_made_once() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    let mut done = cluster.step();
    done.sort();
    assert_eq!(
        done,
        [
            "apply Deployment tombolo-egress",
            "apply Deployment tombolo-ingress",
            "apply PodDisruptionBudget tombolo-egress",
            "apply PodDisruptionBudget tombolo-ingress",
            "apply Service tombolo-ingress",
            "corefile",
            "restart",
        ]
    );
    assert_eq!(cluster.step(), [""; 0]);
    assert_eq!(cluster.plan().addresses, BTreeSet::from(["192.0.2.1:31443".to_owned()]));
    let steps = cluster.steps();
    for step in ["egress", "ingress", "address", "dns"] {
        assert_eq!(steps[step].0, StepState::Done, "{step}: {steps:?}");
    }
    assert_eq!(steps["peers"], (StepState::Waiting, "for a first handshake with west".to_owned()));
    let through = BTreeSet::from(["198.51.100.1:31443".to_owned()]);
    cluster.found.reached.insert(ClusterName::parse("west").unwrap(), through);
    assert_eq!(cluster.steps()["peers"], (StepState::Done, "west through 198.51.100.1:31443".to_owned()));
}

#[test]
fn every_gateway_says_why_it_refuses() {
    let mut spec = spec();
    spec.node.enabled = true;
    let mut cluster = Cluster::new(InstallOrder::Installed(spec));
    cluster.settle();
    for (kind, name) in
        [(Kind::Deployment, EGRESS), (Kind::Deployment, INGRESS), (Kind::DaemonSet, "tombolo-node")]
    {
        let args = cluster.object(kind, name)["spec"]["template"]["spec"]["containers"][0]["args"].take();
        assert!(args.as_array().unwrap().contains(&json!("--access-log=-")), "{name}: {args}");
    }
}

#[test]
fn what_others_change_is_mended_and_what_they_add_stays() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("evil");
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"]);
    cluster.object(Kind::PodDisruptionBudget, INGRESS)["metadata"]["annotations"] = json!({});
    assert_eq!(cluster.step(), ["apply PodDisruptionBudget tombolo-ingress"]);
    cluster.found.objects.remove(&Key::new(Kind::Service, INGRESS));
    assert_eq!(cluster.step(), ["apply Service tombolo-ingress"]);
    cluster.object(Kind::Deployment, EGRESS)["spec"]["paused"] = json!(true);
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"]);
    cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"]["nodeSelector"]["disk"] =
        json!("ssd");
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"]);
    cluster.object(Kind::Deployment, EGRESS)["spec"].as_object_mut().unwrap().remove("paused");
    assert_eq!(cluster.step(), [""; 0], "the API server leaves out what is as it would be anyway");
    cluster.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(COREFILE);
    assert_eq!(cluster.step(), ["corefile"], "the same text: no pod has to be replaced for it");
    let containers = &mut cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"]["containers"];
    containers.as_array_mut().unwrap().push(json!({ "name": "theirs" }));
    cluster.object(Kind::Service, INGRESS)["metadata"]["labels"]["team"] = json!("a");
    assert_eq!(cluster.step(), [""; 0]);
    let stranger = Key::new(Kind::DaemonSet, "tombolo-node");
    cluster.found.objects.insert(stranger, json!({}));
    assert_eq!(cluster.step(), ["delete DaemonSet tombolo-node"], "what is in no plan goes");
}

#[test]
fn pods_of_the_dns_are_replaced_for_our_block_alone() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    let text = |cluster: &Cluster| {
        cluster.found.dns.config.as_ref().unwrap()["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let write = |cluster: &mut Cluster, text: String| {
        cluster.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(text);
    };
    let mark = |cluster: &mut Cluster, mark: Value| {
        let template = &mut cluster.found.dns.deployment.as_mut().unwrap()["spec"]["template"];
        template["metadata"]["annotations"][RESTARTED_FOR] = mark;
    };
    let typo = text(&cluster).replace("forward . /etc", "forwad . /etc");
    assert_ne!(typo, text(&cluster));
    write(&mut cluster, typo.clone());
    assert_eq!(cluster.step(), [""; 0], "what is not ours");
    write(&mut cluster, format!("{typo}b.test {{\n}}\n"));
    assert_eq!(cluster.step(), ["corefile"], "our block moves, and is the same");
    let moved = text(&cluster).replace(".:53 {", ".:1053 {");
    write(&mut cluster, moved);
    assert_eq!(cluster.step(), ["corefile", "restart"], "our block is another one");
    // marks of older agents, made of a text that may be any by now
    let old = json!("0123456789abcdef");
    mark(&mut cluster, old.clone());
    assert_eq!(cluster.step(), [""; 0], "our block is as it was");
    cluster.found.failed.insert("dns", "no".to_owned());
    assert_eq!(cluster.step(), ["restart"], "they were not replaced");
    cluster.found.failed.clear();
    mark(&mut cluster, old);
    let back = text(&cluster).replace(".:1053 {", ".:53 {");
    write(&mut cluster, back);
    assert_eq!(cluster.step(), ["corefile", "restart"]);
    mark(&mut cluster, Value::Null);
    assert_eq!(cluster.step(), ["restart"], "no mark at all");
    assert_eq!(cluster.step(), [""; 0]);
}

#[test]
fn what_somebody_adds_where_it_leads_calls_astray_is_mended() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    cluster.object(Kind::Service, INGRESS)["spec"]["selector"]["x"] = json!("y");
    assert_eq!(cluster.step(), ["apply Service tombolo-ingress"]);
    cluster.object(Kind::PodDisruptionBudget, EGRESS)["spec"]["selector"]["matchLabels"]["x"] = json!("y");
    assert_eq!(cluster.step(), ["apply PodDisruptionBudget tombolo-egress"]);
    for (field, value) in [("schedulerName", "theirs"), ("dnsPolicy", "Default")] {
        cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"][field] = json!(value);
        assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"], "{field}");
    }
    let command = |cluster: &mut Cluster, value: Option<Value>| {
        let pod = &mut cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"];
        let container = pod["containers"][0].as_object_mut().unwrap();
        container.remove("command");
        container.extend(value.map(|value| ("command".to_owned(), value)));
    };
    command(&mut cluster, Some(json!(["sleep"])));
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"]);
    command(&mut cluster, None);
    assert_eq!(cluster.step(), [""; 0], "the API server leaves out what is empty");
}

#[test]
fn nodes_proxies_take_the_virtual_addresses_of_the_installation() {
    let node = serde_json::from_value(json!({ "enabled": true })).unwrap();
    let mut cluster = Cluster::new(InstallOrder::Installed(InstallSpec { node, ..spec() }));
    cluster.found.vips = ["241.0.0.0/8", "fd00:1::/64"].map(|net| net.parse().unwrap()).into();
    cluster.settle();
    let mut args = |kind: Kind, name: &str| {
        let args = &cluster.object(kind, name)["spec"]["template"]["spec"]["containers"][0]["args"];
        args.as_array().unwrap().contains(&json!("--vips=241.0.0.0/8,fd00:1::/64"))
    };
    assert!(args(Kind::DaemonSet, "tombolo-node"));
    assert!(!args(Kind::Deployment, EGRESS), "it has no use for them");
    let mut may = |kind: Kind, name: &str| {
        let context =
            &cluster.object(kind, name)["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        context["capabilities"].clone()
    };
    let node = json!({ "drop": ["ALL"], "add": ["NET_ADMIN", "BPF"] });
    assert_eq!(may(Kind::DaemonSet, "tombolo-node"), node, "what either way of capture takes");
    assert_eq!(may(Kind::Deployment, EGRESS), json!({ "drop": ["ALL"] }));
}

#[test]
fn egress_gateways_dial_nobody_where_the_agent_was_told() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    let args = |cluster: &mut Cluster, name: &str| {
        let args =
            &cluster.object(Kind::Deployment, name)["spec"]["template"]["spec"]["containers"][0]["args"];
        let args =
            args.as_array().unwrap().iter().filter_map(|arg| arg.as_str()?.strip_prefix("--never-dial="));
        args.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(args(&mut cluster, EGRESS), [""; 0], "a range is nobody's to guess");
    cluster.found.never_dial = ["10.244.0.0/16", "fd00:1::/64"].map(|net| net.parse().unwrap()).into();
    cluster.settle();
    assert_eq!(args(&mut cluster, EGRESS), ["10.244.0.0/16,fd00:1::/64"]);
    assert_eq!(args(&mut cluster, INGRESS), [""; 0], "it dials no peers");
    // what is ordered counts beside it, and takes nothing of it back
    let mut ordered = spec();
    ordered.gateways.egress.never_dial =
        ["10.96.0.0/12", "10.244.0.0/16"].map(|net| net.parse().unwrap()).into();
    cluster.order = InstallOrder::Installed(ordered);
    cluster.settle();
    assert_eq!(args(&mut cluster, EGRESS), ["10.96.0.0/12,10.244.0.0/16,fd00:1::/64"]);
    cluster.order = InstallOrder::Installed(spec());
    cluster.settle();
    assert_eq!(args(&mut cluster, EGRESS), ["10.244.0.0/16,fd00:1::/64"]);
}

#[test]
fn images_come_from_where_they_may_alone() {
    const RUNS: [&str; 2] = ["r.example.com/t/tombolo-gateway:1.0.0", "r.example.com/t/tombolo-agent:1.0.0"];
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.agent = Some(agent(RUNS[1]));
    // what runs says so, where nobody stated anything
    cluster.found.registries = Registries::default().with_running(RUNS);
    cluster.settle();
    let before = cluster.plan();
    let evil = InstallSpec {
        revision: 2,
        registry: "evil.example.org/t".to_owned(),
        version: "2".to_owned(),
        ..spec()
    };
    cluster.order = InstallOrder::Installed(evil.clone());
    let plan = cluster.plan();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert_eq!(plan.addresses, before.addresses, "peers go on as they did");
    let (state, message) = cluster.steps()["agent"].clone();
    assert_eq!(state, StepState::Failed);
    assert!(message.contains("--allowed-registry=evil.example.org/t"), "{message}");
    assert_eq!(plan.problems, [("installation, images".to_owned(), message)]);
    let tried = cluster.tried(Trial { number: 9, spec: evil });
    assert!(tried.plan.is_empty() && tried.problems[0].contains("evil.example.org"), "{tried:?}");
    // what others change is mended, with the images that stand, and the cluster's DNS is kept
    cluster.object(Kind::Deployment, EGRESS)["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("evil");
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"]);
    let egress = cluster.object(Kind::Deployment, EGRESS);
    assert_eq!(egress["spec"]["template"]["spec"]["containers"][0]["image"], RUNS[0]);
    cluster.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(COREFILE);
    assert_eq!(cluster.step(), ["corefile"]);
    cluster.found.registries = Registries::stated(["evil.example.org/t".to_owned()]).with_running(RUNS);
    assert!(!cluster.plan().actions.is_empty(), "whoever applied the manifest may say so");
    // where nothing runs, nothing is made
    cluster.found.registries = Registries::stated(["r.example.com/t".to_owned()]).with_running([]);
    assert!(cluster.plan().actions.is_empty());
}

#[test]
fn what_is_taken_out_leaves_nothing() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    let before = cluster.found.dns.clone();
    cluster.settle();
    cluster.order = InstallOrder::Removed { revision: 2 };
    assert_eq!(cluster.step(), ["corefile", "restart"], "names go before what they lead to");
    assert_eq!(cluster.steps()["gateways"].0, StepState::Working);
    cluster.found.serving = 2;
    let mut gone = cluster.step();
    gone.sort();
    let budgets = ["delete PodDisruptionBudget tombolo-egress", "delete PodDisruptionBudget tombolo-ingress"];
    assert_eq!(gone[..2], ["delete Deployment tombolo-egress", "delete Deployment tombolo-ingress"]);
    assert_eq!(gone[2..], budgets);
    assert_eq!(cluster.step(), [""; 0], "the way to those who carry calls stays");
    let (state, message) = cluster.steps()["gateways"].clone();
    assert!(state == StepState::Working && message.contains("calls at 2 ingress gateways"), "{message}");
    assert!(cluster.plan().ends_calls);
    cluster.found.serving = 0;
    assert_eq!(cluster.step(), ["delete Service tombolo-ingress"]);
    assert_eq!(cluster.step(), [""; 0]);
    assert!(!cluster.plan().ends_calls);
    assert!(cluster.found.objects.is_empty() && cluster.plan().addresses.is_empty());
    assert_eq!(cluster.found.dns.config, before.config, "byte for byte");
    for (left, state) in
        [(None, StepState::Waiting), (Some(2), StepState::Working), (Some(0), StepState::Done)]
    {
        cluster.found.imports = left;
        assert_eq!(cluster.steps()["imports"].0, state, "{left:?}");
    }
    assert!(cluster.steps().values().all(|(state, _)| *state == StepState::Done), "{:?}", cluster.steps());
}

#[test]
fn a_trial_stands_beside_the_order() {
    let tried =
        |version: &str| Trial { number: 4, spec: InstallSpec { version: version.to_owned(), ..spec() } };
    // where nothing was ever ordered
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.agent = Some(agent("r.example.com/t/tombolo-agent:0.9.0"));
    let mut resources = snapshot(cluster.order.clone());
    resources.retain(|key, _| key.kind() != "install");
    resources.extend([ClusterResource::Trial(tried("1.0.0").into())].map(|one| (one.key(), one)));
    let namespace = NamespaceName::parse("tombolo-system").unwrap();
    let asked = Asked::of(&resources).unwrap();
    assert_eq!(plan(&asked, &namespace, &cluster.found), Plan::default(), "nothing is done or told for it");
    let said = cluster.tried(tried("1.0.0"));
    assert_eq!(said.number, 4);
    for line in [
        "change Deployment tombolo-agent: image r.example.com/t/tombolo-agent:1.0.0",
        "make Deployment tombolo-egress",
        "change ConfigMap kube-system/coredns: Corefile",
    ] {
        assert!(said.plan.iter().any(|one| one == line), "{line}: {said:?}");
    }
    for line in ["+ acme.example.com:53 {", "+     forward . 10.96.0.53"] {
        assert!(said.corefile.iter().any(|one| one == line), "{line}: {said:?}");
    }
    assert!(!said.corefile.iter().any(|line| line.starts_with("- ")), "nothing of what is there goes");

    // beside an order: it stays in force, with its addresses and steps
    cluster.settle();
    cluster.settle();
    let before = cluster.plan();
    let said = cluster.tried(tried("2"));
    let images =
        ["Deployment tombolo-egress", "Deployment tombolo-ingress"].map(|one| format!("change {one}"));
    assert_eq!(said.plan[1..], images, "the agent is no reason to keep quiet about what follows it");
    assert!(said.corefile.is_empty() && said.problems.is_empty(), "{said:?}");
    assert!(before.actions.is_empty() && !before.addresses.is_empty());
    assert_eq!(cluster.plan(), before);

    // what can't be done is said
    cluster.found.dns.config.as_mut().unwrap()["metadata"]["labels"]["addonmanager.kubernetes.io/mode"] =
        json!("Reconcile");
    let said = cluster.tried(tried("1.0.0"));
    assert!(said.problems.iter().any(|one| one.contains("add-on manager")), "{said:?}");
}

#[test]
fn a_corefile_that_somebody_keeps_is_left_alone() {
    for kept in [
        json!({ "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" } }),
        json!({ "annotations": { "objectset.rio.cattle.io/id": "" } }),
    ] {
        let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
        cluster.found.dns.config.as_mut().unwrap()["metadata"] = kept;
        cluster.settle();
        assert_eq!(cluster.found.dns.config.as_ref().unwrap()["data"]["Corefile"], COREFILE);
        let (state, message) = cluster.steps()["dns"].clone();
        assert_eq!(state, StepState::Failed, "{message}");
        assert!(
            message.contains("would take a change back") && message.contains("coredns-custom"),
            "{message}"
        );
        assert!(message.contains("acme.example.com") && message.contains("10.96.0.53"), "{message}");
    }
}

#[test]
fn an_agent_is_upgraded_before_its_gateways() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.agent = Some(agent("r.example.com/t/tombolo-agent:1.0.0"));
    cluster.settle();
    cluster.order = InstallOrder::Installed(InstallSpec { version: "1.1.0".to_owned(), ..spec() });
    assert_eq!(cluster.step(), ["agent r.example.com/t/tombolo-agent:1.1.0"]);
    cluster.found.agent.as_mut().unwrap()["status"] =
        json!({ "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2 });
    assert_eq!(cluster.step(), [""; 0], "not while an older agent is there");
    assert_eq!(cluster.steps()["agent"].0, StepState::Working);
    assert_eq!(cluster.steps()["egress"].0, StepState::Working);
    cluster.found.agent = Some(agent("r.example.com/t/tombolo-agent:1.1.0"));
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress", "apply Deployment tombolo-ingress"]);
    assert!(
        cluster
            .steps()
            .iter()
            .filter(|(step, _)| *step != "peers")
            .all(|(_, (state, _))| *state == StepState::Done)
    );
    assert_eq!(
        cluster.found.agent.unwrap()["metadata"]["name"],
        Value::Null,
        "{AGENT} is a person's to apply"
    );
}

#[test]
fn while_agents_are_missing_all_is_mended_but_for_new_images() {
    let agents = |all: u64, updated: u64, available: u64| {
        let mut agent = agent("r.example.com/t/tombolo-agent:1.0.0");
        agent["status"] =
            json!({ "replicas": all, "updatedReplicas": updated, "availableReplicas": available });
        Some(agent)
    };
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.agent = agents(2, 2, 2);
    cluster.settle();
    // a node is lost, and one of the agents with it
    cluster.found.agent = agents(2, 2, 1);
    cluster.found.objects.remove(&Key::new(Kind::Deployment, INGRESS));
    cluster.found.objects.remove(&Key::new(Kind::Service, INGRESS));
    cluster.object(Kind::Deployment, EGRESS)["spec"]["replicas"] = json!(0);
    assert_eq!(
        cluster.step(),
        [
            "apply Service tombolo-ingress",
            "apply Deployment tombolo-egress",
            "apply Deployment tombolo-ingress"
        ]
    );
    assert_eq!(cluster.step(), [""; 0]);
    assert_eq!(cluster.steps()["agent"].0, StepState::Working, "and it is said");

    // an upgrade hangs: the new agent finds no node
    let ways = [json!({ "type": "load_balancer" })];
    let newer = InstallSpec { version: "1.1.0".to_owned(), gateways: gateways(&ways), ..spec() };
    cluster.order = InstallOrder::Installed(newer);
    assert_eq!(
        cluster.step(),
        ["agent r.example.com/t/tombolo-agent:1.1.0", "apply Service tombolo-ingress"],
        "another way to the ingress gateways needs no new agent"
    );
    let stuck = json!({ "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2 });
    cluster.found.agent.as_mut().unwrap()["status"] = stuck;
    cluster.object(Kind::Deployment, EGRESS)["spec"]["replicas"] = json!(0);
    cluster.found.objects.remove(&Key::new(Kind::PodDisruptionBudget, EGRESS));
    assert_eq!(
        cluster.step(),
        ["scale Deployment tombolo-egress to 2", "apply PodDisruptionBudget tombolo-egress"]
    );
    let egress = cluster.object(Kind::Deployment, EGRESS);
    assert_eq!(
        egress["spec"]["template"]["spec"]["containers"][0]["image"],
        "r.example.com/t/tombolo-gateway:1.0.0"
    );
    cluster.found.objects.remove(&Key::new(Kind::Deployment, EGRESS));
    assert_eq!(cluster.step(), ["apply Deployment tombolo-egress"], "a newer one is better than none");
    // of the newer agents one is not ready, but no older one is left
    cluster.found.agent.as_mut().unwrap()["status"] =
        json!({ "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1 });
    assert_eq!(cluster.step(), ["apply Deployment tombolo-ingress"]);
}

#[test]
fn an_autoscaler_has_the_last_word_on_how_many() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.abilities = Abilities { measures: true, ..Abilities::default() };
    cluster.settle();
    let scalers =
        cluster.found.objects.keys().filter(|key| key.kind == Kind::HorizontalPodAutoscaler).count();
    assert_eq!(scalers, 2);
    cluster.object(Kind::Deployment, INGRESS)["spec"]["replicas"] = json!(3);
    assert_eq!(cluster.step(), [""; 0], "the count is the autoscaler's, and nothing to be written");
    cluster.object(Kind::Deployment, INGRESS)["spec"]["template"]["spec"]["priorityClassName"] = json!("x");
    assert_eq!(cluster.step(), ["apply Deployment tombolo-ingress"]);
    assert_eq!(
        cluster.object(Kind::Deployment, INGRESS)["spec"]["replicas"],
        3,
        "it stays with all else mended"
    );
    cluster.found.abilities.measures = false;
    let done = cluster.step();
    assert!(done.contains(&"delete HorizontalPodAutoscaler tombolo-egress".to_owned()), "{done:?}");
    assert_eq!(cluster.object(Kind::Deployment, INGRESS)["spec"]["replicas"], 2);
}

#[test]
fn a_cache_on_each_node_has_to_be_told_by_hand() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    let said = |cluster: &Cluster| {
        let problems = cluster.plan().problems;
        problems
            .into_iter()
            .filter(|(subject, _)| subject == "the cluster's DNS")
            .map(|(_, why)| why)
            .collect::<Vec<_>>()
    };
    assert_eq!(said(&cluster), [""; 0]);
    assert!(!cluster.steps()["dns"].1.contains("NodeLocal"));
    cluster.found.abilities.caches = true;
    let why = said(&cluster).concat();
    for part in ["NodeLocal DNSCache", "clusterset.local", "forward . 10.96.0.53", "force_tcp"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let (state, message) = cluster.steps().remove("dns").unwrap();
    assert!(state == StepState::Done && message.contains("NodeLocal DNSCache"), "{message}");
    assert_eq!(cluster.step(), [""; 0], "nothing is written for it");
}

#[test]
fn who_applies_the_agent_chooses_the_gateways_class() {
    let node = serde_json::from_value(json!({ "enabled": true })).unwrap();
    let mut cluster = Cluster::new(InstallOrder::Installed(InstallSpec { node, ..spec() }));
    let mut classes = |class: Option<&str>| {
        cluster.found.priority = class.map(Into::into);
        cluster.settle();
        [(Kind::Deployment, EGRESS), (Kind::DaemonSet, "tombolo-node")].map(|(kind, name)| {
            let class = &cluster.object(kind, name)["spec"]["template"]["spec"]["priorityClassName"];
            class.as_str().map(str::to_owned)
        })
    };
    let some = |class: &str| Some(class.to_owned());
    assert_eq!(classes(None), [some("system-cluster-critical"), some("system-node-critical")]);
    assert_eq!(classes(Some("high")), [some("high"), some("high")]);
    assert_eq!(classes(Some("")), [None, None]);
}

#[test]
fn each_way_to_the_ingress_gateways_has_its_addresses() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    let mut ask = |ways: &[Value]| {
        let gateways = gateways(ways);
        cluster.order = InstallOrder::Installed(InstallSpec { gateways, ..spec() });
        cluster.settle();
        let kind = cluster.object(Kind::Service, INGRESS)["spec"]["type"].as_str().unwrap().to_owned();
        let plan = cluster.plan();
        (kind, plan.addresses.into_iter().collect::<Vec<_>>(), cluster.steps()["address"].0)
    };
    let (given, balanced) = (
        json!({ "type": "address", "addresses": ["gw.example.com:443"] }),
        json!({ "type": "load_balancer" }),
    );
    assert_eq!(
        ask(std::slice::from_ref(&given)),
        ("ClusterIP".to_owned(), vec!["gw.example.com:443".to_owned()], StepState::Done)
    );
    assert_eq!(ask(std::slice::from_ref(&balanced)), ("LoadBalancer".to_owned(), vec![], StepState::Waiting));
    let (kind, addresses, state) = ask(&[balanced.clone(), json!({ "type": "node_port" }), given]);
    assert_eq!((kind.as_str(), state), ("LoadBalancer", StepState::Working));
    assert_eq!(addresses, ["192.0.2.1:31443", "gw.example.com:443"]);
    assert_eq!(ask(&[]).2, StepState::Done);

    cluster.order = InstallOrder::Installed(InstallSpec { gateways: gateways(&[balanced]), ..spec() });
    cluster.settle();
    let ways = json!([{ "ip": "203.0.113.5" }, { "hostname": "lb.example.com" }, { "ip": "2001:db8::5" }]);
    cluster.object(Kind::Service, INGRESS)["status"]["loadBalancer"]["ingress"] = ways;
    let addresses: Vec<_> = cluster.plan().addresses.into_iter().collect();
    assert_eq!(addresses, ["203.0.113.5:15443", "[2001:db8::5]:15443", "lb.example.com:15443"]);

    cluster.order = InstallOrder::Installed(InstallSpec {
        gateways: gateways(&[json!({ "type": "host_network" })]),
        ..spec()
    });
    cluster.settle();
    assert_eq!(cluster.object(Kind::Deployment, INGRESS)["spec"]["template"]["spec"]["hostNetwork"], true);
    assert!(cluster.plan().addresses.is_empty());
    cluster.found.hosts.insert("n1".to_owned());
    assert_eq!(cluster.plan().addresses, BTreeSet::from(["192.0.2.1:15443".to_owned()]));
}

#[test]
fn another_dns_is_said_how_to_be_told() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.dns = super::plan::Dns::default();
    cluster.settle();
    let (subject, message) = cluster.plan().problems.remove(0);
    assert_eq!(subject, "the cluster's DNS");
    for part in ["acme.example.com, clusterset.local to 10.96.0.53", "\"acme.example.com\": [\"10.96.0.53\"]"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(cluster.steps()["dns"].0, StepState::Failed);
    // and one that has the domain already
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    let theirs = format!("{COREFILE}acme.example.com {{\n}}\n");
    cluster.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(theirs);
    cluster.settle();
    let problems = cluster.plan().problems;
    assert!(problems.len() == 1 && problems[0].0 == "domain acme.example.com", "{problems:?}");
}

/// Who may choose a domain must not come to answer the cluster's own names.
#[test]
fn the_clusters_own_domain_is_not_forwarded() {
    let theirs = COREFILE.replace("    forward", "    kubernetes example.com in-addr.arpa\n    forward");
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.found.dns.config.as_mut().unwrap()["data"]["Corefile"] = json!(theirs);
    cluster.settle();
    let text = cluster.found.dns.config.as_ref().unwrap()["data"]["Corefile"].as_str().unwrap().to_owned();
    assert!(text.contains("clusterset.local:53 {") && !text.contains("acme.example.com"), "{text}");
    let problems = cluster.plan().problems;
    assert!(problems.len() == 1 && problems[0].0 == "domain acme.example.com", "{problems:?}");
    assert!(
        problems[0].1.contains("overlaps example.com, whose names are the cluster's own"),
        "{problems:?}"
    );
    // nor is anybody told to forward it
    cluster.found.dns.config.as_mut().unwrap()["metadata"] =
        json!({ "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" } });
    let (_, message) = cluster.steps()["dns"].clone();
    assert!(message.contains("clusterset.local") && !message.contains("acme.example.com"), "{message}");
}

#[test]
fn what_failed_is_said_with_its_step() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    cluster.found.failed.insert("dns", "the API server refuses it: no".to_owned());
    assert_eq!(cluster.steps()["dns"], (StepState::Failed, "the API server refuses it: no".to_owned()));
    let stuck = json!([{ "type": "Progressing", "status": "False", "message": "it hangs" }]);
    let status = &mut cluster.object(Kind::Deployment, EGRESS)["status"];
    (status["availableReplicas"], status["conditions"]) = (json!(1), stuck);
    assert_eq!(cluster.steps()["egress"], (StepState::Failed, "it hangs (look at its pods)".to_owned()));
    cluster.order = InstallOrder::Removed { revision: 2 };
    for part in ["egress", "ingress", "node"] {
        cluster.found.failed = [(part, format!("{part}: no"))].into();
        assert_eq!(cluster.steps()["gateways"], (StepState::Failed, format!("{part}: no")));
    }
}

#[test]
fn pods_get_proxies_once_every_agent_serves_what_the_api_server_believes() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    cluster.settle();
    let mut said = |injection: Injection| {
        cluster.found.injection = injection;
        cluster.steps()["injector"].clone()
    };
    assert_eq!(said(told(&[])).0, StepState::Done);
    let (state, message) = said(told(&["tombolo-agent-b"]));
    assert_eq!(state, StepState::Working);
    assert!(
        message.starts_with("1 of 2 agents") && message.contains("tombolo-agent-b: the peer"),
        "{message}"
    );
    assert_eq!(said(Injection::Unknown).0, StepState::Waiting);
    let none = Injection::Told { replicas: 0, silent: BTreeMap::new() };
    assert_eq!(said(none).0, StepState::Working, "nobody is no replica that serves");
    let untold = Injection::Untold("let the agent patch it".to_owned());
    assert_eq!(said(untold), (StepState::Failed, "let the agent patch it".to_owned()));
    let (state, message) = said(Injection::TooOld);
    assert!(state == StepState::Done && message.contains("1.29"), "an older cluster has all else: {message}");
    let (state, message) = said(Injection::Absent);
    assert!(state == StepState::Failed && message.contains("--no-injector"), "{message}");

    let injector = serde_json::from_value(json!({ "enabled": false })).unwrap();
    cluster.order = InstallOrder::Installed(InstallSpec { injector, ..spec() });
    assert!(!cluster.steps().contains_key("injector"), "none is asked for");
}

#[test]
fn without_an_order_nothing_is_asked() {
    let mut resources = snapshot(InstallOrder::Removed { revision: 1 });
    resources.retain(|key, _| key.kind() != "install");
    assert!(Asked::of(&resources).is_none());
}

#[test]
fn nodes_that_nobody_hears_of_are_no_worse_than_none() {
    let mut cluster = Cluster::new(InstallOrder::Installed(spec()));
    let node = |name: &str, ready: bool, n: u8| {
        let condition = json!([{ "type": "Ready", "status": if ready { "True" } else { "Unknown" } }]);
        let addresses = json!([{ "type": "InternalIP", "address": format!("192.0.2.{n}") }]);
        Node::read(&json!({ "metadata": { "name": name }, "status": { "addresses": addresses, "conditions": condition } })).unwrap()
    };
    cluster.found.nodes = BTreeSet::from([node("n1", true, 1), node("n2", false, 2)]);
    cluster.settle();
    assert_eq!(cluster.plan().addresses, BTreeSet::from(["192.0.2.1:31443".to_owned()]));
    cluster.found.nodes = BTreeSet::from([node("n1", false, 1), node("n2", false, 2)]);
    assert_eq!(cluster.plan().addresses.len(), 2);
}
