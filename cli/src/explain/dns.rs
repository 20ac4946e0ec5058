//! The hop of the cluster's own DNS: whether it leads the name to the agents.

use super::{Facts, Not};
use crate::{
    args::{Caller, Destination},
    org::text,
};
use serde_json::Value;

/// Whether the DNS of the caller's cluster leads the name to the agents. What it does not say of itself is not known.
pub(super) fn look(facts: &Facts, from: &Caller, to: &Destination) -> Result<String, Not> {
    let cluster = from.cluster.as_str();
    let status = facts.clusters.get(cluster).unwrap_or(&Value::Null);
    let lies_in =
        |domain: &str| to.name.as_str().strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let problems = || status["problems"].as_array().into_iter().flatten();
    let of_domain =
        problems().find(|problem| text(problem, "subject").strip_prefix("domain ").is_some_and(lies_in));
    if let Some(problem) = of_domain {
        return Err(Not::No(
            format!("{cluster} does not resolve {}: {}", text(problem, "subject"), text(problem, "message")),
            format!("tombolo cluster show {cluster}"),
        ));
    }
    if !status["install"].is_object() {
        return Ok(
            "nothing was installed: the machines of the cluster ask its agent, as they were set up to".into(),
        );
    }
    let look = format!(
        "ask for the name in a pod there; tombolo cluster show {cluster} says what is to be added to its DNS"
    );
    let step = status["install"]["steps"].as_array().into_iter().flatten().find(|step| step["step"] == "dns");
    let Some(step) = step else {
        return Err(Not::Unknown(format!("{cluster} does not say what its DNS forwards"), look));
    };
    let message = text(step, "message");
    let Some(list) = message.strip_prefix("CoreDNS forwards ").filter(|_| step["state"] == "done") else {
        return Err(Not::Unknown(
            format!("step dns of the installation ({}): {message}", text(step, "state")),
            look,
        ));
    };
    let (list, more) = list.split_once("; ").unwrap_or((list, ""));
    if !list.split(", ").any(lies_in) {
        return Err(Not::No(
            format!("CoreDNS of {cluster} forwards {list}, and not the domain of {}", to.name),
            format!("tombolo cluster show {cluster}"),
        ));
    }
    if more.is_empty() { Ok(message) } else { Err(Not::Unknown(message, look)) }
}
