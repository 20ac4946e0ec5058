//! The documents of a manifest, written into a cluster and taken out again.

use super::{Cluster, LOOK, NAMESPACE, manifest};
use crate::{args::ManifestArgs, client::Client, problem::CliError};
use anyhow::{Context as _, Result, anyhow};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tombolo_model::ClusterName;

/// Who writes, for server-side apply.
const MANAGER: &str = "tombolo";
/// How long a namespace may take to go.
const GONE: Duration = Duration::from_secs(120);

/// Kinds of the manifest: group and version, plural, and whether they lie in a namespace.
const KINDS: [(&str, &str, &str, bool); 14] = [
    ("Namespace", "v1", "namespaces", false),
    ("ResourceQuota", "v1", "resourcequotas", true),
    ("ServiceAccount", "v1", "serviceaccounts", true),
    ("Secret", "v1", "secrets", true),
    ("Service", "v1", "services", true),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("Role", "rbac.authorization.k8s.io/v1", "roles", true),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", true),
    ("Deployment", "apps/v1", "deployments", true),
    ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", true),
    (
        "MutatingWebhookConfiguration",
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        false,
    ),
    (POLICY, "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", false),
    (
        "ValidatingAdmissionPolicyBinding",
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        false,
    ),
];

/// What holds the agent to what it does; API servers before 1.30 have no such kind.
const POLICY: &str = "ValidatingAdmissionPolicy";

/// A document of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) resource: ApiResource,
    pub(super) value: Value,
}

/// Whether an API server may have no such kind.
pub(super) fn is_policy(document: &Document) -> bool {
    document.kind.starts_with(POLICY)
}

/// Reads a manifest.
///
/// # Errors
/// What is not understood.
pub(super) fn documents(text: &str) -> Result<Vec<Document>> {
    text.split("\n---\n").map(document).collect()
}

fn document(text: &str) -> Result<Document> {
    let value: Value = serde_saphyr::from_str(text).context("read the manifest")?;
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let known = KINDS.iter().find(|(known, version, ..)| *known == kind && value["apiVersion"] == *version);
    let (_, version, plural, namespaced) = known.ok_or_else(|| {
        anyhow!("the manifest has a {kind}; are controller and command line of one version?")
    })?;
    let name =
        value["metadata"]["name"].as_str().context("the manifest has an object without a name")?.to_owned();
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    anyhow::ensure!(namespace.is_some() == *namespaced, "{kind} {name} lies in no namespace, or should not");
    Ok(Document { resource: resource(version, &kind, plural), kind, name, namespace, value })
}

pub(super) fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

impl Cluster {
    pub(super) fn api(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    pub(super) async fn apply(&self, documents: &[&Document]) -> Result<()> {
        let params = PatchParams::apply(MANAGER).force();
        for one in documents {
            let api = self.api(&one.resource, one.namespace.as_deref());
            let done = api.patch(&one.name, &params, &Patch::Apply(&one.value)).await;
            if matches!(&done, Err(kube::Error::Api(status)) if status.code == 404 && is_policy(one)) {
                continue;
            }
            done.with_context(|| format!("apply {} {}", one.kind, one.name))?;
        }
        Ok(())
    }

    /// The one-time token, for the agent to join with.
    pub(super) async fn put_token(&self, token: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "tombolo-join", "namespace": NAMESPACE, "labels": { "app.kubernetes.io/managed-by": "tombolo" } },
            "stringData": { "token": token },
        });
        let api = self.api(&resource("v1", "Secret", "secrets"), Some(NAMESPACE));
        let params = PatchParams::apply(MANAGER).force();
        api.patch("tombolo-join", &params, &Patch::Apply(&secret))
            .await
            .context("apply Secret tombolo-join")?;
        Ok(())
    }

    /// New pods of the agent, where there were some.
    pub(super) async fn restart_agent(&self) -> Result<()> {
        let pods = self.api(&resource("v1", "Pod", "pods"), Some(NAMESPACE));
        let old = kube::api::ListParams::default().labels("app.kubernetes.io/name=tombolo-agent");
        let found = pods.list(&old).await.context("list the agent's pods")?;
        for pod in found.items.iter().filter(|pod| is_running(pod)) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let _ = pods.delete(name, &DeleteParams::default()).await;
        }
        Ok(())
    }

    /// Takes the agent out.
    ///
    /// # Errors
    /// The API server said no, or the namespace does not go.
    pub async fn take_out(&self, client: &Client, name: &ClusterName) -> Result<()> {
        let mut all = documents(&manifest(client, name, &ManifestArgs::default()).await?)?;
        all.reverse();
        for one in &all {
            let api = self.api(&one.resource, one.namespace.as_deref());
            match api.delete(&one.name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                done => drop(done.with_context(|| format!("delete {} {}", one.kind, one.name))?),
            }
        }
        let namespaces = self.api(&resource("v1", "Namespace", "namespaces"), None);
        let deadline = Instant::now() + GONE;
        while namespaces.get_opt(NAMESPACE).await.context("ask the API server")?.is_some() {
            if Instant::now() >= deadline {
                let message = format!("the namespace {NAMESPACE} is still there after {} s", GONE.as_secs());
                return Err(CliError::No(message).into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

fn is_running(pod: &DynamicObject) -> bool {
    pod.data["status"]["phase"] == "Running" && pod.metadata.deletion_timestamp.is_none()
}
