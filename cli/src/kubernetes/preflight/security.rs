//! The Pod Security level of the agent's namespace. Agent and gateways run as `restricted` asks; the nodes' proxies and ingress gateways
//! on the hosts' network do not.

use super::{super::NAMESPACE, Asked, Finding, Verdict, finding, refused, text};
use serde_json::Value;

const WHAT: &str = "pod security";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) async fn look(asked: &Asked<'_>) -> Finding {
    match asked.find(&format!("/api/v1/namespaces/{NAMESPACE}")).await {
        Ok(found) => level(found.as_ref()),
        Err(error) => {
            finding(WHAT, Verdict::Less, format!("namespace {NAMESPACE} can't be read: {}", refused(&error)))
        }
    }
}

fn level(namespace: Option<&Value>) -> Finding {
    let Some(namespace) = namespace else {
        return finding(WHAT, Verdict::Good, format!("namespace {NAMESPACE} is made, with level privileged"));
    };
    if text(namespace, "/status/phase") == "Terminating" {
        let said = format!("namespace {NAMESPACE} is being deleted; wait until it is gone");
        return finding(WHAT, Verdict::Missing, said);
    }
    let level = namespace["metadata"]["labels"][ENFORCE].as_str();
    match level {
        None | Some("privileged") => finding(
            WHAT,
            Verdict::Good,
            format!("namespace {NAMESPACE} is there, and takes all pods of the agent's"),
        ),
        Some(level) => {
            let said = format!(
                "namespace {NAMESPACE} enforces {level}; the manifest makes it privileged. Where something puts {level} back, ingress \
                 gateways on the hosts' network and the nodes' proxies (--node) do not start, and all else does"
            );
            finding(WHAT, Verdict::Less, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels() {
        let of = |level: &str| level_of(json!({ "labels": { ENFORCE: level } })).verdict;
        fn level_of(metadata: Value) -> Finding {
            level(Some(&json!({ "metadata": metadata })))
        }
        assert_eq!(
            (of("privileged"), of("baseline"), of("restricted")),
            (Verdict::Good, Verdict::Less, Verdict::Less)
        );
        assert_eq!(level_of(json!({})).verdict, Verdict::Good);
        assert_eq!(level(None).verdict, Verdict::Good);
        let going = level(Some(&json!({ "status": { "phase": "Terminating" } })));
        assert_eq!(going.verdict, Verdict::Missing);
    }
}
