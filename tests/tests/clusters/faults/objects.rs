//! What the agent made is deleted or edited by hand: it is mended, and what others add stays.

use super::exports;
use crate::{
    lab::Cluster,
    onboard::{SHOP, who},
    pair::Pair,
    world::SOON,
};
use serde_json::json;
use tombolo_testkit::wait::{until, until_ok};

const OURS: &str = "tombolo-system";
const WEBHOOK: &str = "mutatingwebhookconfiguration/tombolo";

/// What kubectl says of a field.
async fn field(cluster: &Cluster, namespace: &str, object: &str, path: &str) -> Result<String, String> {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["-n", namespace, "get", object, "-o", &path]).await
}

/// Objects of these kinds, of which the names have this part.
async fn named(cluster: &Cluster, namespace: &str, kinds: &str, part: &str) -> Vec<String> {
    let names = cluster.kubectl(&["-n", namespace, "get", kinds, "-o", "name"]).await.expect("objects");
    let names: Vec<String> = names.lines().filter(|name| name.contains(part)).map(str::to_owned).collect();
    assert!(!names.is_empty(), "no {part} among the {kinds} of {namespace}");
    names
}

/// It is deleted, and comes back as another one.
async fn deleted(cluster: &Cluster, namespace: &str, object: &str) {
    let uid = field(cluster, namespace, object, ".metadata.uid").await.expect("it is there");
    let delete = ["-n", namespace, "delete", object, "--wait=false"];
    cluster.kubectl(&delete).await.expect("deleted");
    let now = || field(cluster, namespace, object, ".metadata.uid");
    let new = |now: &Result<String, String>| now.as_ref().is_ok_and(|now| *now != uid);
    let _ = until(&format!("{object} is back"), SOON, now, new).await;
}

/// It is edited where it counts, and goes back.
async fn edited(cluster: &Cluster, namespace: &str, object: &str, path: &str, [kind, patch]: [&str; 2]) {
    let before = field(cluster, namespace, object, path).await.expect("a value");
    let edit = ["-n", namespace, "patch", object, "--type", kind, "-p", patch];
    let said = cluster.kubectl(&edit).await.expect("edited");
    assert!(!said.contains("no change"), "{object}: {said}");
    let now = || field(cluster, namespace, object, path);
    let _ = until(&format!("{object} is as it was"), SOON, now, |now| *now == Ok(before.clone())).await;
}

#[tokio::test]
async fn objects_are_mended() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    for cluster in [one, other] {
        exports::known(cluster, &["v1beta1"]).await;
    }
    exports::export(other, "v1beta1", "catalog").await;
    let imported = || one.kubectl(&["-n", SHOP, "get", exports::IMPORTS, "catalog"]);
    until_ok("it is imported", SOON, imported).await;
    let asked = || field(one, "", WEBHOOK, ".webhooks[*].name");
    let _ = until("the API server asks the agents", SOON, asked, |names| names != &Ok(String::new())).await;

    let import = format!("{}/catalog", exports::IMPORTS);
    let service = named(one, OURS, "services", "/g-catalog").await.swap_remove(0);
    let slice = named(one, OURS, "endpointslices", "/g-catalog").await.swap_remove(0);
    let import_slices = ["-n", SHOP, "get", "endpointslices", "-l"];
    let label = "multicluster.kubernetes.io/source-cluster";
    let of_import = || async {
        let names = one.kubectl(&[&import_slices[..], &[label, "-o", "name"]].concat()).await?;
        names.lines().next().map(str::to_owned).ok_or_else(|| "none".to_owned())
    };
    let of_import = until_ok("a slice of the import", SOON, of_import).await;
    for object in [
        "deploy/tombolo-egress",
        "deploy/tombolo-ingress",
        "pdb/tombolo-egress",
        "service/tombolo-ingress",
        &service,
        &slice,
    ] {
        deleted(one, OURS, object).await;
    }
    deleted(one, SHOP, &import).await;
    deleted(one, SHOP, &of_import).await;
    deleted(one, "", WEBHOOK).await;

    let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"gateway","image":"localhost/nothing:dev"}]}}}}"#;
    let target = r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":1}]"#;
    let address = r#"[{"op":"replace","path":"/endpoints/0/addresses/0","value":"192.0.2.1"}]"#;
    let nowhere = r#"[{"op":"replace","path":"/webhooks/0/clientConfig/service/path","value":"/nowhere"}]"#;
    let replicas = r#"{"spec":{"replicas":0}}"#;
    for (object, path, patch) in [
        ("deploy/tombolo-egress", ".spec.template.spec.containers[0].image", ["strategic", image]),
        ("deploy/tombolo-ingress", ".spec.replicas", ["merge", replicas]),
        ("pdb/tombolo-ingress", ".spec.maxUnavailable", ["merge", r#"{"spec":{"maxUnavailable":2}}"#]),
        (
            "deploy/tombolo-egress",
            ".metadata.labels",
            ["merge", r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}"#],
        ),
        ("service/tombolo-ingress", ".spec.selector", ["merge", r#"{"spec":{"selector":{"x":"y"}}}"#]),
        (&service, ".spec.ports[0].targetPort", ["json", target]),
        (&slice, ".endpoints[*].addresses[*]", ["json", address]),
    ] {
        edited(one, OURS, object, path, patch).await;
    }
    let ports = r#"[{"op":"replace","path":"/spec/ports/0/port","value":1}]"#;
    edited(one, SHOP, &import, ".spec.ports[0].port", ["json", ports]).await;
    edited(one, "", WEBHOOK, ".webhooks[0].clientConfig.service.path", ["json", nowhere]).await;

    // What others add stays, while the rest of the object is mended.
    let mine = ["-n", OURS, "annotate", "pdb/tombolo-egress", "example.com/mine=yes"];
    one.kubectl(&mine).await.expect("annotated");
    let more = ["merge", r#"{"spec":{"maxUnavailable":2}}"#];
    edited(one, OURS, "pdb/tombolo-egress", ".spec.maxUnavailable", more).await;
    let kept = field(one, OURS, "pdb/tombolo-egress", r".metadata.annotations.example\.com/mine").await;
    assert_eq!(kept.as_deref(), Ok("yes"));

    the_corefile_is_mended(one).await;
    assert_eq!(until_ok("calls are answered", SOON, || who(one)).await, other.name);
    for cluster in [one, other] {
        exports::forgotten(cluster).await;
    }
    pair.park().await;
}

/// Our block comes back, and what somebody wrote outside of it stays.
async fn the_corefile_is_mended(cluster: &Cluster) {
    let system = "kube-system";
    let (map, path) = ("configmap/coredns", ".data.Corefile");
    let before = field(cluster, system, map, path).await.expect("a Corefile");
    assert!(before.contains("acme.example.com"), "{before}");
    let without = ".:53 {\n    errors\n    ready\n    health\n    kubernetes cluster.local\n    forward . /etc/resolv.conf\n}\n";
    let put = async |corefile: &str| {
        let patch = json!({ "data": { "Corefile": corefile } }).to_string();
        cluster.kubectl(&["-n", system, "patch", map, "-p", &patch]).await.expect("edited");
    };
    put(without).await;
    let now = || field(cluster, system, map, path);
    let whole = |now: &Result<String, String>| now.as_ref().is_ok_and(|now| now.contains("acme.example.com"));
    let now = until("the Corefile has the domain", SOON, now, whole).await.expect("a Corefile");
    assert!(now.starts_with(without), "what was edited outside of our block stays: {now}");
    put(&before).await;
}
