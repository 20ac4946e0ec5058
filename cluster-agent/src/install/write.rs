//! Writes one thing of a plan.

use super::{
    object::{Key, Kind, Objects},
    objects::{AGENT, EGRESS, INGRESS, NODE},
    plan::{Action, RESTARTED_FOR},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
    core::{ApiResource, DynamicObject, ObjectMeta},
};
use serde_json::{Value, json};
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
            if unread && let Some(there) = api.get_metadata_opt(&key.name).await? {
                return match relabelled(value, &there.metadata) {
                    None => Ok(()),
                    Some(patch) => api.patch(&key.name, &plain, &Patch::Merge(&patch)).await.map(drop),
                };
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

/// Its labels as they are to be, over the version that was read: the watch finds it by them, and then all else of it is mended. None where they
/// are so already. How many pods there are stays as it is: an autoscaler may have said so.
fn relabelled(wanted: &Value, there: &ObjectMeta) -> Option<Value> {
    let labels = &wanted["metadata"]["labels"];
    let has = |(key, value): (&String, &Value)| {
        there.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str) == value.as_str()
    };
    let differs = !labels.as_object()?.iter().all(has);
    differs.then(|| json!({ "metadata": { "resourceVersion": there.resource_version, "labels": labels } }))
}

/// What the agent made that the watches don't find, since somebody took its labels.
///
/// # Errors
/// What the API server says.
pub(super) async fn strays(
    client: &Client,
    namespace: &NamespaceName,
    known: &Objects,
) -> Result<Vec<Key>, kube::Error> {
    let mut all = Vec::new();
    for (kind, name) in [
        (Kind::Deployment, EGRESS),
        (Kind::Deployment, INGRESS),
        (Kind::DaemonSet, NODE),
        (Kind::PodDisruptionBudget, EGRESS),
        (Kind::PodDisruptionBudget, INGRESS),
        (Kind::HorizontalPodAutoscaler, EGRESS),
        (Kind::HorizontalPodAutoscaler, INGRESS),
        (Kind::Service, INGRESS),
    ] {
        let key = Key::new(kind, name);
        if known.contains_key(&key) {
            continue;
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), namespace.as_str(), &kind.resource());
        match api.get_metadata_opt(name).await {
            Ok(there) => all.extend(there.filter(|there| is_ours(&there.metadata)).map(|_| key)),
            // what may not be read can't have been made either
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Whether it is there to stay, and the agent wrote it. What somebody else made under its name is theirs.
fn is_ours(there: &ObjectMeta) -> bool {
    let mut managers = there.managed_fields.iter().flatten();
    there.deletion_timestamp.is_none() && managers.any(|one| one.manager.as_deref() == Some(MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::object::labels;

    fn metadata(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_lost_its_labels_gets_them_back() {
        let wanted = json!({ "metadata": { "labels": labels("egress") }, "spec": { "replicas": 2 } });
        let mut there = json!({ "resourceVersion": "7", "labels": labels("egress") });
        there["labels"]["team"] = json!("a");
        assert_eq!(relabelled(&wanted, &metadata(there.clone())), None, "the watch will tell of it");
        there["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
        let patch = json!({ "metadata": { "resourceVersion": "7", "labels": labels("egress") } });
        assert_eq!(relabelled(&wanted, &metadata(there.clone())), Some(patch.clone()), "and no replicas");
        there.as_object_mut().unwrap().remove("labels");
        assert_eq!(relabelled(&wanted, &metadata(there)), Some(patch));
    }

    #[test]
    fn what_the_agent_never_wrote_is_left_to_whoever_did() {
        let by =
            |manager: &str| json!({ "managedFields": [{ "manager": "kubectl" }, { "manager": manager }] });
        assert!(is_ours(&metadata(by("tombolo-agent"))));
        assert!(!is_ours(&metadata(by("helm"))) && !is_ours(&metadata(json!({}))));
        let mut ends = by("tombolo-agent");
        ends["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_ours(&metadata(ends)), "it goes already");
    }
}
