//! The controller by its plain manifest (`deploy/kubernetes/controller.yaml`), as docs/kubernetes.md says under "Without Helm", line by line: it comes
//! up in a cluster with its database on a volume, two clusters join it, one calls the other by name, and nothing is left when all is deleted.

use crate::{
    chart::{Person, on_node, ready},
    everything::{assert_as_before, everything},
    lab::{Cluster, Lab, checkout},
    onboard::{SHOP, run, who},
    world::SOON,
};
use serde_json::{Value, json};
use std::fs;
use tombolo_testkit::wait::until_ok;

const MANIFEST: &str = "deploy/kubernetes/controller.yaml";
const CONTROL: &str = "tombolo-control";
/// The controller's port on the nodes.
const PORT: &str = "30844";
/// A folder of the node, for the volume.
const DISK: &str = "/var/lib/kubelet/tombolo-manifest";

/// The manifest with what it tells its reader to put in: image and version, the name by which agents reach it, and the Service's type.
fn filled(address: &str) -> String {
    let mut text = fs::read_to_string(checkout().join(MANIFEST)).expect("the manifest");
    let server = format!("--public-url=https://{address}:{PORT}");
    for (from, to) in [
        ("localhost/tombolo-controller:0.1.0", "localhost/tombolo-controller:dev"),
        ("--image-version=0.1.0", "--image-version=dev"),
        ("--public-url=https://tombolo-controller.tombolo-control.svc:8443", &server),
        ("--tls-name=tombolo-controller.tombolo-control.svc\n", &format!("--tls-name={address}\n")),
        ("type: ClusterIP", "type: NodePort"),
        ("targetPort: api", &format!("targetPort: api\n      nodePort: {PORT}")),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from} in {MANIFEST}");
        text = text.replace(from, to);
    }
    text
}

/// The lines for a shell that the documentation has for it.
fn documented() -> Vec<String> {
    let text = fs::read_to_string(checkout().join("docs/kubernetes.md")).expect("the documentation");
    let (_, part) = text.split_once("**Without Helm**").expect("a part about it");
    let (_, part) = part.split_once("```sh\n").expect("lines for a shell");
    let (lines, _) = part.split_once("```").expect("their end");
    lines.lines().map(str::to_owned).collect()
}

/// A disk of the node, as a cluster without a storage provider has it.
async fn volume(cluster: &Cluster, node: &str) {
    on_node(cluster, node, DISK, "/disk", &["cat", "/dev/null"]).await;
    let on = json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }]);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "tombolo-manifest" },
        "spec": {
            "capacity": { "storage": "8Gi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "local": { "path": DISK },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": on }] } },
        },
    });
    cluster.apply(&volume.to_string()).await.expect("a volume");
}

/// What the documentation says, word by word but for the controller's address and fingerprint, and what its pods may take longer for here.
async fn as_documented(person: &Person<'_>, server: &str) {
    let mut fingerprint: Option<String> = None;
    for line in documented() {
        let mut line = line.replace("https://tombolo.example.com:8443", server);
        if let Some(fingerprint) = &fingerprint {
            line = line.replace("sha256:…", fingerprint);
        }
        let said = person.run(&line, "").await;
        if said.is_err() && line.contains("rollout status") {
            ready(person.cluster, CONTROL, "deployment/tombolo-controller").await;
        }
        let said = said.expect("it is done");
        if line.contains("ready.json") {
            let said: Value = serde_json::from_str(&said).expect("JSON");
            fingerprint = said["ca_fingerprint"].as_str().map(str::to_owned);
        }
    }
    assert!(fingerprint.is_some_and(|print| print.starts_with("sha256:")), "the lines tell the fingerprint");
}

/// The cluster joins with one command and has all installed with another.
async fn joins(person: &Person<'_>) {
    let (name, file) = (&person.cluster.name, person.cluster.kubeconfig.display());
    let join = format!("tombolo cluster join {name} --kubeconfig {file}");
    person.run(&join, "").await.expect("it joins");
    let install = format!("tombolo cluster install {name} --ingress node-port");
    person.run(&install, "").await.expect("it is installed");
}

async fn leaves(person: &Person<'_>) {
    let (name, file) = (&person.cluster.name, person.cluster.kubeconfig.display());
    let leave = format!("tombolo cluster uninstall {name} --yes --kubeconfig {file}");
    person.run(&leave, "").await.expect("it is taken out");
    let delete = ["delete", "namespace", SHOP, "--timeout=120s"];
    person.cluster.kubectl(&delete).await.expect("the application goes");
}

#[tokio::test]
async fn a_controller_by_its_manifest() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let home = tempfile::Builder::new().prefix("tombolo-manifest-").tempdir().expect("a folder");
    let [person, beside] = [one, other].map(|cluster| Person { cluster, home: home.path() });
    let before = [everything(one).await, everything(other).await];
    let node =
        one.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).await.expect("a node");
    volume(one, &node).await;

    let address = one.node_address(1).await.expect("an address");
    let file = person.path(MANIFEST);
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(&file, filled(&address)).expect("written");
    as_documented(&person, &format!("https://{address}:{PORT}")).await;

    let gns = format!("tombolo gns create acme --domain acme.example.com --namespace {SHOP}");
    person.run(&gns, "").await.expect("a global namespace");
    tokio::join!(run(one, 0), run(other, 1), joins(&person), joins(&beside));
    assert_eq!(until_ok("a call to the other cluster", SOON, || who(one)).await, other.name);

    tokio::join!(leaves(&person), leaves(&beside));
    let delete = format!("kubectl delete -f {MANIFEST} --timeout=180s");
    person.run(&delete, "").await.expect("the controller goes, and its volume's claim");
    one.kubectl(&["delete", "pv", "tombolo-manifest"]).await.expect("the volume goes");
    on_node(one, &node, "/var/lib/kubelet", "/disk", &["remove", "/disk/tombolo-manifest"]).await;
    for (cluster, before) in [one, other].into_iter().zip(before) {
        assert_as_before(cluster, &before).await;
    }
}
