//! Whether an object has only fields that its kind has: a field that is misspelt is dropped in silence by the API server.

use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    },
    apps::v1::Deployment,
    core::v1::{Namespace, PersistentVolumeClaim, ResourceQuota, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What is wrong with it, where something is.
pub(crate) fn check(object: &Value) -> Result<(), String> {
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRole" => typed::<ClusterRole>(object),
        "ClusterRoleBinding" => typed::<ClusterRoleBinding>(object),
        "Deployment" => typed::<Deployment>(object),
        "MutatingWebhookConfiguration" => typed::<MutatingWebhookConfiguration>(object),
        "Namespace" => typed::<Namespace>(object),
        "NetworkPolicy" => typed::<NetworkPolicy>(object),
        "PersistentVolumeClaim" => typed::<PersistentVolumeClaim>(object),
        "PodDisruptionBudget" => typed::<PodDisruptionBudget>(object),
        "ResourceQuota" => typed::<ResourceQuota>(object),
        "Role" => typed::<Role>(object),
        "RoleBinding" => typed::<RoleBinding>(object),
        "Secret" => typed::<Secret>(object),
        "Service" => typed::<Service>(object),
        "ServiceAccount" => typed::<ServiceAccount>(object),
        "ValidatingAdmissionPolicy" => typed::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => typed::<ValidatingAdmissionPolicyBinding>(object),
        other => Err(format!("the charts make no {other:?}; add it here")),
    }
}

fn typed<K: Serialize + DeserializeOwned>(object: &Value) -> Result<(), String> {
    let read: K = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let kept = serde_json::to_value(read).map_err(|error| error.to_string())?;
    lost(object, &kept, "")
}

/// The first field that was not kept.
fn lost(given: &Value, kept: &Value, path: &str) -> Result<(), String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().try_for_each(|(key, value)| {
            let path = format!("{path}.{key}");
            lost(value, kept.get(key).ok_or_else(|| format!("there is no field {path}"))?, &path)
        }),
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            given.iter().zip(kept).try_for_each(|(given, kept)| lost(given, kept, &format!("{path}[]")))
        }
        _ if given == kept => Ok(()),
        _ => Err(format!("{path} is {given}, and is read as {kept}")),
    }
}
