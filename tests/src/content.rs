//! What of a Kubernetes object somebody chose, without what a cluster writes there by itself all the time: to be held against what it was before.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Objects by what they are called: `Kind namespace name (group)`.
pub type Contents = BTreeMap<String, Value>;

/// Written into an object's metadata at each change or once, by the API server.
const WRITTEN: [&str; 6] =
    ["resourceVersion", "managedFields", "generation", "uid", "creationTimestamp", "selfLink"];

/// Annotations by which controllers of Kubernetes remember something.
const REMEMBERED: [&str; 4] = [
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "control-plane.alpha.kubernetes.io/leader",
];

/// How an object is called, and its content.
///
/// # Panics
/// It has no name.
#[must_use]
pub fn named(object: &Value) -> (String, Value) {
    let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = at("/metadata/name").unwrap_or_else(|| panic!("an object without a name: {object}"));
    let (kind, namespace) = (at("/kind").unwrap_or("-"), at("/metadata/namespace").unwrap_or("-"));
    (format!("{kind} {namespace} {name} ({})", group(object)), content(object))
}

fn group(object: &Value) -> &str {
    object["apiVersion"].as_str().and_then(|text| text.split_once('/')).map_or("", |(group, _)| group)
}

/// What somebody chose of an object. Of kinds that are not Kubernetes' own, whose controllers nobody knows here, only whether it is there, and
/// what keeps it there.
#[must_use]
pub fn content(object: &Value) -> Value {
    let mut object = object.clone();
    let group = group(&object).to_owned();
    let is_known = !group.contains('.') || group.ends_with("k8s.io");
    if !is_known || group == "metrics.k8s.io" {
        let finalizers = object["metadata"]["finalizers"].take();
        return serde_json::json!({ "metadata": { "finalizers": finalizers } });
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    // by whom a slice is kept, its labels say
    let keeper =
        object.pointer("/metadata/labels/endpointslice.kubernetes.io~1managed-by").and_then(Value::as_str);
    let follows = keeper.is_some_and(|keeper| keeper.ends_with("-controller.k8s.io"));
    let parts: &[&str] = match kind.as_str() {
        // who leads, and since when
        "Lease" | "LeaseCandidate" => &["status", "spec"],
        "ComponentStatus" => &["status", "conditions"],
        "CSIStorageCapacity" => &["status", "capacity", "maximumVolumeSize"],
        // pods that come and go
        "Endpoints" => &["status", "subsets"],
        "EndpointSlice" if follows => &["status", "endpoints", "ports"],
        // those of others together
        "ClusterRole" if object.get("aggregationRule").is_some() => &["status", "rules"],
        _ => &["status"],
    };
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|name, _| !parts.contains(&name.as_str()));
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|name, _| !WRITTEN.contains(&name.as_str()));
        // kubelets and clouds write there what they found
        if kind == "Node" {
            metadata.remove("annotations");
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| !REMEMBERED.contains(&name.as_str()));
        }
        let owners = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut);
        for owner in owners.into_iter().flatten().filter_map(Value::as_object_mut) {
            owner.remove("uid");
        }
        metadata.retain(|_, value| !is_empty(value));
    }
    if kind == "Node"
        && let Some(spec) = object["spec"].as_object_mut()
    {
        // that it is not ready, or has no room
        if let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut) {
            taints.retain(|taint| {
                !taint["key"].as_str().unwrap_or_default().starts_with("node.kubernetes.io/")
            });
        }
        spec.retain(|_, value| !is_empty(value));
    }
    if kind == "Secret" {
        for data in ["data", "stringData"] {
            let values = object.get_mut(data).and_then(Value::as_object_mut);
            // to be compared, and shown to nobody
            values.into_iter().flat_map(Map::values_mut).for_each(|value| *value = sum(value));
        }
    }
    object
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn sum(value: &Value) -> Value {
    let sum = Sha256::digest(value.to_string());
    Value::String(format!("sha256:{}", sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Objects that were not there before.
    pub left: Vec<String>,
    /// Objects that are there no more.
    pub gone: Vec<String>,
    /// Fields that are others than before, with what they were and are.
    pub changed: Vec<String>,
}

impl Differences {
    /// Of what is there after something from what was before.
    #[must_use]
    pub fn of(before: &Contents, after: &Contents) -> Self {
        let beside = |these: &Contents, those: &Contents| {
            these.keys().filter(|name| !those.contains_key(*name)).cloned().collect()
        };
        let both = before.iter().filter_map(|(name, old)| Some((name, old, after.get(name)?)));
        let changed = both.flat_map(|(name, old, new)| {
            let (mut olds, mut news) = (BTreeMap::new(), BTreeMap::new());
            leaves(old, "", &mut olds);
            leaves(new, "", &mut news);
            let names: std::collections::BTreeSet<String> = olds.keys().chain(news.keys()).cloned().collect();
            let shown = |at: &BTreeMap<String, String>, field: &str| {
                at.get(field).map_or_else(|| "(nothing)".to_owned(), |text| short(text))
            };
            let lines = names
                .into_iter()
                .filter(|field| olds.get(field) != news.get(field))
                .map(|field| format!("{name}: {field}: {} → {}", shown(&olds, &field), shown(&news, &field)));
            lines.collect::<Vec<_>>()
        });
        Self { left: beside(after, before), gone: beside(before, after), changed: changed.collect() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The values of an object, by their paths.
fn leaves(value: &Value, path: &str, all: &mut BTreeMap<String, String>) {
    let mut below = |name: &str, value: &Value| leaves(value, &format!("{path}/{name}"), all);
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value));
        }
        other => drop(all.insert(path.to_owned(), other.to_string())),
    }
}

/// What a person reads of a long text: an end of it would do where only the end differs.
fn short(text: &str) -> String {
    const MOST: usize = 600;
    let count = text.chars().count();
    if count <= MOST {
        text.to_owned()
    } else {
        format!("… {}", text.chars().skip(count - MOST).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(objects: &[Value]) -> Contents {
        objects.iter().map(named).collect()
    }

    fn corefile() -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "Corefile": ".:53 {}" },
            "metadata": { "name": "coredns", "namespace": "kube-system", "resourceVersion": "1", "uid": "a", "labels": { "k8s-app": "dns" } } })
    }

    #[test]
    fn what_is_left_in_an_object_is_found() {
        let before = all(&[corefile()]);
        for (pointer, value, found) in [
            (
                "/data/Corefile",
                json!(".:53 {}\n# tombolo"),
                "/data/Corefile: \".:53 {}\" → \".:53 {}\\n# tombolo\"",
            ),
            ("/metadata/labels/k8s-app", json!("other"), "/metadata/labels/k8s-app: \"dns\" → \"other\""),
        ] {
            let mut after = corefile();
            *after.pointer_mut(pointer).unwrap() = value;
            let differences = Differences::of(&before, &all(&[after]));
            assert_eq!(differences.changed, [format!("ConfigMap kube-system coredns (): {found}")]);
        }
        for (part, value) in [
            ("labels", json!({ "k8s-app": "dns", "tombolo.io/x": "y" })),
            ("annotations", json!({ "tombolo.io/corefile": "1" })),
            ("finalizers", json!(["tombolo.io/keeps"])),
        ] {
            let mut after = corefile();
            after["metadata"][part] = value;
            let differences = Differences::of(&before, &all(&[after]));
            assert_eq!(differences.changed.len(), 1, "{part}: {differences:?}");
            assert!(
                differences.changed[0].contains("tombolo.io") && differences.changed[0].contains("(nothing)"),
                "{differences:?}"
            );
        }
        let template = |annotations: Value| {
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "coredns", "annotations": { "deployment.kubernetes.io/revision": "1" } },
                "spec": { "template": { "metadata": { "annotations": annotations } } } })
        };
        let [mut before, after] = [json!({}), json!({ "tombolo.io/corefile": "1" })].map(template);
        assert_eq!(
            Differences::of(&all(&[before.clone()]), &all(&[after])).changed.len(),
            2,
            "where the map was empty, too"
        );
        let same = all(&[before.clone()]);
        before["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("3");
        assert!(Differences::of(&same, &all(&[before])).is_empty(), "its controller counts");
    }

    #[test]
    fn objects_that_are_more_or_less_are_found() {
        let other =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "tombolo-system" } });
        let (one, two) = (all(&[corefile()]), all(&[corefile(), other]));
        let name = "Namespace - tombolo-system ()".to_owned();
        assert_eq!(
            Differences::of(&one, &two),
            Differences { left: vec![name.clone()], ..Differences::default() }
        );
        assert_eq!(Differences::of(&two, &one), Differences { gone: vec![name], ..Differences::default() });
        let of = |group: &str| json!({ "apiVersion": format!("{group}/v1"), "kind": "Service", "metadata": { "name": "a", "namespace": "b" } });
        assert_eq!(all(&[of("one.example.com"), of("two.example.com")]).len(), 2);
    }

    #[test]
    fn what_a_cluster_writes_by_itself_is_no_difference() {
        let meta = |version: &str| {
            json!({ "name": "a", "namespace": "b", "resourceVersion": version, "uid": version, "generation": version,
                "creationTimestamp": version, "managedFields": [{ "time": version }],
                "ownerReferences": [{ "kind": "Node", "name": "n", "uid": version }],
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": version } })
        };
        let object = |api: &str, kind: &str, version: &str, rest: Value| {
            let mut object = json!({ "apiVersion": api, "kind": kind, "metadata": meta(version), "status": { "seen": version } });
            object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            object
        };
        let slice = |keeper: &str, version: &str| {
            let mut slice = object(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                version,
                json!({ "endpoints": [version], "ports": [version] }),
            );
            slice["metadata"]["labels"] = json!({ "endpointslice.kubernetes.io/managed-by": keeper });
            slice
        };
        let look = |version: &str| {
            let role = json!({ "aggregationRule": {}, "rules": [version] });
            let taints = json!([{ "key": "node.kubernetes.io/not-ready", "effect": version }]);
            let mut node =
                object("v1", "Node", version, json!({ "spec": { "podCIDR": "p", "taints": taints } }));
            if version == "2" {
                node["spec"].as_object_mut().unwrap().remove("taints");
            }
            node["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"] = json!(version);
            all(&[
                object(
                    "coordination.k8s.io/v1",
                    "Lease",
                    version,
                    json!({ "spec": { "renewTime": version } }),
                ),
                object("v1", "Endpoints", version, json!({ "subsets": [version] })),
                object("v1", "ComponentStatus", version, json!({ "conditions": [version] })),
                object("metrics.k8s.io/v1beta1", "NodeMetrics", version, json!({ "usage": version })),
                object("cilium.io/v2", "CiliumNode", version, json!({ "spec": version })),
                object("rbac.authorization.k8s.io/v1", "ClusterRole", version, role),
                object("apps/v1", "Deployment", version, json!({ "spec": { "replicas": 2 } })),
                slice("endpointslice-controller.k8s.io", version),
                node,
            ])
        };
        let (before, after) = (look("1"), look("2"));
        assert_eq!((before.len(), Differences::of(&before, &after)), (9, Differences::default()));
        // what others keep is theirs to leave as it was
        let kept = ["1", "2"].map(|version| all(&[slice("tombolo-agent", version)]));
        assert_eq!(Differences::of(&kept[0], &kept[1]).changed.len(), 2);
        let roles = ["1", "2"].map(|version| {
            all(&[object(
                "rbac.authorization.k8s.io/v1",
                "ClusterRole",
                version,
                json!({ "rules": [version] }),
            )])
        });
        assert_eq!(Differences::of(&roles[0], &roles[1]).changed.len(), 1);
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = |value: &str| {
            all(&[
                json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "data": { "key": value } }),
            ])
        };
        let differences = Differences::of(&secret("b25l"), &secret("dHdv"));
        assert_eq!(differences.changed.len(), 1);
        assert!(!format!("{differences:?}").contains("b25l"), "{differences:?}");
        assert!(Differences::of(&secret("b25l"), &secret("b25l")).is_empty());
    }
}
