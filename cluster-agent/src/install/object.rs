//! Objects as they are written and read, whatever their kind; and whether one is as it should be.

use crate::source::kubernetes::MANAGED_BY;
use kube::core::ApiResource;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt};

/// The sum of what was applied: a part that should be there no more is found by it.
pub(super) const APPLIED: &str = "tombolo.io/applied";
/// Which part of the installation an object belongs to.
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";

/// Which nodes a pod may run on: the API server takes it whole, and so is it compared.
pub(super) const NODES: &str = "nodeSelector";

/// What the API server takes whole when it is applied, and so it is compared: another key would lead calls to nobody, or protect none.
const WHOLE: [&str; 4] = [NODES, "selector", "matchLabels", "labelSelector"];

/// The kinds of objects that an installation is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    Deployment,
    DaemonSet,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Service,
        Self::Deployment,
        Self::DaemonSet,
        Self::PodDisruptionBudget,
        Self::HorizontalPodAutoscaler,
    ];

    /// What they are, for people.
    pub(super) const fn called(self) -> &'static str {
        match self {
            Self::Service => "Services",
            Self::Deployment => "Deployments",
            Self::DaemonSet => "DaemonSets",
            Self::PodDisruptionBudget => "PodDisruptionBudgets",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscalers",
        }
    }

    /// Whether calls go on as well without: that it may not be read holds up nothing else.
    pub(super) const fn is_spare(self) -> bool {
        matches!(self, Self::PodDisruptionBudget | Self::HorizontalPodAutoscaler)
    }

    pub(super) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::DaemonSet => ("apps", "v1", "DaemonSet", "daemonsets"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::HorizontalPodAutoscaler => {
                ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
        };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }
}

/// An object of the agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: Kind, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

/// Objects by kind and name.
pub(super) type Objects = BTreeMap<Key, Value>;

/// The labels of an object of ours.
pub(super) fn labels(component: &str) -> Value {
    json!({
        MANAGED_BY.0: MANAGED_BY.1,
        "app.kubernetes.io/name": format!("tombolo-{component}"),
        COMPONENT: component,
    })
}

/// Who says how many pods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// The object itself.
    Own,
    /// An autoscaler: another count is no change of ours, and nothing to be applied.
    Autoscaled,
}

/// An object to be applied: its kind, name and labels, and the sum of all of it.
pub(super) fn object(
    key: &Key,
    namespace: &str,
    component: &str,
    annotations: Map<String, Value>,
    spec: Value,
    count: Count,
) -> Value {
    let resource = key.kind.resource();
    let mut object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": key.name, "namespace": namespace, "labels": labels(component), "annotations": annotations },
        "spec": spec,
    });
    let mut summed = object.clone();
    if count == Count::Autoscaled {
        summed["spec"]["replicas"].take();
    }
    object["metadata"]["annotations"][APPLIED] = json!(sum(&summed.to_string()));
    object
}

/// FNV-1a: the standard library's hashes may change from version to version.
pub(super) fn sum(text: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Whether what was read is what was wanted, and last applied as it is wanted now. What others added is no difference.
pub(super) fn is_as(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(key, wanted)| match found.get(key) {
                Some(found) if WHOLE.contains(&key.as_str()) => wanted == found,
                Some(found) => is_as(wanted, found),
                None => is_nothing(wanted),
            })
        }
        (Value::Array(wanted), Value::Array(found)) => {
            let named = |value: &Value| value.get("name").is_some();
            if !wanted.is_empty() && wanted.iter().all(named) {
                let by_name = |one: &Value| found.iter().find(|other| other.get("name") == one.get("name"));
                wanted.iter().all(|one| by_name(one).is_some_and(|other| is_as(one, other)))
            } else {
                wanted.len() == found.len() && wanted.iter().zip(found).all(|(a, b)| is_as(a, b))
            }
        }
        (wanted, found) => wanted == found,
    }
}

/// What the API server leaves out when it writes an object.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        Value::Bool(yes) => !yes,
        _ => false,
    }
}
