//! Writes one thing of a plan.

use super::{
    object::Kind,
    objects::AGENT,
    plan::{Action, RESTARTED_FOR},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
    core::{ApiResource, DynamicObject},
};
use serde_json::json;
use tombolo_model::NamespaceName;

/// The one field manager.
const MANAGER: &str = "tombolo-agent";
/// Where the cluster's own DNS lives.
pub(super) const SYSTEM: &str = "kube-system";
pub(super) const COREDNS: &str = "coredns";

/// Writes it; what is there already and is newer is left as it is.
///
/// # Errors
/// What the API server says.
pub(super) async fn write(
    client: &Client,
    namespace: &NamespaceName,
    action: &Action,
) -> Result<(), kube::Error> {
    let own = |kind: Kind| -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace.as_str(), &kind.resource())
    };
    let coredns = |resource: &ApiResource| -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), SYSTEM, resource)
    };
    let plain = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match action {
        Action::Apply(key, value) => {
            let (api, params) = (own(key.kind), PatchParams::apply(MANAGER).force());
            // One that the watch has not told of yet may have been scaled since it was made.
            let unread = key.kind == Kind::Deployment && value["metadata"]["resourceVersion"].is_null();
            if unread && api.get_metadata_opt(&key.name).await?.is_some() {
                return Ok(());
            }
            api.patch(&key.name, &params, &Patch::Apply(&**value)).await.map(drop)
        }
        Action::Delete(key) => {
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            own(key.kind).delete(&key.name, &params).await.map(drop)
        }
        Action::Scale(key, count) => {
            let patch = json!({ "spec": { "replicas": count } });
            own(key.kind).patch(&key.name, &plain, &Patch::Merge(&patch)).await.map(drop)
        }
        Action::Corefile { text, version } => {
            let resource = ApiResource {
                group: String::new(),
                version: "v1".to_owned(),
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                plural: "configmaps".to_owned(),
            };
            let patch = json!({ "metadata": { "resourceVersion": version }, "data": { "Corefile": text } });
            coredns(&resource).patch(COREDNS, &plain, &Patch::Merge(&patch)).await.map(drop)
        }
        Action::Restart { mark } => {
            let template = json!({ "metadata": { "annotations": { RESTARTED_FOR: mark } } });
            let patch = json!({ "spec": { "template": template } });
            coredns(&Kind::Deployment.resource())
                .patch(COREDNS, &plain, &Patch::Merge(&patch))
                .await
                .map(drop)
        }
        Action::Agent { image } => {
            let containers = json!([{ "name": "agent", "image": image }]);
            let patch = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
            own(Kind::Deployment).patch(AGENT, &plain, &Patch::Strategic(&patch)).await.map(drop)
        }
    }
}
