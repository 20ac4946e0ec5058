//! The conditions of ServiceExports and ServiceImports, with KEP-1645's reasons.

use super::{
    MANAGER,
    objects::{Schema, key_of},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use tombolo_model::{
    ClusterName,
    mcs::{ImportKind, ImportSpec},
};

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    kind: &'static str,
    status: bool,
    reason: String,
    message: String,
}

fn condition(kind: &'static str, status: bool, reason: &str, message: impl Into<String>) -> Condition {
    Condition { kind, status, reason: reason.to_owned(), message: message.into() }
}

/// What became of the Service that an export names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exported {
    /// It is there.
    Service,
    /// It is an `ExternalName`.
    External,
    /// There is none, or none that this agent reads.
    Nothing,
}

/// The conditions of an export; `import` is what became of it in the set.
pub(super) fn of_export(service: Exported, import: Option<&ImportSpec>, own: &ClusterName) -> Vec<Condition> {
    let told = import.filter(|import| import.clusters.contains(own));
    let valid = match service {
        Exported::Service => {
            condition("Valid", true, "Valid", "The ServiceExport and its Service are exportable.")
        }
        Exported::External => condition(
            "Valid",
            false,
            "InvalidServiceType",
            "An ExternalName Service has no endpoints, and can't be exported; make one in each cluster.",
        ),
        Exported::Nothing => condition(
            "Valid",
            false,
            "NoService",
            "There is no Service of this name in the namespace, or none with TCP or UDP ports.",
        ),
    };
    let ready = match (service, told) {
        (Exported::Service, Some(_)) => {
            condition("Ready", true, "Exported", "The service is exported to the cluster set.")
        }
        (Exported::Service, None) => {
            condition("Ready", false, "Pending", "The controller has not taken the export yet.")
        }
        _ => condition("Ready", false, "Pending", "The export is not valid."),
    };
    let conflicts = told.map_or(&[][..], |import| &import.conflicts);
    let conflict = if conflicts.is_empty() {
        condition("Conflict", false, "NoConflicts", "All exports of the service agree.")
    } else {
        let reasons: Vec<&str> = conflicts.iter().map(|conflict| conflict.reason.as_str()).collect();
        let messages: Vec<&str> = conflicts.iter().map(|conflict| conflict.message.as_str()).collect();
        condition("Conflict", true, &reasons.join(","), format!("{}.", messages.join(". ")))
    };
    vec![valid, ready, conflict]
}

/// The condition of an import.
pub(super) fn of_import(import: &ImportSpec, carried: bool, reachable: bool) -> Condition {
    match import.kind {
        _ if !carried => condition(
            "Ready",
            false,
            "Pending",
            "The service has no TCP port; nothing else is carried between clusters.",
        ),
        ImportKind::ClusterSetIp if !reachable => {
            condition("Ready", false, "Pending", "The service has no address in this cluster yet.")
        }
        _ => condition("Ready", true, "Ready", "The service can be called in this cluster."),
    }
}

/// The object with the status that it should have; none where it has that.
pub(super) fn export_status(
    schema: Schema,
    found: &DynamicObject,
    wanted: &[Condition],
    now: &str,
) -> Option<DynamicObject> {
    let conditions = merged(found, wanted, now)?;
    status(schema, "ServiceExport", found, json!({ "conditions": conditions }))
}

/// As [`export_status`], for a ServiceImport.
pub(super) fn import_status(
    schema: Schema,
    found: &DynamicObject,
    import: &ImportSpec,
    ready: &Condition,
    has_slices: bool,
    now: &str,
) -> Option<DynamicObject> {
    let clusters: Vec<Value> = import.clusters.iter().map(|cluster| json!({ "cluster": cluster })).collect();
    let slices = if has_slices { "Present" } else { "Absent" };
    let there = |field: &str| found.data.get("status").and_then(|status| status.get(field)).cloned();
    let new = merged(found, std::slice::from_ref(ready), now);
    let same = there("clusters") == Some(json!(clusters));
    if !schema.whole {
        return (!same).then(|| status(schema, "ServiceImport", found, json!({ "clusters": clusters })))?;
    }
    if same && there("endpointSliceObjects") == Some(json!(slices)) && new.is_none() {
        return None;
    }
    let conditions = new.or_else(|| there("conditions").map(|conditions| ours(&conditions, &["Ready"])));
    let value = json!({ "clusters": clusters, "endpointSliceObjects": slices, "conditions": conditions });
    status(schema, "ServiceImport", found, value)
}

/// The conditions of an export that we set.
const EXPORTS: [&str; 3] = ["Valid", "Ready", "Conflict"];

/// What takes our conditions from the export, as a merge patch; none where it has none. What is applied server-side can't do it: a status
/// in which nothing is left would be null, which the custom resource does not allow.
pub(super) fn none(schema: Schema, found: &DynamicObject) -> Option<DynamicObject> {
    let of_us = |entry: &ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && entry.subresource.as_deref() == Some("status")
    };
    if !found.metadata.managed_fields.iter().flatten().any(of_us) {
        return None;
    }
    let there = found.data.get("status").and_then(|status| status["conditions"].as_array())?;
    let is_ours = |one: &&Value| one["type"].as_str().is_some_and(|kind| EXPORTS.contains(&kind));
    let others: Vec<&Value> = there.iter().filter(|one| !is_ours(one)).collect();
    if others.len() == there.len() {
        return None;
    }
    let left = if others.is_empty() { Value::Null } else { json!({ "conditions": others }) };
    let mut object = status(schema, "ServiceExport", found, left)?;
    // in place of what was read, so that nobody else's is lost
    object.metadata.resource_version.clone_from(&found.metadata.resource_version);
    Some(object)
}

fn status(schema: Schema, kind: &str, found: &DynamicObject, status: Value) -> Option<DynamicObject> {
    let mut object = schema.object(kind, &key_of(&found.metadata)?);
    object.data = json!({ "status": status });
    Some(object)
}

fn ours(conditions: &Value, kinds: &[&str]) -> Value {
    let all = conditions.as_array().into_iter().flatten();
    all.filter(|one| one["type"].as_str().is_some_and(|kind| kinds.contains(&kind))).cloned().collect()
}

/// The conditions that should be there; none where they are. A condition whose status stays keeps its time.
fn merged(found: &DynamicObject, wanted: &[Condition], now: &str) -> Option<Value> {
    let generation = found.metadata.generation;
    let there = found.data.get("status").and_then(|status| status["conditions"].as_array());
    let old = |kind: &str| there.into_iter().flatten().find(|old| old["type"] == json!(kind));
    let mut differs = false;
    let conditions: Vec<Value> = wanted
        .iter()
        .map(|wanted| {
            let status = if wanted.status { "True" } else { "False" };
            let old = old(wanted.kind);
            let kept = old.filter(|old| old["status"] == json!(status));
            let since = kept.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
            let mut new = json!({
                "type": wanted.kind,
                "status": status,
                "reason": wanted.reason,
                "message": wanted.message,
                "lastTransitionTime": since,
            });
            if let Some(generation) = generation {
                new["observedGeneration"] = json!(generation);
            }
            differs |= old != Some(&new);
            new
        })
        .collect();
    differs.then_some(Value::Array(conditions))
}
