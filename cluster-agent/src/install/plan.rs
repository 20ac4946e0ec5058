//! What there should be, and what is to be written for it. Pure: an order, a snapshot and what was read go in.

use super::{
    address::{Addresses, Node, addresses},
    cache,
    corefile::{self, CorefileError},
    object::{Key, Kind, Objects, is_as, sum},
    objects::{self, AGENT, Abilities, Context, INGRESS, image, wanted},
    steps,
};
use crate::{
    inject::Injection,
    registries::{NotAllowed, Registries, Settled},
};
use ipnet::IpNet;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tombolo_model::{
    ClusterName, NamespaceName,
    corefile::keeper,
    install::{InstallOrder, InstallSpec, InstallStep, Trial},
    snapshot::{ClusterResource, ResourceKey, Resources, SelfSpec, TrustBundleSpec},
};

/// The annotation on the pods of the cluster's DNS by which they are replaced.
pub(super) const RESTARTED_FOR: &str = "tombolo.io/corefile";
/// What a mark begins with: the sum of our block in the Corefile follows. What others change in the rest replaces no pods: with a mistake
/// in it, new ones would not start, where old ones keep to what they read before.
const MARK: &str = "block-";
/// The container of a gateway's pod.
const GATEWAY: &str = "gateway";
/// The names of the Multi-Cluster Services API.
const CLUSTERSET: &str = "clusterset.local";

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Our objects.
    pub(super) objects: Objects,
    /// Kinds of them that may not be read: nothing of these is written.
    pub(super) unread: BTreeSet<Kind>,
    /// The agent's own Deployment, where it runs in one.
    pub(super) agent: Option<Value>,
    /// The cluster's DNS.
    pub(super) dns: Dns,
    /// Where the agents answer DNS.
    pub(super) answers_at: Option<IpAddr>,
    pub(super) nodes: BTreeSet<Node>,
    /// The nodes in whose network ready ingress gateways run.
    pub(super) hosts: BTreeSet<String>,
    pub(super) abilities: Abilities,
    /// The installation's virtual addresses, as the agent was told.
    pub(super) vips: Arc<[IpNet]>,
    /// The class of the gateways' pods, as the agent was told.
    pub(super) priority: Option<Arc<str>>,
    /// Where egress gateways dial nobody, as the agent was told.
    pub(super) never_dial: Arc<[IpNet]>,
    /// What failed when it was tried last, by step.
    pub(super) failed: BTreeMap<&'static str, String>,
    /// The peers' gateways that an egress gateway of this cluster got through to, by cluster.
    pub(super) reached: BTreeMap<ClusterName, BTreeSet<String>>,
    /// Where images may come from.
    pub(super) registries: Registries,
    /// How pods get proxies.
    pub(super) injection: Injection,
    /// The ingress gateways that may carry calls still, when all of it is to go.
    pub(super) serving: usize,
    /// How much of ours there is of the Multi-Cluster Services API when all of it is to go; none where that is not known.
    pub(super) imports: Option<usize>,
}

/// `CoreDNS` as the cluster has it, where it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Dns {
    pub(super) config: Option<Value>,
    pub(super) deployment: Option<Value>,
}

/// Something to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Apply(Key, Box<Value>),
    Delete(Key),
    /// How many pods there are, and nothing else.
    Scale(Key, u64),
    /// The whole Corefile, in place of the version that was read.
    Corefile {
        text: String,
        version: String,
    },
    /// The mark on the pods of the cluster's DNS, once the Corefile is written; none takes it away.
    Restart {
        mark: Option<String>,
    },
    /// The image of the agent itself.
    Agent {
        image: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// With the step that each belongs to.
    pub(super) actions: Vec<(&'static str, Action)>,
    pub(super) steps: Vec<InstallStep>,
    /// Where peers reach the ingress gateways.
    pub(super) addresses: BTreeSet<String>,
    /// Where they did, they do until their calls have ended.
    pub(super) ends_calls: bool,
    /// What is wrong, and whose it is.
    pub(super) problems: Vec<(String, String)>,
}

/// What the snapshot says of an installation; none where it says nothing.
pub(super) struct Asked<'a> {
    pub(super) order: Option<&'a InstallOrder>,
    pub(super) trial: Option<&'a Trial>,
    pub(super) itself: &'a SelfSpec,
    bundle: &'a TrustBundleSpec,
    domains: BTreeSet<String>,
    pub(super) peers: BTreeSet<ClusterName>,
}

impl<'a> Asked<'a> {
    /// Whether everything is to go.
    pub(super) const fn removes(&self) -> bool {
        matches!(self.order, Some(InstallOrder::Removed { .. }))
    }

    pub(super) fn of(resources: &'a Resources<ClusterResource>) -> Option<Self> {
        let get = |kind: &str| resources.get(&ResourceKey::new(kind, ""));
        let (order, trial) = (super::order(resources), super::trial(resources));
        if order.is_none() && trial.is_none() {
            return None;
        }
        let Some(ClusterResource::Itself(itself)) = get("self") else { return None };
        let Some(ClusterResource::Bundle(bundle)) = get("bundle") else { return None };
        let (mut domains, mut peers) = (BTreeSet::from([CLUSTERSET.to_owned()]), BTreeSet::new());
        for resource in resources.values() {
            match resource {
                ClusterResource::Domain(domain) => drop(domains.insert(domain.domain.to_string())),
                ClusterResource::Peer(peer) => drop(peers.insert(peer.cluster.clone())),
                _ => {}
            }
        }
        Some(Self { order, trial, itself, bundle, domains, peers })
    }
}

/// Decides what the order in force asks for. Nothing where nobody ordered anything.
pub(super) fn plan(asked: &Asked<'_>, namespace: &NamespaceName, found: &Found) -> Plan {
    match asked.order {
        None => Plan::default(),
        Some(InstallOrder::Removed { .. }) => removal(found),
        Some(InstallOrder::Installed(spec)) => installation(asked, spec, namespace, found, Pace::AgentFirst),
    }
}

/// Whether gateways wait for a new agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// An older agent may not know what a newer gateway asks: pods whose image would be another one stay as they are for as
    /// long as there is an older agent. All else is made and mended at once.
    AgentFirst,
    /// All of it at once, to be shown.
    AtOnce,
}

pub(super) fn installation(
    asked: &Asked<'_>,
    spec: &InstallSpec,
    namespace: &NamespaceName,
    found: &Found,
    pace: Pace,
) -> Plan {
    let mut plan = Plan::default();
    let settled = found.registries.settle(spec);
    let (spec, refused) = match &settled {
        Settled::Ordered(spec) => (*spec, None),
        Settled::Standing(standing, why) => (&**standing, Some(why)),
        Settled::Nothing(why) => {
            plan.refuse(why);
            return plan;
        }
        // nothing is planned before it was read
        Settled::Unknown => return plan,
    };
    let wanted_image = image(spec, AGENT);
    let is_wanted = |agent: &Value| image_of(agent, "agent") == Some(&wanted_image);
    let agent_is_current = refused.is_some() || found.agent.as_ref().is_none_or(is_wanted);
    if !agent_is_current {
        plan.actions.push(("agent", Action::Agent { image: wanted_image }));
    }
    plan.steps.extend(found.agent.as_ref().map(|agent| steps::agent(agent, agent_is_current, found)));
    let has_older = |agent: &Value| !agent_is_current || steps::has_older_pods(agent);
    let waits = pace == Pace::AgentFirst && found.agent.as_ref().is_some_and(has_older);

    let replicas = |name: &'static str| {
        let deployment = found.objects.get(&Key::new(Kind::Deployment, name))?;
        Some((name, u32::try_from(deployment["spec"]["replicas"].as_u64()?).ok()?))
    };
    let wanted = wanted(&Context {
        spec,
        namespace,
        cluster: &asked.itself.cluster,
        trust_domain: &asked.itself.trust_domain,
        roots: asked.bundle.roots.join("\n"),
        abilities: found.abilities,
        vips: &found.vips,
        priority: found.priority.as_deref(),
        never_dial: &found.never_dial,
        replicas: [objects::EGRESS, INGRESS].into_iter().filter_map(replicas).collect(),
    });
    for (key, value) in wanted.iter().filter(|(key, _)| !found.unread.contains(&key.kind)) {
        let there = found.objects.get(key);
        let action = match there {
            Some(there) if is_as(value, there) => None,
            Some(there) if waits && changes_image(value, there) => rescaled(key, value, there),
            _ => Some(Action::Apply(key.clone(), Box::new(of_version(key, value, there)))),
        };
        plan.actions.extend(action.map(|action| (step_of(key), action)));
    }
    let over = found.objects.keys().filter(|key| !wanted.contains_key(key));
    plan.actions.extend(over.map(|key| (step_of(key), Action::Delete(key.clone()))));
    for name in [objects::EGRESS, INGRESS] {
        plan.steps.push(steps::gateways(name, &wanted, found));
    }
    if spec.node.enabled {
        plan.steps.push(steps::nodes(&wanted, found));
    }
    let ways = &spec.gateways.ingress.exposure;
    let service = found.objects.get(&Key::new(Kind::Service, INGRESS));
    let Addresses { found: at, waiting } = addresses(ways, service, &found.nodes, &found.hosts);
    plan.steps.push(steps::address(&at, &waiting, ways.is_empty()));
    plan.addresses = at;
    dns(&mut plan, if spec.dns.corefile { &asked.domains } else { EMPTY }, spec.dns.corefile, found);
    if spec.injector.enabled {
        plan.steps.push(steps::injector(&found.injection));
    }
    plan.steps.push(steps::peers(&asked.peers, &found.reached));
    if let Some(why) = refused {
        plan.refuse(why);
    }
    plan
}

static EMPTY: &BTreeSet<String> = &BTreeSet::new();

impl Plan {
    /// Says in place of the agent's step that the images stay as they are.
    fn refuse(&mut self, why: &NotAllowed) {
        self.steps.retain(|step| step.step != "agent");
        self.steps.insert(0, steps::refused(why.to_string()));
        self.problems.insert(0, ("installation, images".to_owned(), why.to_string()));
    }
}

/// To be applied over what was read. Where that is a Deployment, over that version alone: how many there are is an autoscaler's,
/// who may have been faster.
fn of_version(key: &Key, value: &Value, there: Option<&Value>) -> Value {
    let mut value = value.clone();
    if let Some(version @ Value::String(_)) = there.map(|there| &there["metadata"]["resourceVersion"])
        && key.kind == Kind::Deployment
    {
        value["metadata"]["resourceVersion"] = version.clone();
    }
    value
}

/// Whether the gateways' image would be another one.
fn changes_image(value: &Value, there: &Value) -> bool {
    image_of(value, GATEWAY) != image_of(there, GATEWAY)
}

/// What is mended of pods that stay as they are: how many there are.
fn rescaled(key: &Key, value: &Value, there: &Value) -> Option<Action> {
    let (count, now) = (value["spec"]["replicas"].as_u64()?, there["spec"]["replicas"].as_u64());
    (Some(count) != now).then(|| Action::Scale(key.clone(), count))
}

fn removal(found: &Found) -> Plan {
    let mut plan = Plan { ends_calls: found.serving > 0, ..Plan::default() };
    dns(&mut plan, EMPTY, false, found);
    // calls that are under way come by the Service, which goes when they have ended
    let leads = found.serving > 0 || found.objects.keys().any(|key| key.kind == Kind::Deployment);
    let goes = |key: &&Key| key.kind != Kind::Service || !leads;
    // names go before what they lead to
    if plan.actions.is_empty() {
        let gone = found.objects.keys().filter(goes);
        plan.actions.extend(gone.map(|key| (step_of(key), Action::Delete(key.clone()))));
    }
    plan.steps.push(steps::removed(&found.objects, found.serving, &found.failed));
    // another part of the agent takes these out
    plan.steps.push(steps::imports(found.imports));
    plan
}

fn step_of(key: &Key) -> &'static str {
    match key.name.as_str() {
        INGRESS => "ingress",
        objects::NODE => "node",
        _ => "egress",
    }
}

/// The image of a container of a Deployment.
pub(super) fn image_of<'a>(deployment: &'a Value, container: &str) -> Option<&'a str> {
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array()?;
    containers.iter().find(|one| one["name"] == container)?["image"].as_str()
}

/// The cluster's own DNS: these domains forwarded to the agents.
fn dns(plan: &mut Plan, domains: &BTreeSet<String>, asked: bool, found: &Found) {
    let text = found.dns.config.as_ref().and_then(|config| config["data"]["Corefile"].as_str());
    let (Some(config), Some(text)) = (&found.dns.config, text) else {
        if asked {
            let message = by_hand(domains, found.answers_at);
            plan.problems.push(("the cluster's DNS".to_owned(), message.clone()));
            plan.steps.push(steps::dns_by_hand(message));
        }
        return;
    };
    let own = corefile::own(text, domains);
    let domains = &domains.iter().filter(|domain| !own.contains_key(*domain)).cloned().collect();
    plan.problems.extend(own.into_iter().map(|(domain, zone)| {
        let message = format!("overlaps {zone}, whose names are the cluster's own: it is not forwarded here, and nobody in this cluster \
                               resolves its names. Choose another domain for the global namespace");
        (format!("domain {domain}"), message)
    }));
    if let (true, Some(keeper)) = (asked, keeper(config)) {
        let message = format!(
            "the ConfigMap kube-system/coredns is left as it is: {keeper} keeps it, and would take a change back. {}",
            by_hand(domains, found.answers_at)
        );
        plan.problems.push(("the cluster's DNS".to_owned(), message.clone()));
        plan.steps.push(steps::dns_by_hand(message));
        return;
    }
    let merged = match (asked, found.answers_at) {
        (false, _) => corefile::without(text).map(|text| corefile::Merged { text, taken: BTreeSet::new() }),
        (true, Some(to)) => corefile::with(text, domains, to),
        (true, None) => {
            plan.steps.push(steps::dns_waits());
            return;
        }
    };
    let merged = match merged {
        Ok(merged) => merged,
        Err(error) => return odd_corefile(plan, &error, domains, found),
    };
    for domain in &merged.taken {
        let message = format!(
            "the cluster's Corefile has a server block for it already, which is left as it is; let it forward to {}, or take \
             it out",
            found.answers_at.map_or_else(|| "the Service tombolo-dns".to_owned(), |ip| ip.to_string())
        );
        plan.problems.push((format!("domain {domain}"), message));
    }
    let differs = merged.text != text;
    if differs {
        let version = config["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        plan.actions.push(("dns", Action::Corefile { text: merged.text.clone(), version }));
    }
    // the pods read the file once a minute or two: they are replaced, so that our block is in force now
    let block = corefile::block(&merged.text);
    let mark = block.map(|block| format!("{MARK}{}", sum(block)));
    let deployment = found.dns.deployment.as_ref();
    let marked =
        deployment.and_then(|d| d["spec"]["template"]["metadata"]["annotations"][RESTARTED_FOR].as_str());
    // An older agent marked with the sum of the whole file, which says nothing of our block any more once somebody changed the rest. Such a mark
    // stands for as long as the block does. A replacement that failed is done again; of one that was lost with its agent, CoreDNS' `reload` makes up.
    let stands = block.is_some()
        && corefile::block(text) == block
        && marked.is_some_and(|marked| !marked.starts_with(MARK))
        && !found.failed.contains_key("dns");
    if deployment.is_some() && marked != mark.as_deref() && !stands {
        plan.actions.push(("dns", Action::Restart { mark }));
    }
    let domains = domains.difference(&merged.taken).cloned().collect();
    if let (true, true, Some(to)) = (asked, found.abilities.caches, found.answers_at) {
        plan.problems.push(("the cluster's DNS".to_owned(), cache::by_hand(&domains, to)));
    }
    let pending = plan.actions.iter().any(|(step, _)| *step == "dns");
    plan.steps.push(steps::dns(&domains, asked, pending, found));
}

fn odd_corefile(plan: &mut Plan, error: &CorefileError, domains: &BTreeSet<String>, found: &Found) {
    let message = format!(
        "the Corefile in the ConfigMap kube-system/coredns is left as it is: {error}. {}",
        by_hand(domains, found.answers_at)
    );
    plan.problems.push(("the cluster's DNS".to_owned(), message.clone()));
    plan.steps.push(steps::dns_by_hand(message));
}

/// What a person has to add where we can't.
fn by_hand(domains: &BTreeSet<String>, to: Option<IpAddr>) -> String {
    let to = to.map_or_else(
        || "the ClusterIP of the Service tombolo-system/tombolo-dns".to_owned(),
        |ip| ip.to_string(),
    );
    let list = domains.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let stubs =
        domains.iter().map(|domain| format!("\"{domain}\": [\"{to}\"]")).collect::<Vec<_>>().join(", ");
    format!(
        "forward {list} to {to} yourself: with kube-dns, put stubDomains: {{{stubs}}} into the ConfigMap kube-system/kube-dns; with \
         AKS and k3s, a server block for each domain with `forward . {to}` into the ConfigMap kube-system/coredns-custom (a key that \
         ends in .server); with OpenShift, `servers` of the DNS operator's object `default`; with NodeLocal DNSCache, a server block \
         into its Corefile"
    )
}
