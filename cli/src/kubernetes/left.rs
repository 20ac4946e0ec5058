//! What an agent makes outside of its own namespace, and takes out when it is told to. Where none is there to be told, people are.

use super::{Cluster, apply::resource};
use anyhow::{Context as _, Result};
use kube::api::ListParams;
use serde_json::Value;

/// How the agent's block in the Corefile begins.
const BLOCK: &str = "# tombolo: begin";
/// On what the agent makes for the Multi-Cluster Services API.
const MADE: &str = "app.kubernetes.io/managed-by=tombolo-agent";
/// The versions of that API.
const VERSIONS: [&str; 2] = ["multicluster.x-k8s.io/v1beta1", "multicluster.x-k8s.io/v1alpha1"];

impl Cluster {
    /// What an agent left outside of its namespace, each with how to take it out.
    ///
    /// # Errors
    /// The API server said no, or did not answer.
    pub async fn left(&self) -> Result<Vec<String>> {
        let maps = self.api(&resource("v1", "ConfigMap", "configmaps"), Some("kube-system"));
        let coredns = maps.get_opt("coredns").await.context("read ConfigMap kube-system/coredns")?;
        let block = coredns.is_some_and(|found| has_block(&found.data));
        let mut imports = 0;
        for version in VERSIONS {
            let api = self.api(&resource(version, "ServiceImport", "serviceimports"), None);
            match api.list(&ListParams::default().labels(MADE)).await {
                Ok(found) => imports = found.items.len(),
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                Err(error) => return Err(error).context("list ServiceImports"),
            }
            break;
        }
        Ok(said(block, imports))
    }
}

fn has_block(config: &Value) -> bool {
    config["data"]["Corefile"].as_str().is_some_and(|text| text.contains(BLOCK))
}

fn said(block: bool, imports: usize) -> Vec<String> {
    let mut all = Vec::new();
    if block {
        all.push(format!(
            "in the Corefile, the lines from `{BLOCK}` to `# tombolo: end`, which forward names to nobody now: kubectl -n kube-system edit \
             configmap coredns"
        ));
    }
    if imports > 0 {
        all.push(format!(
            "{imports} ServiceImports, with their EndpointSlices: kubectl delete serviceimports.multicluster.x-k8s.io --all-namespaces \
             --selector {MADE}"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_is_said_with_how_it_goes() {
        assert_eq!(said(false, 0), Vec::<String>::new());
        let all = said(true, 3);
        assert!(
            all[0].contains("edit configmap coredns") && all[1].starts_with("3 ServiceImports"),
            "{all:?}"
        );
        let config = |text: &str| json!({ "data": { "Corefile": text } });
        assert!(has_block(&config(".:53 {\n}\n\n# tombolo: begin. Made by\n# tombolo: end\n")));
        assert!(!has_block(&config(".:53 {\n}\n")) && !has_block(&json!({})));
    }
}
