//! What stands between the API server's door and its store: asked by trials, of which nothing comes.

use super::{super::NAMESPACE, Asked, Finding, Verdict, finding, refused};
use crate::kubernetes::apply::{Document, is_policy};
use http::Method;
use serde_json::json;

/// Whether the API server would take the manifest: its schemas, admission plugins, webhooks and policies have a say.
pub(super) async fn look(asked: &Asked<'_>, documents: &[Document]) -> Finding {
    const WHAT: &str = "manifest";
    let there = asked.find(&format!("/api/v1/namespaces/{NAMESPACE}")).await;
    let there = matches!(there, Ok(Some(_)));
    let mut tried = 0;
    for one in documents {
        // what lies in a namespace that is not there yet can't be tried
        let can = one.namespace.as_deref().is_none_or(|namespace| namespace != NAMESPACE || there);
        if !can {
            continue;
        }
        let path = format!("{}?dryRun=All&fieldManager=tombolo&force=true", path(one));
        match asked.send(Method::PATCH, &path, "application/apply-patch+yaml", &one.value).await {
            Ok(_) => tried += 1,
            // an older API server has none, which is said of its version
            Err(kube::Error::Api(status)) if status.code == 404 && is_policy(one) => {}
            Err(error) => {
                let said = format!(
                    "{} {} is refused ({}); see to it with who keeps this cluster's policies",
                    one.kind,
                    one.name,
                    refused(&error)
                );
                return finding(WHAT, Verdict::Missing, said);
            }
        }
    }
    finding(
        WHAT,
        Verdict::Good,
        format!("{tried} of its {} objects were tried, and are taken", documents.len()),
    )
}

fn path(one: &Document) -> String {
    let version = &one.resource.api_version;
    let root =
        if one.resource.group.is_empty() { format!("/api/{version}") } else { format!("/apis/{version}") };
    let within =
        one.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    format!("{root}{within}/{}/{}", one.resource.plural, one.name)
}

/// The policy of the manifest that keeps virtual addresses from others.
const OURS: &str = "tombolo-virtual-addresses";

/// Whether Services may have external IPs.
pub(super) async fn external_ips(asked: &Asked<'_>) -> Finding {
    const WHAT: &str = "externalIPs";
    let mut spec = json!({ "ports": [{ "port": 1 }] });
    // whoever takes no Service at all says nothing of external IPs
    if let Err(error) = asked.try_service(&spec).await {
        let said = format!("they can't be tried, for no Service is taken ({})", refused(&error));
        return finding(WHAT, Verdict::Less, said);
    }
    spec["externalIPs"] = json!(["240.0.0.1"]);
    match asked.try_service(&spec).await {
        Ok(_) => finding(WHAT, Verdict::Good, "allowed"),
        Err(error) if refused(&error).contains(OURS) => {
            finding(WHAT, Verdict::Good, "of virtual addresses the agent alone may have some")
        }
        Err(error) => {
            let said = format!(
                "refused ({}); pods without a proxy reach global names all the same, by ClusterIPs. For one address in all capture \
                 modes, let the policy that refuses it allow 240.0.0.0/4 in {NAMESPACE}. DenyServiceExternalIPs knows no exceptions: do not \
                 take it off unless another policy keeps externalIPs from everybody else, for whoever has one can take the connections to \
                 any address (CVE-2020-8554); ours keeps the virtual ones alone. Nothing has to be done",
                refused(&error)
            );
            finding(WHAT, Verdict::Less, said)
        }
    }
}
