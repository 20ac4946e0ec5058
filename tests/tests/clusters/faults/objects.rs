//! What the agent made is deleted or edited by hand: it is mended, and what others add stays.

use crate::{lab::Cluster, onboard::who, pair::Pair, world::SOON};
use tombolo_testkit::wait::{until, until_ok};

/// What kubectl says of a field.
async fn field(cluster: &Cluster, namespace: &str, object: &str, path: &str) -> Result<String, String> {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["-n", namespace, "get", object, "-o", &path]).await
}

async fn kubectl(cluster: &Cluster, line: &str) {
    let args: Vec<&str> = line.split(' ').collect();
    cluster.kubectl(&args).await.expect("done by hand");
}

const OURS: &str = "tombolo-system";

#[tokio::test]
async fn objects_are_mended() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    let first = format!("-n {OURS} get services,endpointslices -o name");
    let names = one.kubectl(&first.split(' ').collect::<Vec<_>>()).await.expect("objects");
    let names: Vec<String> = names.lines().filter(|name| name.contains("/g-")).map(str::to_owned).collect();
    let all =
        ["deploy/tombolo-egress", "deploy/tombolo-ingress", "pdb/tombolo-egress", "service/tombolo-ingress"];
    let all: Vec<String> = all.into_iter().map(str::to_owned).chain(names).collect();
    assert!(all.iter().any(|name| name.starts_with("service/g-")), "a Service of the name: {all:?}");
    assert!(all.iter().any(|name| name.starts_with("endpointslice")), "and its endpoints: {all:?}");

    // Each is deleted, and comes back as another one.
    for object in &all {
        let uid = field(one, OURS, object, ".metadata.uid").await.expect("it is there");
        kubectl(one, &format!("-n {OURS} delete {object} --wait=false")).await;
        let new = || field(one, OURS, object, ".metadata.uid");
        let _ =
            until(&format!("{object} is back"), SOON, new, |now| now.as_ref().is_ok_and(|now| *now != uid))
                .await;
    }
    // Each is edited where it counts, and goes back.
    let service = all.iter().find(|name| name.starts_with("service/g-")).expect("a Service");
    let port = r#"[{"op":"replace","path":"/spec/ports/0/targetPort","value":1}]"#;
    for (object, path, kind, patch) in [
        (
            "deploy/tombolo-egress",
            ".spec.template.spec.containers[0].image",
            "strategic",
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"gateway","image":"localhost/nothing:dev"}]}}}}"#,
        ),
        ("pdb/tombolo-ingress", ".spec.maxUnavailable", "merge", r#"{"spec":{"maxUnavailable":2}}"#),
        (service.as_str(), ".spec.ports[0].targetPort", "json", port),
    ] {
        let before = field(one, OURS, object, path).await.expect("a value");
        one.kubectl(&["-n", OURS, "patch", object, "--type", kind, "-p", patch]).await.expect("edited");
        let now = || field(one, OURS, object, path);
        let _ = until(&format!("{object} is as it was"), SOON, now, |now| *now == Ok(before.clone())).await;
    }
    // What others add stays.
    kubectl(one, &format!("-n {OURS} annotate deploy/tombolo-egress example.com/mine=yes")).await;
    // The change of the Corefile, too.
    let corefile =
        field(one, "kube-system", "configmap/coredns", ".data.Corefile").await.expect("a Corefile");
    assert!(corefile.contains("acme.example.com"), "{corefile}");
    let without = r#"{"data":{"Corefile":".:53 {\n    errors\n    ready\n    health\n    kubernetes cluster.local\n    forward . /etc/resolv.conf\n}\n"}}"#;
    one.kubectl(&["-n", "kube-system", "patch", "configmap", "coredns", "-p", without])
        .await
        .expect("edited");
    let now = || field(one, "kube-system", "configmap/coredns", ".data.Corefile");
    let whole = |now: &Result<String, String>| now.as_ref().is_ok_and(|now| now.contains("acme.example.com"));
    let _ = until("the Corefile has the domain", SOON, now, whole).await;
    let mine = field(one, OURS, "deploy/tombolo-egress", r".metadata.annotations.example\.com/mine").await;
    assert_eq!(mine.as_deref(), Ok("yes"));
    assert_eq!(until_ok("calls are answered", SOON, || who(one)).await, other.name);
    // As it was before the test, for those that come after it.
    let edited = field(one, "kube-system", "configmap/coredns", ".data.Corefile").await.expect("a Corefile");
    assert!(edited != corefile, "what was edited outside of our block stays: {edited}");
    let back = serde_json::json!({ "data": { "Corefile": corefile } }).to_string();
    one.kubectl(&["-n", "kube-system", "patch", "configmap", "coredns", "-p", &back])
        .await
        .expect("restored");
    pair.down().await;
}
