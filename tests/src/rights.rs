//! What the agent may do in a cluster: as docs/kubernetes.md has it, and as rules of Kubernetes have it.

use serde_json::Value;
use std::collections::BTreeSet;

/// Where the agent itself lives.
pub const OWN: &str = "tombolo-system";
/// What `all` stands for.
const ALL: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
/// The group of each kind of object; one that is not here is nobody's to give.
const GROUPS: [(&str, &str); 17] = [
    ("namespaces", ""),
    ("services", ""),
    ("pods", ""),
    ("nodes", ""),
    ("serviceaccounts", ""),
    ("configmaps", ""),
    ("secrets", ""),
    ("endpointslices", "discovery.k8s.io"),
    ("tokenreviews", "authentication.k8s.io"),
    ("serviceexports", "multicluster.x-k8s.io"),
    ("serviceimports", "multicluster.x-k8s.io"),
    ("mutatingwebhookconfigurations", "admissionregistration.k8s.io"),
    ("deployments", "apps"),
    ("daemonsets", "apps"),
    ("poddisruptionbudgets", "policy"),
    ("horizontalpodautoscalers", "autoscaling"),
    ("leases", "coordination.k8s.io"),
];

/// One thing that may be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The namespace; none for the whole cluster.
    pub namespace: Option<String>,
    /// The group of the API.
    pub group: String,
    /// The kind, as in paths; with its part after a slash.
    pub resource: String,
    /// The one object; none for all of the kind.
    pub name: Option<String>,
    /// What is done.
    pub verb: String,
}

/// The table under "What the agent may do".
#[must_use]
pub fn documented(page: &str) -> BTreeSet<Right> {
    let section = page.split("## What the agent may do\n").nth(1).unwrap();
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut rights = BTreeSet::new();
    for row in rows.skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [place, what, verbs, _why] = cells.as_slice() else { panic!("four columns: {row}") };
        let namespace = (*place != "cluster").then(|| place.trim_matches('`').to_owned());
        let verbs: Vec<&str> = match verbs.split_once("all but ") {
            Some((_, but)) => ALL.into_iter().filter(|verb| *verb != but).collect(),
            None if *verbs == "all" => ALL.to_vec(),
            None => verbs.split(", ").collect(),
        };
        for item in what.split(", ") {
            let (kind, name) = match item.split_once(' ') {
                Some((kind, name)) => (kind, Some(name.trim_matches('`').to_owned())),
                None => (item, None),
            };
            // one object is written without the plural
            let resource =
                if kind.ends_with('s') || name.is_none() { kind.to_owned() } else { format!("{kind}s") };
            let plain = resource.split('/').next().unwrap();
            let group = GROUPS.iter().find(|(known, _)| *known == plain);
            let group = group.unwrap_or_else(|| panic!("{resource}: no group is known")).1.to_owned();
            for verb in &verbs {
                rights.insert(Right {
                    namespace: namespace.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: (*verb).to_owned(),
                });
            }
        }
    }
    rights
}

/// What these rules allow.
#[must_use]
pub fn allowed(rules: &Value, namespace: Option<&str>) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let names = texts(&rule["resourceNames"]);
        let names: Vec<Option<String>> =
            if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for (name, verb) in names
                    .iter()
                    .flat_map(|name| texts(&rule["verbs"]).into_iter().map(move |verb| (name, verb)))
                {
                    rights.insert(Right {
                        namespace: namespace.map(str::to_owned),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        verb,
                    });
                }
            }
        }
    }
    rights
}
