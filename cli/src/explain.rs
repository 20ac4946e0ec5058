//! `tombolo explain`: walks a request hop by hop with the state of each, and names the first that says no.
//!
//! [`walk`] decides, from what the API reports; nothing else is asked.

mod dns;

use crate::{
    args::{Caller, Destination, ExplainArgs},
    client::Client,
    doctor,
    org::text,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One hop of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Which: name, dns, address, proxy, egress, peer ingress, endpoint.
    pub hop: &'static str,
    /// What it says.
    pub verdict: Verdict,
    /// Its state, for people.
    pub detail: String,
    /// What to do, where it does not say yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What a hop says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would carry the request.
    Yes,
    /// It would not.
    No,
    /// Nobody here can say.
    Unknown,
    /// It comes after one that would not.
    NotReached,
}

/// What is known of the organization.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The global namespaces.
    pub namespaces: Vec<Value>,
    /// The service asked for, if there is one.
    pub service: Option<Value>,
    /// The clusters' states, with their labels, by name.
    pub clusters: BTreeMap<String, Value>,
}

/// Runs it.
///
/// # Errors
/// A hop says no, or the controller can't be asked.
pub async fn run(client: &Client, args: ExplainArgs, out: &Output) -> Result<()> {
    let facts = gather(client, &args).await?;
    let hops = walk(&facts, &args.from, &args.to);
    if out.for_people() {
        out.line(&format!(
            "{}/{}/{} → {}:{}",
            args.from.cluster, args.from.namespace, args.from.account, args.to.name, args.to.port
        ));
        for hop in &hops {
            let (mark, mood) = match hop.verdict {
                Verdict::Yes => ("✓", Mood::Good),
                Verdict::No => ("✗", Mood::Bad),
                Verdict::Unknown => ("?", Mood::Warn),
                Verdict::NotReached => ("·", Mood::Plain),
            };
            out.line(&format!("  {} {:<13} {}", out.paint(mood, mark), hop.hop, hop.detail));
            if let Some(remedy) = &hop.remedy {
                out.line(&format!("                  → {remedy}"));
            }
        }
    } else {
        out.value(&hops)?;
    }
    match hops.iter().find(|hop| hop.verdict == Verdict::No) {
        Some(hop) => Err(CliError::No(format!("{} says no: {}", hop.hop, hop.detail)).into()),
        None => Ok(()),
    }
}

async fn gather(client: &Client, args: &ExplainArgs) -> Result<Facts> {
    let mut facts = Facts {
        namespaces: client.list(&client.in_org("/global-namespaces")?).await?,
        service: client.find(&client.in_org(&format!("/services/{}", args.to.name))?).await?.map(|f| f.body),
        clusters: BTreeMap::new(),
    };
    for cluster in client.list(&client.in_org("/clusters")?).await? {
        let name = text(&cluster, "name");
        let mut status = client.get(&client.in_org(&format!("/clusters/{name}/status"))?).await?.body;
        status["labels"] = cluster["labels"].clone();
        facts.clusters.insert(name, status);
    }
    Ok(facts)
}

type Refusal = (String, String);
/// What a hop says where it does not say yes: its state, and what to do.
enum Not {
    /// It would not carry the request.
    No(String, String),
    /// Nobody here can say.
    Unknown(String, String),
}

impl From<Refusal> for Not {
    fn from((detail, remedy): Refusal) -> Self {
        Self::No(detail, remedy)
    }
}

/// Decides one hop; the egress hop notes the cluster it chose.
type Decide<'a> = Box<dyn FnOnce(&mut Option<String>) -> Result<String, Not> + 'a>;

/// Walks the request. Always gives every hop, in order; at most one says no, and those after it are not reached.
#[must_use]
pub fn walk(facts: &Facts, from: &Caller, to: &Destination) -> Vec<Hop> {
    let mut chosen = None;
    let steps: [(&'static str, Decide<'_>); 7] = [
        ("name", Box::new(|_| name(facts, from, to).map_err(Not::from))),
        ("dns", Box::new(|_| dns::look(facts, from, to))),
        ("address", Box::new(|_| address(facts, to).map_err(Not::from))),
        ("proxy", Box::new(|_| proxy(facts, from).map_err(Not::from))),
        ("egress", Box::new(|chosen| egress(facts, from, to, chosen).map_err(Not::from))),
        ("peer ingress", Box::new(|chosen| ingress(facts, from, chosen.as_deref()).map_err(Not::from))),
        ("endpoint", Box::new(|chosen| endpoint(facts, to, chosen.as_deref()).map_err(Not::from))),
    ];
    let mut refused = false;
    let mut hops = Vec::new();
    for (hop, decide) in steps {
        if refused {
            hops.push(Hop { hop, verdict: Verdict::NotReached, detail: "not reached".into(), remedy: None });
            continue;
        }
        hops.push(match decide(&mut chosen) {
            Ok(detail) => Hop { hop, verdict: Verdict::Yes, detail, remedy: None },
            Err(Not::Unknown(detail, remedy)) => {
                Hop { hop, verdict: Verdict::Unknown, detail, remedy: Some(remedy) }
            }
            Err(Not::No(detail, remedy)) => {
                refused = true;
                Hop { hop, verdict: Verdict::No, detail, remedy: Some(remedy) }
            }
        });
    }
    hops
}

fn name(facts: &Facts, from: &Caller, to: &Destination) -> Result<String, Refusal> {
    if let Some(service) = &facts.service {
        let gns = text(service, "gns");
        member(facts, from, &gns)?;
        return Ok(format!("{} of global namespace {gns}", to.name));
    }
    let gns = facts.namespaces.iter().find(|g| {
        to.name
            .as_str()
            .strip_suffix(g["domain"].as_str().unwrap_or("\0"))
            .is_some_and(|rest| rest.ends_with('.'))
    });
    Err(match gns {
        Some(gns) => (
            format!("global namespace {} has no service of this name", text(gns, "name")),
            format!(
                "is the service in a namespace that a rule names? tombolo gns show {}; tombolo service list",
                text(gns, "name")
            ),
        ),
        None => (
            "no global namespace has this domain".into(),
            "tombolo gns list shows the domains; tombolo gns create makes one".into(),
        ),
    })
}

/// A cluster that no rule of the global namespace chooses answers none of its names.
fn member(facts: &Facts, from: &Caller, gns: &str) -> Result<(), Refusal> {
    let Some(status) = facts.clusters.get(from.cluster.as_str()) else { return Ok(()) };
    let chooses = |selector: &Value| match selector["name"].as_str() {
        Some(name) => name == from.cluster.as_str(),
        None => selector["labels"]
            .as_object()
            .is_some_and(|labels| labels.iter().all(|(key, value)| status["labels"].get(key) == Some(value))),
    };
    let rules = facts.namespaces.iter().find(|found| found["name"] == gns).map(|found| &found["rules"]);
    let Some(rules) = rules.and_then(Value::as_array) else { return Ok(()) };
    if rules.iter().any(|rule| chooses(&rule["cluster"])) {
        return Ok(());
    }
    Err((
        format!(
            "no rule of global namespace {gns} chooses {}, so its names are not answered there",
            from.cluster
        ),
        format!("tombolo gns show {gns}; add a rule for {}, or the labels that one asks for", from.cluster),
    ))
}

fn address(facts: &Facts, to: &Destination) -> Result<String, Refusal> {
    let service = facts.service.as_ref().unwrap_or(&Value::Null);
    let ports: Vec<u64> =
        service["ports"].as_array().into_iter().flatten().filter_map(|p| p["port"].as_u64()).collect();
    if !ports.contains(&u64::from(to.port)) {
        let known = ports.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err((format!("{} has no port {}", to.name, to.port), format!("its ports: {known}")));
    }
    Ok(format!("{} port {}", text(&service["vip"], "v4"), to.port))
}

fn gateways<'a>(status: &'a Value, role: &'a str) -> impl Iterator<Item = &'a Value> {
    status["gateways"].as_array().into_iter().flatten().filter(move |g| g["role"] == role)
}

/// The caller's cluster.
fn joined<'a>(facts: &'a Facts, from: &Caller) -> Result<&'a Value, Refusal> {
    let cluster = from.cluster.as_str();
    let status = facts.clusters.get(cluster).ok_or_else(|| {
        (
            format!("there is no cluster {cluster}"),
            "tombolo cluster list shows them; tombolo cluster create makes one".into(),
        )
    })?;
    if status["state"] == "pending" {
        return Err((
            format!("{cluster} has not joined"),
            format!("tombolo cluster token {cluster} gives a token to join with"),
        ));
    }
    Ok(status)
}

/// The gateways of this role in the caller's cluster; none where there are none.
fn local(status: &Value, from: &Caller, role: &str) -> Option<String> {
    let found: Vec<&Value> = gateways(status, role).collect();
    let first = found.first()?;
    let behind = text(status, "current_generation");
    let at = text(&first["status"], "generation");
    let away = if status["state"] == "connected" {
        ""
    } else {
        "; the agent is not connected, the last known state is in force"
    };
    Some(format!(
        "{} of {role} in {}, {} at agent generation {at} (controller: {behind}){away}",
        found.len(),
        from.cluster,
        text(first, "software")
    ))
}

/// What stands beside or below the caller. In a cluster that something was installed in, there need not be any: pods in capture mode
/// `gateway` have none.
fn proxy(facts: &Facts, from: &Caller) -> Result<String, Refusal> {
    let status = joined(facts, from)?;
    if status["install"].is_object() {
        // in a pod, a proxy is called by its namespace and its pod
        let of_namespace = format!("{}.", from.namespace);
        let here = |gateway: &&Value| text(gateway, "instance").starts_with(&of_namespace);
        let sidecars = gateways(status, "sidecar").filter(here).count();
        if sidecars > 0 {
            return Ok(format!("{sidecars} of sidecar in namespace {} of {}", from.namespace, from.cluster));
        }
        return Ok(match local(status, from, "node") {
            Some(found) => {
                format!("{found}; pods of namespaces in another mode go straight to an egress gateway")
            }
            None => "none: pods go straight to an egress gateway (capture mode gateway)".into(),
        });
    }
    if let Some(found) = ["sidecar", "node"].iter().find_map(|role| local(status, from, role)) {
        return Ok(found);
    }
    Err((
        format!("{} runs no sidecar", from.cluster),
        doctor::missing(from.cluster.as_str(), status, "sidecar", "--capture explicit"),
    ))
}

fn targets(service: Option<&Value>) -> Vec<&Value> {
    service.and_then(|s| s["targets"].as_array()).into_iter().flatten().collect()
}

/// Whether an egress gateway of the caller's cluster reaches the target cluster, and what it says where it does not.
fn reach(status: &Value, target: &str) -> Result<String, String> {
    let mut why = format!("no egress gateway knows an ingress gateway of {target}");
    for gateway in gateways(status, "egress") {
        for (address, state) in gateway["status"]["peers"][target].as_object().into_iter().flatten() {
            if matches!(state["health"].as_str(), Some("healthy" | "slow_start")) {
                let rtt =
                    state["rtt_us"].as_u64().map_or(String::new(), |us| format!(", round trip {us} µs"));
                return Ok(format!("{address}{rtt}"));
            }
            why = format!(
                "{address} is {}{}",
                text(state, "health"),
                state["error"].as_str().map_or(String::new(), |e| format!(": {e}"))
            );
        }
    }
    Err(why)
}

fn egress(
    facts: &Facts,
    from: &Caller,
    to: &Destination,
    chosen: &mut Option<String>,
) -> Result<String, Refusal> {
    let status = joined(facts, from)?;
    let here = local(status, from, "egress").ok_or_else(|| {
        let cluster = from.cluster.as_str();
        (
            format!("{cluster} runs no egress"),
            doctor::missing(cluster, status, "egress", "--tunnel HOST:PORT"),
        )
    })?;
    let mut ready: Vec<&Value> = targets(facts.service.as_ref())
        .into_iter()
        .filter(|t| t["ready"].as_u64().unwrap_or(0) > 0)
        .collect();
    // The own cluster is the nearest; among the others the list is in the order of the API.
    ready.sort_by_key(|t| t["cluster"] != from.cluster.as_str());
    if ready.is_empty() {
        let all =
            targets(facts.service.as_ref()).iter().map(|t| text(t, "cluster")).collect::<Vec<_>>().join(", ");
        return Err((
            format!("no cluster has a ready endpoint of {}", to.name),
            if all.is_empty() {
                "run the service somewhere".into()
            } else {
                format!("look at the service in {all}: is it running, does it pass its health check?")
            },
        ));
    }
    let mut why = String::new();
    for target in ready {
        let cluster = text(target, "cluster");
        if cluster == from.cluster.as_str() {
            *chosen = Some(cluster.clone());
            return Ok(format!("{here}; serves it in its own cluster {cluster}"));
        }
        match reach(status, &cluster) {
            Ok(via) => {
                *chosen = Some(cluster.clone());
                return Ok(format!("{here}; chooses {cluster} through {via}"));
            }
            Err(reason) => why = reason,
        }
    }
    Err((
        why,
        "is its ingress gateway running, and is the address that it publishes reachable from here? tombolo doctor"
            .into(),
    ))
}

fn ingress(facts: &Facts, from: &Caller, chosen: Option<&str>) -> Result<String, Refusal> {
    let cluster = chosen.unwrap_or_default();
    if cluster == from.cluster.as_str() {
        return Ok("not needed: the endpoint is in the caller's cluster".into());
    }
    let status = facts.clusters.get(cluster).unwrap_or(&Value::Null);
    if status["state"] == "revoked" {
        return Err((
            format!("{cluster} was removed"),
            "its certificates are refused; join it again under a new token".into(),
        ));
    }
    let found = gateways(status, "ingress").count();
    if found == 0 {
        return Err((
            format!("{cluster} runs no ingress gateway"),
            doctor::missing(cluster, status, "ingress", "--advertise HOST:PORT"),
        ));
    }
    Ok(format!("{found} in {cluster}"))
}

fn endpoint(facts: &Facts, to: &Destination, chosen: Option<&str>) -> Result<String, Refusal> {
    let target = targets(facts.service.as_ref()).into_iter().find(|t| t["cluster"].as_str() == chosen);
    let target = target.ok_or_else(|| ("no target".to_owned(), "tombolo service show".to_owned()))?;
    let tls = match target["end_to_end"].as_str() {
        Some("all") => "mutual TLS end to end",
        Some("some") => "mutual TLS end to end where the endpoint has a sidecar",
        _ => "clear inside its cluster (no sidecar there)",
    };
    let services = target["services"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    Ok(format!("{services} port {}: {} ready; {tls}", to.port, text(target, "ready")))
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
