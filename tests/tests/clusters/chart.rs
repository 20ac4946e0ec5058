//! The Helm charts in real clusters: a controller with its own database on a volume, agents in two clusters that join it, a controller's pod that
//! is replaced, gateways that the agents install, a call from the one cluster to the other, and what is left when all releases are gone.

use crate::{
    everything::{assert_as_before, everything},
    lab::{Cluster, Lab},
    onboard::{SHOP, run, who},
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
/// The namespace of agents.
const AGENT: &str = "tombolo-system";
const DEPLOYMENT: &str = "deployment/tombolo-controller";
/// The controller's port on the nodes.
const PORT: &str = "30843";

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a checkout")
}

/// A person with helm, kubectl and the command line.
pub(crate) struct Person<'a> {
    pub(crate) cluster: &'a Cluster,
    /// Its folder, the same whatever the cluster.
    pub(crate) home: &'a Path,
}

impl Person<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// A line of a shell.
    pub(crate) async fn run(&self, line: &str, input: &str) -> Result<String, String> {
        let programs = binary("tombolo").parent().expect("a folder").to_owned();
        let tools = checkout().join(".run/kubernetes/bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", line]).current_dir(self.home);
        command.env("PATH", format!("{}:{}:{path}", programs.display(), tools.display()));
        command.env("KUBECONFIG", &self.cluster.kubeconfig).env("TOMBOLO_CONFIG", self.path("config.yaml"));
        for home in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.home);
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

    /// The cluster joins by the agent's chart, as its notes say.
    async fn joins(&self, name: &str, controller: &Value) {
        let file = format!("{name}-token");
        let create = format!("tombolo cluster create {name} --join-token-file {file}");
        self.run(&create, "").await.expect("a cluster");
        let values = json!({ "cluster": name, "controller": controller });
        self.install("tombolo-agent", AGENT, values).await;
        let secret = self.noted("tombolo-agent", AGENT, "kubectl -n tombolo-system create secret").await;
        let token = std::fs::read_to_string(self.path(&file)).expect("a token");
        self.run(&secret, &token).await.expect("the token is there");
        ready(self.cluster, AGENT, "deployment/tombolo-agent").await;
        self.connected(name).await;
    }

    async fn connected(&self, name: &str) {
        let show = format!("tombolo cluster show {name} -o json");
        let connected = async || {
            let shown: Value =
                serde_json::from_str(&self.run(&show, "").await?).map_err(|error| error.to_string())?;
            if shown["state"] == "connected" { Ok(()) } else { Err(format!("{}", shown["state"])) }
        };
        until_ok(&format!("the agent of {name} is connected"), SOON, connected).await;
    }

    /// The next command that the agent's notes name: the gateways and all else are there.
    async fn installs(&self, name: &str) {
        let install = self.noted("tombolo-agent", AGENT, "tombolo cluster install").await;
        let said = self.run(&format!("{install} --ingress node-port"), "").await.expect("it is installed");
        for step in ["agent", "egress", "ingress", "address", "dns", "injector"] {
            let done = said.lines().any(|line| line.starts_with(step) && line.contains(" done "));
            assert!(done, "{name}: {step}: {said}");
        }
    }

    /// All that the agent made goes, then the agent.
    async fn leaves(&self, name: &str) {
        self.run(&format!("tombolo cluster uninstall {name} --yes"), "").await.expect("it is taken out");
        self.run(&format!("helm uninstall tombolo-agent -n {AGENT} --wait"), "")
            .await
            .expect("the agent goes");
        for namespace in [AGENT, SHOP] {
            let delete = ["delete", "namespace", namespace, "--timeout=120s"];
            self.cluster.kubectl(&delete).await.expect("it goes");
        }
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

/// Runs the tools as root on a node, with one of its folders, which is made where it is missing. A pod does it, so it works on any cluster.
pub(crate) async fn on_node(cluster: &Cluster, node: &str, folder: &str, at: &str, args: &[&str]) {
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

/// Until it has rolled out.
pub(crate) async fn ready(cluster: &Cluster, namespace: &str, what: &str) {
    let wait = ["-n", namespace, "rollout", "status", what, "--timeout=240s"];
    if let Err(error) = cluster.kubectl(&wait).await {
        let pods = cluster.kubectl(&["-n", namespace, "describe", "pods"]).await;
        let logs = cluster.kubectl(&["-n", namespace, "logs", what, "--tail=20"]).await;
        panic!("{error}\n{pods:?}\n{logs:?}");
    }
}

#[tokio::test]
async fn a_controller_and_agents_by_helm() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let home = tempfile::Builder::new().prefix("tombolo-chart-").tempdir().expect("a folder");
    let [person, beside] = [one, other].map(|cluster| Person { cluster, home: home.path() });
    let before = [everything(one).await, everything(other).await];

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

    let controller = json!({ "url": server, "caFingerprint": fingerprint });
    person.joins("east", &controller).await;
    beside.joins("west", &controller).await;

    // the next pod finds the database and the key file as they were
    one.kubectl(&["-n", CONTROL, "delete", "pod", "-l", "app.kubernetes.io/name=tombolo-controller"])
        .await
        .expect("deleted");
    ready(one, CONTROL, DEPLOYMENT).await;
    person.connected("east").await;
    // and the agent's membership outlives an upgrade of its release
    let folder = checkout().join("deploy/chart/tombolo-agent");
    let upgrade = "helm upgrade tombolo-agent {} -n tombolo-system --reuse-values --set replicas=1";
    person.run(&upgrade.replace("{}", &folder.display().to_string()), "").await.expect("upgraded");
    ready(one, AGENT, "deployment/tombolo-agent").await;
    person.connected("east").await;

    // to the end: gateways, and a call to a name of the other cluster
    let gns = format!("tombolo gns create acme --domain acme.example.com --namespace {SHOP}");
    person.run(&gns, "").await.expect("a global namespace");
    tokio::join!(run(one, 0), run(other, 2));
    tokio::join!(person.installs("east"), beside.installs("west"));
    assert_eq!(until_ok("a call to the other cluster", SOON, || who(one)).await, other.name);

    tokio::join!(person.leaves("east"), beside.leaves("west"));
    person.run(&format!("helm uninstall tombolo-controller -n {CONTROL} --wait"), "").await.expect("it goes");
    let claim = ["-n", CONTROL, "get", "pvc", "tombolo-controller"];
    one.kubectl(&claim).await.expect("what the controller knows stays");
    one.kubectl(&["delete", "namespace", CONTROL, "--timeout=120s"]).await.expect("it goes");
    one.kubectl(&["delete", "pv", "tombolo-chart"]).await.expect("the volume goes");
    on_node(one, &node, "/var/lib/kubelet", "/disk", &["remove", "/disk/tombolo-chart"]).await;
    for (cluster, before) in [one, other].into_iter().zip(before) {
        assert_as_before(cluster, &before).await;
    }
}
