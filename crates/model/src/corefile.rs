//! Whose the Corefile of a cluster is. The agent and the command line look at the same.

use serde_json::Value;

/// Who writes the `ConfigMap` with the Corefile again and again, and would take a change of ours back, where it says so of
/// itself: the add-on manager (AKS and others), k3s.
#[must_use]
pub fn keeper(config: &Value) -> Option<&'static str> {
    let meta = &config["metadata"];
    if meta["labels"]["addonmanager.kubernetes.io/mode"] == "Reconcile" {
        Some("the cluster's add-on manager")
    } else if meta["annotations"]["objectset.rio.cattle.io/id"].is_string() {
        Some("k3s")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_keeper_says_so_of_itself() {
        let of = |meta: Value| keeper(&json!({ "metadata": meta }));
        assert_eq!(of(json!({ "labels": { "k8s-app": "kube-dns" } })), None);
        assert_eq!(of(json!({ "labels": { "addonmanager.kubernetes.io/mode": "EnsureExists" } })), None);
        let reconciled = json!({ "labels": { "addonmanager.kubernetes.io/mode": "Reconcile" } });
        assert_eq!(of(reconciled), Some("the cluster's add-on manager"));
        assert_eq!(of(json!({ "annotations": { "objectset.rio.cattle.io/id": "" } })), Some("k3s"));
    }
}
