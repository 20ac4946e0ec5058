//! Whether a cluster has what an agent needs, asked before anything is changed in it.

use super::apply::Document;
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tombolo_model::corefile::keeper;

/// Pods with a proxy need sidecar containers that the kubelet knows as such.
const SIDECARS: u32 = 29;
/// The agent's rights are held to what it needs by admission policies.
const POLICIES: u32 = 30;
/// The oldest API server that we are tested with.
const OLDEST: u32 = 27;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, with less.
    Less,
    /// Without it, nothing works.
    Missing,
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) verdict: Verdict,
    /// What is there, or what to do about it.
    pub(super) said: String,
}

fn finding(what: &'static str, verdict: Verdict, said: impl Into<String>) -> Finding {
    Finding { what, verdict, said: said.into() }
}

/// Looks. Stops where the API server does not answer.
pub(super) async fn look(client: &Client, documents: &[Document]) -> Vec<Finding> {
    let mut all = Vec::new();
    match client.apiserver_version().await {
        Ok(version) => all.extend(versions(&version.major, &version.minor, &version.git_version)),
        Err(error) => {
            let said =
                format!("it does not answer ({error}); check --kubeconfig, --context and the way to it");
            return vec![finding("API server", Verdict::Missing, said)];
        }
    }
    all.push(permissions(client, documents).await);
    all.push(dns(client).await);
    all.push(external_ips(client).await);
    all
}

fn versions(major: &str, minor: &str, all: &str) -> Vec<Finding> {
    let minor: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let new = |least: u32| major != "1" || minor >= least;
    let server = if new(OLDEST) {
        finding("API server", Verdict::Good, all)
    } else {
        let said = format!("{all} is too old; upgrade the cluster to 1.{OLDEST} or later");
        finding("API server", Verdict::Missing, said)
    };
    let sidecars = if new(SIDECARS) {
        finding("native sidecars", Verdict::Good, "there")
    } else {
        let said =
            format!("{all} has none; capture mode sidecar needs 1.{SIDECARS}, gateway and node do not");
        finding("native sidecars", Verdict::Less, said)
    };
    let policies = if new(POLICIES) {
        finding("admission policies", Verdict::Good, "there")
    } else {
        let said = format!(
            "{all} has none (1.{POLICIES} and later do): nothing but its own program holds the agent to what it needs of its rights"
        );
        finding("admission policies", Verdict::Less, said)
    };
    vec![server, sidecars, policies]
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let request =
        Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Whether all of the manifest may be written, by this user.
async fn permissions(client: &Client, documents: &[Document]) -> Finding {
    let mut asked = BTreeSet::new();
    for one in documents {
        for verb in ["create", "patch"] {
            let resource = (one.resource.group.clone(), one.resource.plural.clone());
            asked.insert((verb, resource, one.namespace.clone()));
        }
    }
    let mut refused = Vec::new();
    for (verb, (group, resource), namespace) in asked {
        let attributes =
            json!({ "verb": verb, "group": group, "resource": resource, "namespace": namespace });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        match post(client, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await {
            Ok(answer) if answer["status"]["allowed"] == true => {}
            Ok(_) => {
                let at = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
                refused.push(format!("{verb} {resource}{at}"));
            }
            Err(error) => {
                return finding("permissions", Verdict::Missing, format!("they can't be asked for: {error}"));
            }
        }
    }
    if refused.is_empty() {
        return finding("permissions", Verdict::Good, "all of the manifest may be applied");
    }
    let said = format!(
        "this user may not {}; use one that is bound to the ClusterRole cluster-admin",
        refused.join(", ")
    );
    finding("permissions", Verdict::Missing, said)
}

async fn dns(client: &Client) -> Finding {
    let get = |path: &'static str| async move {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        client.request::<Value>(request).await
    };
    match get("/api/v1/namespaces/kube-system/configmaps/coredns").await {
        Ok(config) if keeper(&config).is_some() => {
            let keeper = keeper(&config).unwrap_or_default();
            let said = format!(
                "CoreDNS, whose ConfigMap {keeper} writes again and again; `cluster install` will say what to add, and where"
            );
            finding("cluster DNS", Verdict::Less, said)
        }
        Ok(config) if config["data"]["Corefile"].is_string() => {
            let deployment = get("/apis/apps/v1/namespaces/kube-system/deployments/coredns").await;
            let said = if deployment.is_ok() {
                "CoreDNS"
            } else {
                "CoreDNS, in no Deployment: it reads its file once a minute"
            };
            finding("cluster DNS", Verdict::Good, said)
        }
        _ => finding(
            "cluster DNS",
            Verdict::Less,
            "no ConfigMap kube-system/coredns with a Corefile; `cluster install` will say what to add to this cluster's DNS",
        ),
    }
}

/// Asked by a trial, which nothing comes of.
async fn external_ips(client: &Client) -> Finding {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "generateName": "tombolo-check-" },
        "spec": { "ports": [{ "port": 1 }], "externalIPs": ["240.0.0.1"] },
    });
    match post(client, "/api/v1/namespaces/default/services?dryRun=All", &service).await {
        Ok(_) => finding("externalIPs", Verdict::Good, "allowed"),
        Err(error) => {
            let why = match &error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            };
            let said = format!(
                "refused ({why}); pods without a proxy reach global names all the same, by ClusterIPs. For one address in all \
                 capture modes, let the policy that refuses it allow 240.0.0.0/4 in {0}. DenyServiceExternalIPs knows no exceptions: do \
                 not take it off unless another policy keeps externalIPs from everybody else, for whoever has one can take the connections \
                 to any address (CVE-2020-8554); ours keeps the virtual ones alone. Nothing has to be done",
                super::NAMESPACE
            );
            finding("externalIPs", Verdict::Less, said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_has() {
        let verdicts = |major: &str, minor: &str| {
            versions(major, minor, "v").iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        use Verdict::{Good, Less, Missing};
        assert_eq!(verdicts("1", "34"), [Good, Good, Good]);
        assert_eq!(verdicts("1", "29"), [Good, Good, Less]);
        assert_eq!(verdicts("1", "28+"), [Good, Less, Less]);
        assert_eq!(verdicts("1", "20"), [Missing, Less, Less]);
    }
}
