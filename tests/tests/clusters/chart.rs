//! The Helm charts in a real cluster: a controller with its own database on a volume, an agent that joins it, a controller's pod that is
//! replaced, and what is left when both releases are gone.

use crate::{
    lab::{self, Cluster, Lab},
    world::{SOON, said},
};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use tombolo_testkit::{process::binary, wait::until_ok};

/// The namespace of the controller.
const CONTROL: &str = "tombolo-control";
const DEPLOYMENT: &str = "deployment/tombolo-controller";
/// The controller's port on the nodes.
const PORT: &str = "30843";

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a checkout")
}

/// A person with helm, kubectl and the command line.
struct Person<'a> {
    cluster: &'a Cluster,
    home: tempfile::TempDir,
}

impl Person<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A line of a shell.
    async fn run(&self, line: &str, input: &str) -> Result<String, String> {
        let programs = binary("tombolo").parent().expect("a folder").to_owned();
        let tools = lab::programs();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", line]).current_dir(self.home.path());
        command.env("PATH", format!("{}:{}:{path}", programs.display(), tools.display()));
        command.env("KUBECONFIG", &self.cluster.kubeconfig).env("TOMBOLO_CONFIG", self.path("config.yaml"));
        for home in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.home.path());
        }
        said(command, input).await.map_err(|error| format!("{line}: {error}"))
    }

    /// Installs a chart.
    async fn install(&self, chart: &str, namespace: &str, mut values: Value) {
        // those of the clusters
        values["image"] = json!({ "tag": "dev", "pullPolicy": "Never" });
        let folder = checkout().join("deploy/chart").join(chart);
        let line = format!(
            "helm install {chart} {} --namespace {namespace} --create-namespace --values -",
            folder.display()
        );
        self.run(&line, &values.to_string()).await.expect("installed");
    }

    /// The lines for a shell in what helm says about a release, from the one that begins so to the next empty one.
    async fn noted(&self, release: &str, namespace: &str, start: &str) -> String {
        let notes = self.run(&format!("helm get notes {release} -n {namespace}"), "").await.expect("notes");
        let lines = notes.lines().map(str::trim).skip_while(|line| !line.starts_with(start));
        let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        assert!(!lines.is_empty(), "no {start} in {notes}");
        lines.join("\n")
    }
}

/// What is in the cluster that a chart could have made.
async fn objects(cluster: &Cluster) -> String {
    let kinds = "namespaces,clusterroles,clusterrolebindings,mutatingwebhookconfigurations";
    let all = cluster.kubectl(&["get", kinds, "-o", "name"]).await.expect("objects");
    let system = ["-n", "kube-system", "get", "roles,rolebindings,configmaps", "-o", "name"];
    all + &cluster.kubectl(&system).await.expect("objects")
}

/// Runs the tools as root on a node, with one of its folders, which is made where it is missing. A pod does it, so it works on any cluster.
async fn on_node(cluster: &Cluster, node: &str, folder: &str, at: &str, args: &[&str]) {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "chart-disk", "namespace": "default" },
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "securityContext": { "runAsUser": 0 },
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never",
                             "args": args, "volumeMounts": [{ "name": "disk", "mountPath": at }] }],
            "volumes": [{ "name": "disk", "hostPath": { "path": folder, "type": "DirectoryOrCreate" } }],
        } });
    cluster.apply(&pod.to_string()).await.expect("a pod");
    let pod = ["-n", "default", "pod/chart-disk", "--timeout=120s"];
    let done = ["wait", "--for=jsonpath={.status.phase}=Succeeded"];
    if let Err(error) = cluster.kubectl(&[&done[..], &pod].concat()).await {
        let described = cluster.kubectl(&["-n", "default", "describe", "pod/chart-disk"]).await;
        let logs = cluster.kubectl(&["-n", "default", "logs", "pod/chart-disk"]).await;
        panic!("{folder}: {error}\n{described:?}\n{logs:?}");
    }
    cluster.kubectl(&[&["delete"], &pod[..]].concat()).await.expect("it goes");
}

async fn ready(cluster: &Cluster, namespace: &str, what: &str) {
    let wait = ["-n", namespace, "rollout", "status", what, "--timeout=240s"];
    if let Err(error) = cluster.kubectl(&wait).await {
        let pods = cluster.kubectl(&["-n", namespace, "describe", "pods"]).await;
        let logs = cluster.kubectl(&["-n", namespace, "logs", what, "--tail=20"]).await;
        panic!("{error}\n{pods:?}\n{logs:?}");
    }
}

#[tokio::test]
async fn a_controller_and_an_agent_by_helm() {
    let lab = Lab::up(1).await;
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    let home = tempfile::Builder::new().prefix("tombolo-chart-").tempdir().expect("a folder");
    let person = Person { cluster: one, home };
    let before = objects(one).await;

    // a disk of the node, as a cluster without a storage provider has it
    let node =
        one.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).await.expect("a node");
    on_node(one, &node, "/var/lib/kubelet/tombolo-chart", "/disk", &["cat", "/dev/null"]).await;
    let on = json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }]);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "tombolo-chart" },
        "spec": {
            "capacity": { "storage": "8Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "chart",
            "persistentVolumeReclaimPolicy": "Retain", "local": { "path": "/var/lib/kubelet/tombolo-chart" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": on }] } },
        },
    });
    one.apply(&volume.to_string()).await.expect("a volume");
    let server = format!("https://{}:{PORT}", one.node_address(1).await.expect("an address"));
    let values = json!({
        "publicUrl": server, "persistence": { "storageClass": "chart" },
        "service": { "type": "NodePort", "nodePort": PORT.parse::<u16>().expect("a port") },
        "networkPolicy": { "enabled": true },
    });
    person.install("tombolo-controller", CONTROL, values).await;
    ready(one, CONTROL, DEPLOYMENT).await;

    // as the notes say
    let token = person.noted("tombolo-controller", CONTROL, "(umask 077").await;
    person.run(&token, "").await.expect("the owner token");
    let mode = std::fs::metadata(person.path("owner-token")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read the owner token");
    let fingerprint = person.noted("tombolo-controller", CONTROL, "kubectl -n tombolo-control exec").await;
    let fingerprint = person.run(&fingerprint, "").await.expect("a fingerprint").trim().to_owned();
    let log_in = person.noted("tombolo-controller", CONTROL, "tombolo login").await;
    let log_in = log_in.replace("sha256:…", &fingerprint);
    person.run(&log_in, "").await.expect("logged in as the owner");
    person.run("tombolo org create acme --admin-token-file admin-token", "").await.expect("an organization");
    person.run(&log_in.replace("owner-token", "admin-token"), "").await.expect("logged in");
    person.run("tombolo cluster create east --join-token-file token", "").await.expect("a cluster");

    let values = json!({ "cluster": "east", "controller": { "url": server, "caFingerprint": fingerprint } });
    person.install("tombolo-agent", "tombolo-system", values).await;
    let secret =
        person.noted("tombolo-agent", "tombolo-system", "kubectl -n tombolo-system create secret").await;
    let token = std::fs::read_to_string(person.path("token")).expect("a token");
    person.run(&secret, &token).await.expect("the token is there");
    ready(one, "tombolo-system", "deployment/tombolo-agent").await;
    let connected = async || {
        let shown = person.run("tombolo cluster show east -o json", "").await?;
        let shown: Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
        if shown["state"] == "connected" { Ok(()) } else { Err(format!("{}", shown["state"])) }
    };
    until_ok("the agent connects", SOON, connected).await;

    // the next pod finds the database and the key file as they were
    one.kubectl(&["-n", CONTROL, "delete", "pod", "-l", "app.kubernetes.io/name=tombolo-controller"])
        .await
        .expect("deleted");
    ready(one, CONTROL, DEPLOYMENT).await;
    until_ok("the agent is back", SOON, connected).await;
    // and the agent's membership outlives an upgrade of its release
    let folder = checkout().join("deploy/chart/tombolo-agent");
    let upgrade = "helm upgrade tombolo-agent {} -n tombolo-system --reuse-values --set replicas=1";
    person.run(&upgrade.replace("{}", &folder.display().to_string()), "").await.expect("upgraded");
    ready(one, "tombolo-system", "deployment/tombolo-agent").await;
    until_ok("the agent is connected", SOON, connected).await;

    person.run("helm uninstall tombolo-agent -n tombolo-system --wait", "").await.expect("the agent goes");
    person.run(&format!("helm uninstall tombolo-controller -n {CONTROL} --wait"), "").await.expect("it goes");
    let claim = ["-n", CONTROL, "get", "pvc", "tombolo-controller"];
    one.kubectl(&claim).await.expect("what the controller knows stays");
    one.kubectl(&["delete", "namespace", CONTROL, "tombolo-system", "--timeout=120s"])
        .await
        .expect("they go");
    one.kubectl(&["delete", "pv", "tombolo-chart"]).await.expect("the volume goes");
    on_node(one, &node, "/var/lib/kubelet", "/disk", &["remove", "/disk/tombolo-chart"]).await;
    assert_eq!(objects(one).await, before, "the charts left something");
}
