//! What pods are taken, asked by trials of which nothing comes: those that go before others, and those of applications with a proxy in them.

use super::{Asked, Finding, Verdict, finding, refused};
use serde_json::{Value, json};

/// The class of the agent and the gateways.
const CLASS: &str = "system-cluster-critical";
/// Where applications are tried.
const APPLICATIONS: &str = "default";
/// How the API server says that such pods are for namespaces with a `ResourceQuota` of them.
const QUOTA: &str = "insufficient quota to match these scopes";

/// Whether pods may go before others.
pub(super) async fn priority(asked: &Asked<'_>) -> Finding {
    let mut pod = pod();
    pod["spec"]["priorityClassName"] = json!(CLASS);
    class(asked.try_pod(asked.trials, &pod).await.map_err(|error| refused(&error)))
}

fn class(tried: Result<(), String>) -> Finding {
    const WHAT: &str = "priority";
    match tried {
        Ok(()) => finding(WHAT, Verdict::Good, format!("a pod of the class {CLASS} is taken")),
        Err(why) if why.contains(QUOTA) => {
            let said = format!(
                "pods of the class {CLASS} are for namespaces with a ResourceQuota of it, as on GKE: the manifest has one (tombolo-critical)"
            );
            finding(WHAT, Verdict::Good, said)
        }
        Err(why) => {
            let said = format!(
                "a pod of the class {CLASS} is refused ({why}); where that is for its class, see to it with who keeps this cluster's policies, or \
                 install with the chart: `priorityClassName` is the agent's, `gatewayPriorityClassName` the gateways'"
            );
            finding(WHAT, Verdict::Less, said)
        }
    }
}

/// Whether pods of applications may have a proxy (capture mode `sidecar`).
pub(super) async fn sidecar(asked: &Asked<'_>) -> Finding {
    let bare = asked.try_pod(APPLICATIONS, &pod()).await.map_err(|error| refused(&error));
    let mut with = pod();
    with["spec"]["initContainers"] = json!([redirect()]);
    let with = asked.try_pod(APPLICATIONS, &with).await.map_err(|error| refused(&error));
    injected(bare, with)
}

fn injected(bare: Result<(), String>, with: Result<(), String>) -> Finding {
    const WHAT: &str = "sidecar";
    match (bare, with) {
        (_, Ok(())) => finding(WHAT, Verdict::Good, "a pod with a proxy is taken in the namespace default"),
        // of a cluster that takes no pod there at all it says nothing
        (Err(why), Err(_)) => finding(
            WHAT,
            Verdict::Less,
            format!("it can't be tried, for no pod is taken in the namespace {APPLICATIONS} ({why})"),
        ),
        (Ok(()), Err(why)) => {
            let said = format!(
                "a pod with a proxy, whose init container has NET_ADMIN, is refused in the namespace {APPLICATIONS} ({why}). The agent sees the \
                 label of a namespace alone: where a Pod Security level or a policy holds for the whole cluster, new pods of namespaces in mode \
                 sidecar do not start. Label these pod-security.kubernetes.io/enforce=privileged, or use mode node or gateway"
            );
            finding(WHAT, Verdict::Less, said)
        }
    }
}

/// A pod that the level `restricted` takes.
fn pod() -> Value {
    let container = json!({
        "name": "check", "image": "localhost/tombolo-check",
        "resources": { "requests": { "cpu": "1m", "memory": "1Mi" }, "limits": { "cpu": "1m", "memory": "1Mi" } },
        "securityContext": {
            "runAsUser": 65532, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "tombolo-check-", "labels": { "tombolo.io/inject": "false" } },
        "spec": { "automountServiceAccountToken": false, "restartPolicy": "Never", "containers": [container] },
    })
}

/// What the agent adds to pods that needs more than others do.
fn redirect() -> Value {
    json!({
        "name": "tombolo-init", "image": "localhost/tombolo-check",
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "privileged": false, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trial_says() {
        let no = |why: &str| Err(why.to_owned());
        let gke =
            "pods \"x\" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [a b]}]";
        for (tried, verdict, part) in [
            (Ok(()), Verdict::Good, "is taken"),
            (no(gke), Verdict::Good, "tombolo-critical"),
            (no("denied by somebody"), Verdict::Less, "denied by somebody"),
        ] {
            let found = class(tried);
            assert!(found.verdict == verdict && found.said.contains(part), "{found:?}");
        }
        for (bare, with, verdict, part) in [
            (Ok(()), Ok(()), Verdict::Good, "is taken"),
            (Ok(()), no("violates PodSecurity"), Verdict::Less, "violates PodSecurity"),
            (no("none here"), no("none"), Verdict::Less, "can't be tried"),
        ] {
            let found = injected(bare, with);
            assert!(found.verdict == verdict && found.said.contains(part), "{found:?}");
        }
    }
}
