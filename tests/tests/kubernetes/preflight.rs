//! `tombolo cluster join --check` at a true API server: what is missing there is said, with how to get it, and nothing is changed.

use crate::{
    make, make_wide, mcs, meta,
    server::{ADMIN, AGENT, Server, Store},
    world::{Controller, SOON},
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{ConfigMap, Namespace, Node, Service},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use tombolo_testkit::{process::binary, wait::until};

/// What was said of each thing: the mark, and the words.
type Said = BTreeMap<String, (String, String)>;

struct Looking<'a> {
    controller: &'a Controller,
    server: &'a Server,
    home: &'a Path,
}

impl Looking<'_> {
    async fn look(&self, user: &str, options: &[&str]) -> Said {
        let mut command = tokio::process::Command::new(binary("tombolo"));
        command.args(self.controller.credentials(self.home)).env("TOMBOLO_CONFIG", self.home.join("config"));
        command.args(["cluster", "join", "cluster-1", "--check", "--kubeconfig"]);
        let done = command.arg(self.server.kubeconfig(user)).args(options).output().await.expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let line = |line: &str| {
            let (mark, rest) = line.split_at_checked(8)?;
            let (what, said) = rest.split_once(": ")?;
            Some((what.to_owned(), (mark.trim().to_owned(), said.to_owned())))
        };
        let said: Said = out.lines().filter_map(line).collect();
        assert!(said.len() > 5, "{out}{err}");
        let missing = said.values().filter(|(mark, _)| mark == "missing").count();
        assert_eq!(done.status.success(), missing == 0, "{out}{err}");
        if missing > 0 {
            assert!(err.contains("nothing was changed"), "{err}");
        }
        said
    }
}

#[track_caller]
fn is(said: &Said, what: &str, mark: &str, part: &str) {
    let found = said.get(what).unwrap_or_else(|| panic!("nothing is said of {what}: {said:#?}"));
    assert!(found.0 == mark && found.1.contains(part), "{what}: {found:?} is not {mark} {part}");
}

/// As a kubelet would say it.
async fn make_node(client: &Client, name: &str, architecture: &str) {
    make_wide::<Node>(client, json!({"metadata": {"name": name}})).await;
    let status = json!({"status": {
        "nodeInfo": {
            "architecture": architecture, "operatingSystem": "linux", "bootID": "", "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
        },
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.7"}],
        "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
    }});
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    // whoever makes a node taints it until it is ready
    let spec = json!({"spec": {"taints": null}});
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(spec)).await.expect("no taint");
}

async fn namespaces(client: &Client) -> Vec<String> {
    let all = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.expect("a list");
    all.items.into_iter().filter_map(|one| one.metadata.name).collect()
}

/// The agent's user may write these kinds, and what else the rules say.
async fn let_user(client: &Client, name: &str, rules: serde_json::Value) {
    make_wide::<ClusterRole>(client, json!({"metadata": {"name": name}, "rules": rules})).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    let binding = json!({"metadata": {"name": name}, "subjects": group, "roleRef": of});
    make_wide::<ClusterRoleBinding>(client, binding).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let plugins = ["--enable-admission-plugins=DenyServiceExternalIPs"];
    let server = store.server_with(&plugins).await;
    let client = server.client(ADMIN).await;
    let controller = Controller::start().await;
    let looking = Looking { controller: &controller, server: &server, home: home.path() };
    let before = namespaces(&client).await;

    // a cluster without anything, and its administrator
    let said = looking.look(ADMIN, &[]).await;
    for what in
        ["API server", "native sidecars", "API versions", "permissions", "agent's rights", "taking out"]
    {
        is(&said, what, "ok", "");
    }
    is(&said, "controller", "missing", "127.0.0.1");
    is(&said, "images", "less", "localhost/tombolo-agent:");
    is(&said, "nodes", "less", "there is none yet");
    is(&said, "ingress", "less", "load-balancer: nobody is seen here");
    is(&said, "cluster DNS", "less", "no ConfigMap");
    is(&said, "manifest", "ok", "objects were tried");
    is(&said, "externalIPs", "less", "refused");
    is(&said, "pod security", "ok", "is made");
    is(&said, "priority", "ok", "is taken");
    is(&said, "sidecar", "ok", "is taken");
    is(&said, "Multi-Cluster Services API", "ok", "not there");
    is(&said, "webhooks", "ok", "none");
    assert_eq!(namespaces(&client).await, before, "a look makes nothing");

    // nodes, and ways to them
    for (name, architecture) in [("n1", "amd64"), ("n2", "arm64"), ("n3", "riscv64")] {
        make_node(&client, name, architecture).await;
    }
    let said = looking.look(ADMIN, &["--ingress", "node-port"]).await;
    is(&said, "nodes", "less", "n3 (linux/riscv64)");
    is(&said, "room", "ok", "6 pods");
    is(&said, "ingress", "ok", "10.0.0.7");
    is(&looking.look(ADMIN, &["--ingress", "node-port=80"]).await, "ingress", "less", "30000 to 32767");
    let ports = json!([{"port": 80, "nodePort": 31_443}]);
    let taken = json!({"metadata": meta("default", "web"), "spec": {"type": "NodePort", "ports": ports}});
    make::<Service>(&client, taken).await;
    is(
        &looking.look(ADMIN, &["--ingress", "node-port=31443"]).await,
        "ingress",
        "missing",
        "already allocated",
    );
    is(&looking.look(ADMIN, &["--ingress", "host-network"]).await, "ingress", "ok", "free on 2 nodes");

    // what others have put there
    let corefile =
        |name: &str| json!({"metadata": meta("kube-system", name), "data": {"Corefile": ".:53 {\n}\n"}});
    make::<ConfigMap>(&client, corefile("coredns")).await;
    make::<ConfigMap>(&client, corefile("node-local-dns")).await;
    mcs::install(&client, "v1beta1", false).await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    make_wide::<Namespace>(&client, json!({"metadata": {"name": "tombolo-system", "labels": labels}})).await;
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let webhook = json!({
        "name": "v.policy.example.com", "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "policy", "name": "server"}},
    });
    let policy = json!({"metadata": {"name": "policy"}, "webhooks": [webhook]});
    make_wide::<ValidatingWebhookConfiguration>(&client, policy).await;
    let said = looking.look(ADMIN, &[]).await;
    is(&said, "cluster DNS", "ok", "in no Deployment");
    is(&said, "NodeLocal DNSCache", "less", "node-local-dns");
    is(&said, "Multi-Cluster Services API", "less", "older day");
    is(&said, "pod security", "less", "enforces restricted");
    is(&said, "webhooks", "missing", "v.policy.example.com");
    is(&said, "manifest", "ok", "objects were tried");
    let policies: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    policies.delete("policy", &DeleteParams::default()).await.expect("deleted");
    is(&looking.look(ADMIN, &[]).await, "webhooks", "ok", "none");
    let namespace = Api::<Namespace>::all(client.clone()).get("tombolo-system").await.expect("a namespace");
    let labels = namespace.metadata.labels.expect("labels");
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted", "a look changes nothing");

    // a level that holds where applications are
    let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let spaces: Api<Namespace> = Api::all(client.clone());
    spaces.patch("default", &PatchParams::default(), &Patch::Merge(level)).await.expect("a level");
    let found = async || looking.look(ADMIN, &[]).await;
    let refused = |said: &Said| said["sidecar"].0 == "less";
    let said = until("the level is in force", SOON, found, refused).await;
    is(&said, "sidecar", "less", "NET_ADMIN");
    is(&said, "priority", "ok", "is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_missing_are_said() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    let controller = Controller::start().await;
    let looking = Looking { controller: &controller, server: &server, home: home.path() };
    let said = looking.look(AGENT, &[]).await;
    is(&said, "permissions", "missing", "cluster-admin");
    is(&said, "manifest", "missing", "is refused");

    // all kinds of the manifest, and not what it gives
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let write = ["get", "create", "patch"];
    let rbac = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];
    let admission =
        ["mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings"];
    let rules = json!([
        rule("", &["namespaces", "resourcequotas", "serviceaccounts", "secrets", "services"], &write),
        rule("apps", &["deployments"], &write),
        rule("policy", &["poddisruptionbudgets"], &write),
        rule("admissionregistration.k8s.io", &admission, &write),
        rule("rbac.authorization.k8s.io", &rbac, &write),
    ]);
    let_user(&client, "writes", rules).await;
    let said = looking.look(AGENT, &[]).await;
    is(&said, "permissions", "ok", "");
    is(&said, "agent's rights", "missing", "escalate and bind");
    is(&said, "taking out", "less", "delete ");
    // the true API server agrees
    is(&said, "manifest", "missing", "attempting to grant RBAC permissions not currently held");
    is(&said, "nodes", "less", "can't be looked at");

    let_user(&client, "gives", json!([rule("rbac.authorization.k8s.io", &rbac[..], &["escalate", "bind"])]))
        .await;
    let said = looking.look(AGENT, &[]).await;
    is(&said, "agent's rights", "ok", "may give any right");
    is(&said, "manifest", "ok", "objects were tried");
}
