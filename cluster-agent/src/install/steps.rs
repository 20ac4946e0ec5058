//! How far an installation is, in steps for people. Pure.

use super::{
    object::{Key, Kind, Objects, is_as},
    objects::{EGRESS, NODE},
    plan::Found,
};
use crate::inject::{Injection, SIDECARS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName,
    install::{InstallStep, StepState},
};

fn step(step: &str, state: StepState, message: impl Into<String>) -> InstallStep {
    InstallStep { step: step.to_owned(), state, message: message.into() }
}

/// Whether pods of before a change are there still, or it is not known yet whether there are.
pub(super) fn has_older_pods(deployment: &Value) -> bool {
    let number = |at: &Value| at.as_u64().unwrap_or(0);
    let status = &deployment["status"];
    let seen = number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"]);
    !seen || number(&status["updatedReplicas"]) < number(&status["replicas"])
}

/// How a Deployment rolls out.
fn rollout(deployment: &Value) -> (StepState, String) {
    let number = |at: &Value| at.as_u64().unwrap_or(0);
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let (updated, available) = (number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
    let all = number(&status["replicas"]);
    let seen = number(&status["observedGeneration"]) >= number(&deployment["metadata"]["generation"]);
    if seen && updated >= wanted && available >= wanted && all == updated {
        return (StepState::Done, format!("{available} ready"));
    }
    let conditions = status["conditions"].as_array();
    let bad = conditions.into_iter().flatten().find(|one| {
        (one["type"] == "ReplicaFailure" && one["status"] == "True")
            || (one["type"] == "Progressing" && one["status"] == "False")
    });
    match bad {
        Some(bad) if seen => (
            StepState::Failed,
            format!("{} (look at its pods)", bad["message"].as_str().unwrap_or("it does not roll out")),
        ),
        _ => (StepState::Working, format!("{} of {wanted} ready", updated.min(available))),
    }
}

/// The agent itself.
pub(super) fn agent(agent: &Value, is_current: bool, found: &Found) -> InstallStep {
    if let Some(why) = found.failed.get("agent") {
        return step("agent", StepState::Failed, why);
    }
    let (state, message) = rollout(agent);
    if is_current {
        step("agent", state, message)
    } else {
        step("agent", StepState::Working, "its image changes")
    }
}

/// A Deployment of gateways.
pub(super) fn gateways(name: &str, wanted: &Objects, found: &Found) -> InstallStep {
    let called = if name == EGRESS { "egress" } else { "ingress" };
    if let Some(why) = found.failed.get(called) {
        return step(called, StepState::Failed, why);
    }
    let key = Key::new(Kind::Deployment, name);
    match (found.objects.get(&key), wanted.get(&key)) {
        (Some(there), Some(wanted)) if is_as(wanted, there) => {
            let (state, message) = rollout(there);
            step(called, state, message)
        }
        (Some(_), _) => step(called, StepState::Working, "it changes"),
        (None, _) => step(called, StepState::Working, "it is made"),
    }
}

/// The nodes' proxies.
pub(super) fn nodes(wanted: &Objects, found: &Found) -> InstallStep {
    const CALLED: &str = "node";
    if let Some(why) = found.failed.get(CALLED) {
        return step(CALLED, StepState::Failed, why);
    }
    let key = Key::new(Kind::DaemonSet, NODE);
    let there = match (found.objects.get(&key), wanted.get(&key)) {
        (Some(there), Some(wanted)) if is_as(wanted, there) => there,
        (Some(_), _) => return step(CALLED, StepState::Working, "it changes"),
        (None, _) => return step(CALLED, StepState::Working, "it is made"),
    };
    let status = |field: &str| there["status"][field].as_u64().unwrap_or(0);
    let seen = status("observedGeneration") >= there["metadata"]["generation"].as_u64().unwrap_or(0);
    let (wanted, ready) =
        (status("desiredNumberScheduled"), status("numberAvailable").min(status("updatedNumberScheduled")));
    if seen && ready >= wanted {
        return step(CALLED, StepState::Done, format!("{ready} ready"));
    }
    step(CALLED, StepState::Working, format!("{ready} of {wanted} ready"))
}

/// Where peers reach the cluster.
pub(super) fn address(found: &BTreeSet<String>, waiting: &[String], none_asked: bool) -> InstallStep {
    let list = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if none_asked {
        return step("address", StepState::Done, "none is asked for: other clusters can't call this one");
    }
    match (found.is_empty(), waiting.join("; ")) {
        (true, why) => step("address", StepState::Waiting, why),
        (false, why) if why.is_empty() => step("address", StepState::Done, list),
        (false, why) => step("address", StepState::Working, format!("{list}; {why}")),
    }
}

/// The order is not done.
pub(super) fn refused(message: String) -> InstallStep {
    step("agent", StepState::Failed, message)
}

pub(super) fn dns_by_hand(message: String) -> InstallStep {
    step("dns", StepState::Failed, message)
}

pub(super) fn dns_waits() -> InstallStep {
    step("dns", StepState::Waiting, "the Service tombolo-dns has no address yet")
}

/// The cluster's DNS.
pub(super) fn dns(domains: &BTreeSet<String>, asked: bool, pending: bool, found: &Found) -> InstallStep {
    if let Some(why) = found.failed.get("dns") {
        return step("dns", StepState::Failed, why);
    }
    let list = domains.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let done = match (asked, found.abilities.caches) {
        (true, false) => format!("CoreDNS forwards {list}"),
        (true, true) => format!("CoreDNS forwards {list}; NodeLocal DNSCache has to be told by hand"),
        (false, _) => "CoreDNS is as it was".to_owned(),
    };
    if pending {
        return step("dns", StepState::Working, "the Corefile changes");
    }
    match found.dns.deployment.as_ref().map(rollout) {
        // without one, the pods read the file by themselves
        None => step("dns", StepState::Done, done),
        Some((StepState::Done, _)) => step("dns", StepState::Done, done),
        Some((state, message)) => step("dns", state, format!("its pods are replaced: {message}")),
    }
}

/// The API server asks, and whichever replica it asks shows what it believes.
pub(super) fn injector(injection: &Injection) -> InstallStep {
    const CALLED: &str = "injector";
    match injection {
        Injection::Unknown => step(CALLED, StepState::Waiting, "it was not looked at yet"),
        Injection::Absent => step(
            CALLED,
            StepState::Failed,
            "this agent takes no questions about pods; start it with --webhook-listen, or install with --no-injector",
        ),
        Injection::TooOld => {
            let (major, minor) = SIDECARS;
            let done = format!(
                "no proxies in pods here: that needs Kubernetes {major}.{minor}; capture modes gateway and node work; --no-injector \
                 leaves this out"
            );
            step(CALLED, StepState::Done, done)
        }
        Injection::Untold(why) => step(CALLED, StepState::Failed, why),
        Injection::Told { replicas: 0, .. } => {
            step(CALLED, StepState::Working, "no pod of the agent is known yet")
        }
        Injection::Told { replicas, silent } => match silent.iter().next() {
            None => {
                let done = format!(
                    "the API server asks, and {replicas} of {replicas} agents serve what it believes"
                );
                step(CALLED, StepState::Done, done)
            }
            Some((pod, why)) => {
                let good = replicas.saturating_sub(silent.len());
                step(
                    CALLED,
                    StepState::Working,
                    format!("{good} of {replicas} agents serve what the API server believes; {pod}: {why}"),
                )
            }
        },
    }
}

/// Every cluster that serves something was reached once.
pub(super) fn peers(
    peers: &BTreeSet<ClusterName>,
    reached: &BTreeMap<ClusterName, BTreeSet<String>>,
) -> InstallStep {
    let through = |peer: &ClusterName| {
        let addresses = reached.get(peer).filter(|addresses| !addresses.is_empty())?;
        Some(format!(
            "{peer} through {}",
            addresses.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        ))
    };
    let missing: Vec<&str> =
        peers.iter().filter(|peer| through(peer).is_none()).map(ClusterName::as_str).collect();
    let there: Vec<String> = peers.iter().filter_map(through).collect();
    if peers.is_empty() {
        step("peers", StepState::Done, "no other cluster serves anything to this one yet")
    } else if missing.is_empty() {
        step("peers", StepState::Done, there.join("; "))
    } else {
        step("peers", StepState::Waiting, format!("for a first handshake with {}", missing.join(", ")))
    }
}

/// All that was made is gone.
pub(super) fn removed(
    objects: &Objects,
    serving: usize,
    failed: &BTreeMap<&'static str, String>,
) -> InstallStep {
    if let Some(why) = ["egress", "ingress", "node"].iter().find_map(|part| failed.get(part)) {
        return step("gateways", StepState::Failed, why);
    }
    if serving > 0 && !objects.keys().any(|key| key.kind == Kind::Deployment) {
        let message = format!("the calls at {serving} ingress gateways end");
        return step("gateways", StepState::Working, message);
    }
    if objects.is_empty() {
        return step("gateways", StepState::Done, "nothing is left of them");
    }
    let left = objects.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    step("gateways", StepState::Working, format!("still there: {left}"))
}

/// The objects of the Multi-Cluster Services API are gone.
pub(super) fn imports(left: Option<usize>) -> InstallStep {
    match left {
        None => step("imports", StepState::Waiting, "which of them are there is not known yet"),
        Some(0) => step("imports", StepState::Done, "nothing is left of them"),
        Some(left) => {
            let what = "ServiceImports, their EndpointSlices, conditions of ServiceExports";
            step("imports", StepState::Working, format!("still to be taken out: {left} ({what})"))
        }
    }
}
