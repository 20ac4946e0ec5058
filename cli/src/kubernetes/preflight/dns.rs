//! What resolves names in the cluster, and whether the agent can add to it.

use super::{Asked, Finding, Verdict, finding};
use serde_json::Value;
use tombolo_model::corefile::keeper;

const WHAT: &str = "cluster DNS";
const SYSTEM: &str = "/api/v1/namespaces/kube-system";

/// What there is of names' resolution.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The `ConfigMap` coredns.
    coredns: Option<Value>,
    /// Whether there is a Deployment of it.
    deployed: bool,
    /// The `ConfigMap` of kube-dns.
    kube_dns: bool,
    /// OpenShift's operator of DNS.
    openshift: bool,
    /// The Corefile of `NodeLocal DNSCache`.
    node_local: Option<Value>,
}

pub(super) async fn look(asked: &Asked<'_>) -> Vec<Finding> {
    let find = async |path: &str| asked.find(path).await.ok().flatten();
    let found = Found {
        coredns: find(&format!("{SYSTEM}/configmaps/coredns")).await,
        deployed: find("/apis/apps/v1/namespaces/kube-system/deployments/coredns").await.is_some(),
        kube_dns: find("/apis/apps/v1/namespaces/kube-system/deployments/kube-dns").await.is_some(),
        openshift: find("/apis/operator.openshift.io/v1/dnses/default").await.is_some(),
        node_local: find(&format!("{SYSTEM}/configmaps/node-local-dns")).await,
    };
    said(&found)
}

fn said(found: &Found) -> Vec<Finding> {
    let mut all = vec![cluster(found)];
    all.extend(found.node_local.as_ref().map(node_local));
    all
}

fn cluster(found: &Found) -> Finding {
    let corefile = found.coredns.as_ref().filter(|config| config["data"]["Corefile"].is_string());
    if let Some(config) = corefile {
        if let Some(keeper) = keeper(config) {
            let said = format!(
                "CoreDNS, whose ConfigMap {keeper} writes again and again. Put a server block for each domain, `DOMAIN:53 {{ forward . \
                 IP }}` with the ClusterIP of tombolo-system/tombolo-dns, into the ConfigMap kube-system/coredns-custom (a key that ends \
                 in .server); `cluster install` says which domains, and that IP"
            );
            return finding(WHAT, Verdict::Less, said);
        }
        let said = if found.deployed {
            "CoreDNS"
        } else {
            "CoreDNS, in no Deployment: it reads its file once a minute"
        };
        return finding(WHAT, Verdict::Good, said);
    }
    let said = if found.openshift {
        "OpenShift's; add a `servers` entry for each domain to the DNS operator's object `default`, with the ClusterIP of \
         tombolo-system/tombolo-dns as upstream; `cluster install` says which domains, and that IP"
    } else if found.kube_dns {
        "kube-dns; put `stubDomains` for each domain into the ConfigMap kube-system/kube-dns, with the ClusterIP of \
         tombolo-system/tombolo-dns; `cluster install` says which domains, and that IP"
    } else {
        "no ConfigMap kube-system/coredns with a Corefile; `cluster install` will say what to add to this cluster's DNS"
    };
    finding(WHAT, Verdict::Less, said)
}

/// Pods ask the cache of their node, which passes the cluster's DNS by for all names outside of the cluster's domain.
fn node_local(config: &Value) -> Finding {
    const WHAT: &str = "NodeLocal DNSCache";
    let corefile = config["data"]["Corefile"].as_str().unwrap_or_default();
    if corefile.contains("clusterset.local") {
        return finding(
            WHAT,
            Verdict::Good,
            "its Corefile knows clusterset.local; add each domain of a global namespace, too",
        );
    }
    let said = "there: names outside of the cluster's domain pass CoreDNS by. Add a server block for clusterset.local and for each \
                domain of a global namespace to the Corefile in the ConfigMap kube-system/node-local-dns, as \
                `clusterset.local:53 { errors; cache 5; bind 169.254.20.10; forward . IP { force_tcp } }` with the binds of its other \
                blocks and the ClusterIP of tombolo-system/tombolo-dns, and restart the DaemonSet node-local-dns";
    finding(WHAT, Verdict::Less, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_resolves_names() {
        let coredns = Some(json!({ "data": { "Corefile": ".:53 {\n}\n" } }));
        let plain = Found { coredns: coredns.clone(), deployed: true, ..Found::default() };
        assert_eq!(said(&plain), [finding(WHAT, Verdict::Good, "CoreDNS")]);
        assert!(said(&Found { deployed: false, ..plain.clone() })[0].said.contains("once a minute"));
        let mut kept = plain.clone();
        kept.coredns.as_mut().unwrap()["metadata"]["labels"]["addonmanager.kubernetes.io/mode"] =
            json!("Reconcile");
        let found = &said(&kept)[0];
        assert!(found.verdict == Verdict::Less && found.said.contains("coredns-custom"), "{found:?}");
        for (found, part) in [
            (Found { openshift: true, ..Found::default() }, "OpenShift"),
            (Found { kube_dns: true, ..Found::default() }, "stubDomains"),
            (Found::default(), "no ConfigMap"),
        ] {
            let finding = &said(&found)[0];
            assert!(finding.verdict == Verdict::Less && finding.said.contains(part), "{finding:?}");
        }
    }

    #[test]
    fn a_cache_on_each_node_has_to_be_told() {
        let of = |corefile: &str| {
            let node_local = Some(json!({ "data": { "Corefile": corefile } }));
            said(&Found { node_local, ..Found::default() })[1].clone()
        };
        let found = of("cluster.local:53 {\n}\n");
        assert!(found.verdict == Verdict::Less && found.said.contains("node-local-dns"), "{found:?}");
        assert_eq!(of("clusterset.local:53 {\n}\n").verdict, Verdict::Good);
        assert_eq!(said(&Found::default()).len(), 1, "it is only spoken of where it is");
    }
}
