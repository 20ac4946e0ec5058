//! The Multi-Cluster Services API (KEP-1645) in two clusters: true API servers, true agents, one controller. There are no nodes; what
//! is looked at is what the API and DNS say.

use crate::{
    let_agent, make, make_wide, meta,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON},
};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Service},
        discovery::v1::EndpointSlice,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
};
use serde_json::{Value, json};
use std::path::Path;
use tombolo_testkit::wait::until;

const GROUP: &str = "multicluster.x-k8s.io";
const NAME: &str = "catalog.shop.svc.clusterset.local";

/// A cluster of the set.
struct Cluster {
    client: Client,
    agent: Agent,
    _server: Server,
    _store: Store,
}

impl Cluster {
    async fn start(controller: &Controller, home: &Path, name: &str) -> Self {
        let home = home.join(name);
        std::fs::create_dir(&home).expect("a folder");
        let store = Store::start(&home.join("kubernetes"));
        let server = store.server().await;
        let client = server.client(ADMIN).await;
        let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"]).await;
        let_write(&client).await;
        make_wide::<Namespace>(&client, json!({"metadata": {"name": "shop"}})).await;
        make_wide::<Namespace>(&client, json!({"metadata": {"name": "tombolo-system"}})).await;
        controller.join_as(&home, name).await;
        let agent = Agent::start(&home, &server, &["--capture", "gateway"]).await;
        Self { client, agent, _server: server, _store: store }
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta1", kind));
        Api::namespaced_with(self.client.clone(), "shop", &resource)
    }

    async fn export(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": format!("{GROUP}/v1beta1"), "kind": "ServiceExport", "metadata": meta("shop", name), "spec": spec,
        });
        let object = serde_json::from_value(object).expect("an object");
        self.api("ServiceExport").create(&PostParams::default(), &object).await.expect("made");
    }

    async fn withdraw(&self, name: &str) {
        self.api("ServiceExport").delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    /// The conditions of an export: type, status and reason.
    async fn conditions(&self, name: &str) -> Vec<String> {
        let export = self.api("ServiceExport").get(name).await.expect("it is there");
        let text = |one: &Value| {
            let part = |name: &str| one[name].as_str().unwrap_or("?").to_owned();
            format!("{} {} {}", part("type"), part("status"), part("reason"))
        };
        export.data["status"]["conditions"].as_array().into_iter().flatten().map(text).collect()
    }

    /// The spec of an import and the clusters behind it.
    async fn import(&self, name: &str) -> Option<(Value, Vec<String>)> {
        let import = self.api("ServiceImport").get_opt(name).await.expect("an answer")?;
        let clusters = import.data["status"]["clusters"].as_array().cloned().unwrap_or_default();
        let clusters = clusters.iter().filter_map(|one| one["cluster"].as_str()).map(str::to_owned).collect();
        Some((import.data["spec"].clone(), clusters))
    }

    /// The clusters that have an EndpointSlice, with their addresses.
    async fn slices(&self) -> Vec<String> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "shop");
        let ours = ListParams::default().labels("multicluster.kubernetes.io/service-name=catalog");
        let slices = slices.list(&ours).await.expect("a list");
        let text = |slice: EndpointSlice| {
            let labels = slice.metadata.labels.unwrap_or_default();
            assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "tombolo-agent");
            assert!(!labels.contains_key("kubernetes.io/service-name"), "no kube-proxy takes it");
            labels["multicluster.kubernetes.io/source-cluster"].clone()
        };
        slices.items.into_iter().map(text).collect()
    }
}

/// What the agent writes.
async fn let_write(client: &Client) {
    let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
    let rules = json!([
        {"apiGroups": [GROUP], "resources": ["serviceexports"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [GROUP], "resources": ["serviceexports/status", "serviceimports/status"], "verbs": ["patch"]},
        {"apiGroups": [GROUP], "resources": ["serviceimports"], "verbs": all},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": all},
        {"apiGroups": [""], "resources": ["services"], "verbs": all},
    ]);
    make_wide::<ClusterRole>(client, json!({"metadata": {"name": "writes"}, "rules": rules})).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writes"});
    let binding = json!({"metadata": {"name": "writes"}, "subjects": group, "roleRef": of});
    make_wide::<ClusterRoleBinding>(client, binding).await;
}

/// The custom resources in a version: of today, or as they were before they had more fields.
pub(crate) async fn install(client: &Client, version: &str, today: bool) {
    let text = json!({"type": "string"});
    let map = json!({"type": "object", "additionalProperties": text});
    let conditions = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "required": ["type"], "properties": {
            "type": text, "status": text, "reason": text, "message": text, "lastTransitionTime": text,
            "observedGeneration": {"type": "integer"},
        }},
    });
    let export = json!({
        "spec": {"type": "object", "properties": {"exportedLabels": map, "exportedAnnotations": map}},
        "status": {"type": "object", "properties": {"conditions": conditions}},
    });
    let port = json!({"type": "object", "properties": {
        "name": text, "protocol": text, "appProtocol": text, "port": {"type": "integer"},
    }});
    let clusters = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["cluster"],
        "items": {"type": "object", "required": ["cluster"], "properties": {"cluster": text}},
    });
    let texts = json!({"type": "array", "items": text});
    let affinity = json!({"type": "object", "properties": {
        "clientIP": {"type": "object", "properties": {"timeoutSeconds": {"type": "integer"}}},
    }});
    let ports = json!({"type": "array", "x-kubernetes-list-type": "atomic", "items": port});
    let mut spec = json!({
        "type": text, "ips": texts, "ports": ports, "sessionAffinity": text, "sessionAffinityConfig": affinity,
    });
    let mut status = json!({"clusters": clusters});
    if today {
        spec["ipFamilies"] = texts;
        spec["internalTrafficPolicy"] = text.clone();
        spec["trafficDistribution"] = text.clone();
        status["conditions"] = conditions;
        status["endpointSliceObjects"] = text;
    }
    let import = json!({
        "spec": {"type": "object", "properties": spec}, "status": {"type": "object", "properties": status},
    });
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (kind, properties) in [("ServiceExport", export), ("ServiceImport", import)] {
        let plural = format!("{}s", kind.to_lowercase());
        let version = json!([{
            "name": version, "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        }]);
        let name = format!("{plural}.{GROUP}");
        let object = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            // The group is Kubernetes' own: its custom resources say who approved of them.
            "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1646"}},
            "spec": {
                "group": GROUP, "scope": "Namespaced", "versions": version,
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            },
        });
        let crd: CustomResourceDefinition = serde_json::from_value(object).expect("an object");
        if api.get_opt(&name).await.expect("an answer").is_some() {
            api.delete(&name, &DeleteParams::default()).await.expect("deleted");
            until("the old one is gone", SOON, || api.get_opt(&name), |found| matches!(found, Ok(None)))
                .await
                .expect("gone");
        }
        api.create(&PostParams::default(), &crd).await.expect("made");
    }
}

async fn service(cluster: &Cluster, name: &str, spec: Value) {
    make::<Service>(&cluster.client, json!({"metadata": meta("shop", name), "spec": spec})).await;
}

fn exported(conflict: &str) -> impl Fn(&Vec<String>) -> bool {
    let wanted =
        vec!["Valid True Valid".to_owned(), "Ready True Exported".to_owned(), format!("Conflict {conflict}")];
    move |conditions| *conditions == wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_set() {
    let home = tempfile::tempdir().expect("a folder");
    let controller = Controller::start().await;
    let (one, two) = tokio::join!(
        Cluster::start(&controller, home.path(), "cluster-1"),
        Cluster::start(&controller, home.path(), "cluster-2"),
    );

    // Without the API, and with it in a version of another day, everything else goes on, and it is said.
    let said = |part: &'static str| {
        move |all: &Vec<String>| {
            all.iter().any(|p| p.starts_with("API multicluster.x-k8s.io") && p.contains(part))
        }
    };
    until("that there is none", SOON, || controller.problems(), said("does not have it")).await;
    install(&one.client, "v9", true).await;
    until("that it is another", SOON, || controller.problems(), said("the cluster has v9")).await;
    install(&one.client, "v1beta1", true).await;
    install(&two.client, "v1beta1", true).await;

    // One exports, both import.
    let tcp = |port: u16| json!([{"name": "web", "port": port, "appProtocol": "http"}]);
    let sticky = json!({"clientIP": {"timeoutSeconds": 10}});
    let spec = json!({
        "ports": tcp(80), "sessionAffinity": "ClientIP", "sessionAffinityConfig": sticky, "trafficDistribution": "PreferClose",
    });
    service(&one, "catalog", spec).await;
    one.export("catalog", json!({"exportedLabels": {"team": "a"}, "exportedAnnotations": {"note": "b c"}}))
        .await;
    until("the export's conditions", SOON, || one.conditions("catalog"), exported("False NoConflicts")).await;
    for cluster in [&one, &two] {
        let there = |found: &Option<(Value, Vec<String>)>| {
            found
                .as_ref()
                .is_some_and(|(spec, clusters)| !spec["ips"].is_null() && *clusters == ["cluster-1"])
        };
        let (spec, _) = until("the import", SOON, || cluster.import("catalog"), there).await.expect("there");
        assert_eq!(spec["type"], "ClusterSetIP");
        assert_eq!(
            spec["ports"],
            json!([{"name": "web", "port": 80, "protocol": "TCP", "appProtocol": "http"}])
        );
        assert_eq!((&spec["sessionAffinity"], &spec["sessionAffinityConfig"]), (&json!("ClientIP"), &sticky));
        assert_eq!(
            (&spec["internalTrafficPolicy"], &spec["trafficDistribution"]),
            (&json!("Cluster"), &json!("PreferClose"))
        );
        let ip = spec["ips"][0].as_str().expect("an address").to_owned();
        until(
            "the name",
            SOON,
            || cluster.agent.ask(NAME),
            |at| at.as_ref().is_ok_and(|at| at.to_string() == ip),
        )
        .await
        .expect("it resolves");
        assert!(
            cluster.agent.ask(&format!("cluster-1.{NAME}")).await.is_err(),
            "the KEP keeps this form for itself"
        );
        until("the slice", SOON, || cluster.slices(), |all| *all == ["cluster-1"]).await;
        let import = cluster.api("ServiceImport").get("catalog").await.expect("there");
        assert_eq!(import.metadata.labels.expect("labels")["team"], "a");
        assert_eq!(import.metadata.annotations.expect("annotations")["note"], "b c");
    }

    // Two exports that differ: the oldest decides, and both hear of it.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    service(&two, "catalog", json!({"ports": tcp(81), "clusterIP": "None"})).await;
    two.export("catalog", json!({})).await;
    let all = "True PortConflict,TypeConflict,SessionAffinityConflict,LabelsConflict,AnnotationsConflict,TrafficDistributionConflict";
    for cluster in [&one, &two] {
        until(
            "the conflict",
            SOON,
            || cluster.conditions("catalog"),
            |found| found.iter().any(|one| one.starts_with("Conflict True PortConflict,TypeConflict")),
        )
        .await;
        let both = |found: &Option<(Value, Vec<String>)>| {
            found.as_ref().is_some_and(|(_, clusters)| clusters.len() == 2)
        };
        let (spec, _) = until("both", SOON, || cluster.import("catalog"), both).await.expect("there");
        assert_eq!((&spec["type"], &spec["ports"][0]["port"]), (&json!("ClusterSetIP"), &json!(80)));
    }
    // A headless Service has no traffic policy at all.
    let said = one.conditions("catalog").await;
    assert!(
        said[2].contains("InternalTrafficPolicyConflict") || said[2] == format!("Conflict {all}"),
        "{said:?}"
    );

    // What somebody edits or deletes is mended.
    let imports = two.api("ServiceImport");
    let edit = json!({"spec": {"ips": ["192.0.2.1"], "type": "Headless"}});
    imports.patch("catalog", &PatchParams::default(), &Patch::Merge(&edit)).await.expect("edited");
    let whole = |found: &Option<(Value, Vec<String>)>| {
        found
            .as_ref()
            .is_some_and(|(spec, _)| spec["type"] == "ClusterSetIP" && spec["ips"] != json!(["192.0.2.1"]))
    };
    until("it is mended", SOON, || two.import("catalog"), whole).await;
    imports.delete("catalog", &DeleteParams::default()).await.expect("deleted");
    until("it is back", SOON, || two.import("catalog"), whole).await;
    until("with its slices", SOON, || two.slices(), |all| all.len() == 1).await;

    // What can't be exported is told why.
    one.export("nothing", json!({})).await;
    service(&one, "outside", json!({"type": "ExternalName", "externalName": "db.example.org"})).await;
    one.export("outside", json!({})).await;
    for (name, reason) in [("nothing", "NoService"), ("outside", "InvalidServiceType")] {
        let wanted = format!("Valid False {reason}");
        until("why not", SOON, || one.conditions(name), |all| all.first() == Some(&wanted)).await;
        assert_eq!(one.import(name).await, None);
    }

    // The older one goes: the other stands alone, and nobody is against it.
    one.withdraw("catalog").await;
    until("no conflict", SOON, || two.conditions("catalog"), exported("False NoConflicts")).await;
    let headless = |found: &Option<(Value, Vec<String>)>| {
        found
            .as_ref()
            .is_some_and(|(spec, clusters)| spec["type"] == "Headless" && *clusters == ["cluster-2"])
    };
    let (spec, _) = until("what is left", SOON, || one.import("catalog"), headless).await.expect("there");
    assert!(spec["ips"].is_null() && spec["ipFamilies"] == json!(["IPv4"]), "{spec}");
    until("no endpoint is ready", SOON, || one.agent.ask(NAME), Result::is_err).await.expect_err("nothing");

    // A namespace that is deleted takes its exports along, everywhere. (Nobody here empties it.)
    let namespaces: Api<Namespace> = Api::all(two.client.clone());
    namespaces.delete("shop", &DeleteParams::default()).await.expect("deleted");
    for cluster in [&one, &two] {
        until("no import", SOON, || cluster.import("catalog"), Option::is_none).await;
        until("no slice", SOON, || cluster.slices(), Vec::is_empty).await;
    }
}

/// Custom resources of before 2025 lack fields; the rest is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_custom_resources() {
    let home = tempfile::tempdir().expect("a folder");
    let controller = Controller::start().await;
    let one = Cluster::start(&controller, home.path(), "cluster-1").await;
    install(&one.client, "v1beta1", false).await;
    service(&one, "catalog", json!({"ports": [{"port": 80}]})).await;
    one.export("catalog", json!({})).await;
    let there = |found: &Option<(Value, Vec<String>)>| {
        found.as_ref().is_some_and(|(spec, clusters)| !spec["ips"].is_null() && *clusters == ["cluster-1"])
    };
    let (spec, _) = until("the import", SOON, || one.import("catalog"), there).await.expect("there");
    assert_eq!(spec.get("ipFamilies"), None);
    let said = |all: &Vec<String>| all.iter().any(|problem| problem.contains("older than v0.3.0"));
    until("that they are old", SOON, || controller.problems(), said).await;
}
