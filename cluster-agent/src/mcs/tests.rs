use super::{
    objects::Schema,
    plan::{Action, Found, Known, foreign, plan},
};
use crate::{
    expose::{Exposed, Exposure},
    index::{Index, View},
    source::{ExportObject, McsVersion, NamespaceObject, Object},
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_model::{
    Domain, GlobalName, Locality, Proximity,
    install::InstallOrder,
    intent::Labels,
    inventory::{PortSpec, Protocol, ServiceKey},
    mcs::{
        ConflictReason, ExportConflict, ExportedPort, ImportKind, ImportSpec, SessionAffinity, Traits,
        Transport,
    },
    snapshot::{
        ClusterResource, EndToEnd, NameKind, NameSpec, Resource, Resources, SelfSpec, TargetSpec, Vip,
    },
};

const NAME: &str = "catalog.shop.svc.clusterset.local";

fn key() -> ServiceKey {
    ServiceKey::try_from("shop/catalog".to_owned()).unwrap()
}

fn target(cluster: &str, ready: u32) -> TargetSpec {
    TargetSpec {
        cluster: cluster.parse().unwrap(),
        proximity: Proximity::Elsewhere,
        services: [key()].into(),
        ports: [80].into(),
        ready,
        end_to_end: EndToEnd::None,
        accounts: Default::default(),
    }
}

fn name(text: &str, kind: NameKind, index: u32, targets: Vec<TargetSpec>) -> NameSpec {
    let pod = (kind == NameKind::Pod).then(|| text.split('.').next().unwrap().parse().unwrap());
    NameSpec {
        name: text.parse().unwrap(),
        domain: Domain::cluster_set(),
        kind,
        pod,
        vip: Vip { v4: (0xf000_0000 + index).into(), v6: (0xfd74_u128 << 112 | u128::from(index)).into() },
        headless: false,
        ports: vec![PortSpec {
            port: 80,
            protocol: Protocol::Tcp,
            name: Some("web".parse().unwrap()),
            app_protocol: None,
        }]
        .into(),
        targets,
    }
}

fn import(kind: ImportKind, clusters: &[&str]) -> ImportSpec {
    let port = |name: &str, port, protocol| ExportedPort {
        name: Some(name.parse().unwrap()),
        port,
        protocol,
        app_protocol: None,
    };
    ImportSpec {
        service: key(),
        name: NAME.parse().unwrap(),
        kind,
        traits: Traits {
            ports: vec![port("web", 80, Transport::Tcp), port("sctp", 9, Transport::Sctp)],
            affinity: SessionAffinity::ClientIp(10),
            internal_traffic_policy: Some("Cluster".into()),
            traffic_distribution: Some("PreferClose".into()),
        },
        labels: Labels::from([("team".into(), "a".into())]),
        annotations: Labels::from([("note".into(), "b c".into())]),
        clusters: clusters.iter().map(|cluster| cluster.parse().unwrap()).collect(),
        conflicts: vec![],
    }
}

fn resources(import: ImportSpec, names: Vec<NameSpec>) -> Resources<ClusterResource> {
    let itself = ClusterResource::Itself(
        SelfSpec {
            cluster: "east".parse().unwrap(),
            trust_domain: "acme.internal".parse().unwrap(),
            locality: Locality::default(),
        }
        .into(),
    );
    let all = [itself, ClusterResource::Import(import.into())].into_iter();
    all.chain(names.into_iter().map(|name| ClusterResource::Name(name.into())))
        .map(|resource| (resource.key(), resource))
        .collect()
}

/// Exported by west, imported here.
fn told() -> Resources<ClusterResource> {
    let names = vec![
        name(NAME, NameKind::Service, 1, vec![target("west", 2)]),
        name(&format!("west.{NAME}"), NameKind::ServiceInCluster, 2, vec![target("west", 2)]),
    ];
    resources(import(ImportKind::ClusterSetIp, &["west"]), names)
}

fn view(namespaces: &[&str]) -> View {
    let mut index = Index::default();
    index.set_mcs(true);
    for space in namespaces {
        let (name, labels) = (space.parse().unwrap(), Labels::new());
        index.apply(Object::Namespace(NamespaceObject { name, labels, ending: false }));
    }
    index.view()
}

/// An API server that takes what it is given.
struct World {
    found: Found,
    view: View,
    exposed: Option<Exposed>,
    schema: Schema,
    now: &'static str,
    uid: u32,
}

impl World {
    fn new() -> Self {
        Self {
            found: Found::default(),
            view: view(&["shop"]),
            exposed: None,
            schema: Schema { version: McsVersion::V1Beta1, whole: true },
            now: "2026-01-01T00:00:00Z",
            uid: 0,
        }
    }

    /// Plans and does it; gives what was done.
    fn step(&mut self, resources: &Resources<ClusterResource>) -> Vec<String> {
        let known = Known {
            resources,
            view: &self.view,
            exposed: self.exposed.as_ref(),
            schema: self.schema,
            now: self.now,
        };
        plan(known, &self.found).into_iter().map(|action| self.act(action)).collect()
    }

    /// Until nothing is left to do.
    fn settle(&mut self, resources: &Resources<ClusterResource>) {
        for _ in 0..4 {
            if self.step(resources).is_empty() {
                return;
            }
        }
        panic!("it never ends: {:?}", self.step(resources));
    }

    fn act(&mut self, action: Action) -> String {
        match action {
            Action::ApplyImport(object) | Action::ReplaceImport(object) => {
                let old = self.found.imports.pop();
                let status = old.as_ref().map(|old| old.data["status"].clone());
                let mut object = *object;
                self.uid += 1;
                object.metadata.uid =
                    old.and_then(|old| old.metadata.uid.clone()).or(Some(format!("u{}", self.uid)));
                object.metadata.generation = Some(1);
                object.data["status"] = status.unwrap_or_default();
                self.found.imports.push(Arc::new(object));
                "import".into()
            }
            Action::ImportStatus(object) => {
                let mut new = (*self.found.imports[0]).clone();
                new.data["status"] = object.data["status"].clone();
                self.found.imports = vec![Arc::new(new)];
                "import status".into()
            }
            Action::DeleteImport(key) => {
                self.found.imports.clear();
                format!("delete {key}")
            }
            Action::ApplySlice(slice) => {
                let name = slice.metadata.name.clone().unwrap();
                self.found.slices.retain(|found| found.metadata.name != slice.metadata.name);
                self.found.slices.push(Arc::new(*slice));
                format!("slice {name}")
            }
            Action::DeleteSlice(_, name) => {
                self.found.slices.retain(|found| found.metadata.name.as_ref() != Some(&name));
                format!("delete slice {name}")
            }
            Action::ExportStatus(object) => {
                let mut new = (*self.found.exports[0]).clone();
                new.data["status"] = object.data["status"].clone();
                self.found.exports = vec![Arc::new(new)];
                "export status".into()
            }
            Action::ClearExport(object) => {
                let mut new = (*self.found.exports[0]).clone();
                assert_eq!(object.metadata.resource_version, new.metadata.resource_version);
                new.data["status"] = object.data["status"].clone();
                self.found.exports = vec![Arc::new(new)];
                "export cleared".into()
            }
        }
    }

    fn import(&self) -> Option<&DynamicObject> {
        self.found.imports.first().map(|import| &**import)
    }

    fn export(&mut self) {
        let mut export = self.schema.object("ServiceExport", &key());
        export.metadata.generation = Some(3);
        self.found.exports = vec![Arc::new(export)];
    }

    /// Type, status and reason of the export's conditions.
    fn conditions(&self) -> Vec<String> {
        let conditions =
            self.found.exports[0].data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let text = |one: &Value| {
            format!(
                "{} {} {}",
                one["type"].as_str().unwrap(),
                one["status"].as_str().unwrap(),
                one["reason"].as_str().unwrap()
            )
        };
        conditions.iter().map(text).collect()
    }
}

#[test]
fn what_somebody_else_made_is_left_as_it_is() {
    let mut world = World::new();
    let mut theirs = world.schema.object("ServiceImport", &key());
    theirs.metadata.uid = Some("theirs".into());
    theirs.data = json!({"spec": {"type": "Headless", "ports": []}});
    world.found.imports = vec![Arc::new(theirs.clone())];
    assert_eq!(world.step(&told()), [""; 0]);
    assert_eq!(foreign(&told(), &world.found).into_iter().collect::<Vec<_>>(), [key()]);
    let mut removed = told();
    let order = ClusterResource::Install(InstallOrder::Removed { revision: 1 }.into());
    removed.insert(order.key(), order);
    assert_eq!(world.step(&removed), [""; 0], "nor taken out");
    // handed over
    theirs.metadata.labels = Some([("app.kubernetes.io/managed-by".into(), "tombolo-agent".into())].into());
    world.found.imports = vec![Arc::new(theirs)];
    world.settle(&told());
    assert!(foreign(&told(), &world.found).is_empty());
    assert_eq!(world.import().unwrap().data["spec"]["type"], "ClusterSetIP");
    // ours that somebody took the label off is still ours, and mended
    let mut ours = world.import().unwrap().clone();
    ours.metadata.labels = None;
    world.found.imports = vec![Arc::new(ours)];
    assert!(world.step(&told()).contains(&"import".to_owned()));
}

fn endpoints(slice: &EndpointSlice) -> Vec<String> {
    let one = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        format!("{} {:?} {ready:?}", endpoint.addresses.join(","), endpoint.hostname)
    };
    slice.endpoints.iter().map(one).collect()
}

#[test]
fn an_import_as_the_api_has_it() {
    let mut world = World::new();
    assert_eq!(world.step(&told()), ["import"], "what belongs to it waits for its id");
    let done = world.step(&told());
    assert!(
        done.len() == 2 && done[0] == "import status" && done[1].starts_with("slice mcs-catalog-west-"),
        "{done:?}"
    );
    assert_eq!(world.step(&told()), [""; 0]);
    let object = world.import().unwrap();
    insta::assert_json_snapshot!(
        json!({ "metadata": object.metadata, "data": object.data, "types": object.types })
    );
    insta::assert_json_snapshot!(world.found.slices[0]);
}

#[test]
fn what_is_withdrawn_goes_with_all_that_belongs_to_it() {
    let mut world = World::new();
    world.settle(&told());
    let mut none = told();
    none.retain(|key, _| key.kind() != "import");
    let done = world.step(&none);
    assert!(
        done.len() == 2 && done[0].starts_with("delete slice") && done[1] == "delete shop/catalog",
        "{done:?}"
    );
    assert_eq!(world.step(&none), [""; 0]);
    // So it goes where the namespace is on its way out.
    world.settle(&told());
    world.view = view(&["other"]);
    assert_eq!(world.step(&told()).len(), 2);
}

#[test]
fn addresses_are_those_that_lead_somewhere() {
    let ips = |world: &World| world.import().unwrap().data["spec"]["ips"].clone();
    let mut world = World::new();
    world.exposed = Some(Exposed::new());
    world.settle(&told());
    let ready = |world: &World| world.import().unwrap().data["status"]["conditions"][0]["reason"].clone();
    assert_eq!((ips(&world), ready(&world)), (Value::Null, json!("Pending")));
    let exposure = |v6: bool| Exposure {
        addresses: ["240.0.0.1", "fd74::1"]
            .iter()
            .take(1 + usize::from(v6))
            .map(|ip| ip.parse().unwrap())
            .collect(),
        ..Exposure::default()
    };
    let exposed = |v6| Exposed::from([(GlobalName::parse(NAME).unwrap(), exposure(v6))]);
    world.exposed = Some(exposed(true));
    world.settle(&told());
    let spec = &world.import().unwrap().data["spec"];
    assert_eq!(
        (&spec["ips"], &spec["ipFamilies"]),
        (&json!(["240.0.0.1", "fd74::1"]), &json!(["IPv4", "IPv6"]))
    );
    assert_eq!(ready(&world), json!("Ready"));
    world.exposed = Some(exposed(false));
    world.settle(&told());
    assert_eq!(ips(&world), json!(["240.0.0.1"]));
}

#[test]
fn what_others_change_is_mended() {
    let mut world = World::new();
    world.settle(&told());
    let mut spoilt = world.import().unwrap().clone();
    spoilt.data["spec"]["ips"] = json!(["10.0.0.1"]);
    world.found.imports = vec![Arc::new(spoilt.clone())];
    assert_eq!(world.step(&told()), ["import"]);
    // What others added can only be written over.
    spoilt = world.import().unwrap().clone();
    spoilt.data["spec"]["clusterIP"] = json!("10.0.0.1");
    world.found.imports = vec![Arc::new(spoilt)];
    assert_eq!(world.step(&told()), ["import"]);
    assert_eq!(world.import().unwrap().data["spec"].get("clusterIP"), None);
    // A label that is exported no more goes; one of others stays.
    let mut spec = import(ImportKind::ClusterSetIp, &["west"]);
    spec.labels.clear();
    let mut other = told();
    let spec = ClusterResource::Import(spec.into());
    other.insert(spec.key(), spec);
    assert_eq!(world.step(&other), ["import"]);
    let slice = world.found.slices.pop().unwrap();
    assert_eq!(world.step(&other), [format!("slice {}", slice.metadata.name.clone().unwrap())]);
}

#[test]
fn pods_of_a_headless_service_are_endpoints_by_cluster() {
    let pod = |pod: &str, cluster: &str, index, ready| {
        name(&format!("{pod}.{cluster}.{NAME}"), NameKind::Pod, index, vec![target(cluster, ready)])
    };
    let mut service = name(NAME, NameKind::Service, 1, vec![target("east", 1), target("west", 2)]);
    service.headless = true;
    let names = vec![service, pod("c-0", "east", 2, 0), pod("c-0", "west", 3, 1), pod("c-1", "west", 4, 1)];
    let all = resources(import(ImportKind::Headless, &["east", "west"]), names);
    let mut world = World::new();
    world.settle(&all);
    let spec = &world.import().unwrap().data["spec"];
    assert_eq!(
        (spec.get("ips"), &spec["ipFamilies"], &spec["type"]),
        (None, &json!(["IPv4"]), &json!("Headless"))
    );
    let mut slices: BTreeMap<_, _> = world
        .found
        .slices
        .iter()
        .map(|slice| {
            (
                slice.metadata.labels.clone().unwrap()["multicluster.kubernetes.io/source-cluster"].clone(),
                endpoints(slice),
            )
        })
        .collect();
    assert_eq!(slices.remove("east").unwrap(), ["240.0.0.2 Some(\"c-0\") Some(false)"]);
    assert_eq!(
        slices.remove("west").unwrap(),
        ["240.0.0.3 Some(\"c-0\") Some(true)", "240.0.0.4 Some(\"c-1\") Some(true)"]
    );
}

#[test]
fn conditions_of_an_export() {
    let mut world = World::new();
    world.export();
    world.settle(&told());
    assert_eq!(
        world.conditions(),
        ["Valid False NoService", "Ready False Pending", "Conflict False NoConflicts"]
    );
    world.view.external.insert(key());
    world.settle(&told());
    assert_eq!(world.conditions()[0], "Valid False InvalidServiceType");
    world.view.external.clear();
    let service = |world: &mut World| {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: catalog, namespace: shop}\nspec: {ports: [{port: 80}]}";
        let mut files = crate::source::Files::default();
        let mut index = Index::default();
        files.load("f", yaml.as_bytes()).into_iter().for_each(|change| {
            index.change(change);
        });
        world.view.services = index.view().services;
    };
    service(&mut world);
    world.settle(&told());
    assert_eq!(world.conditions(), ["Valid True Valid", "Ready False Pending", "Conflict False NoConflicts"]);
    // The controller took it, and it differs from another.
    let mut spec = import(ImportKind::ClusterSetIp, &["east", "west"]);
    let conflict = |reason, message: &str| ExportConflict { reason, message: message.into() };
    spec.conflicts = vec![conflict(ConflictReason::Port, "P"), conflict(ConflictReason::Type, "T")];
    let all = resources(spec, vec![]);
    world.now = "2026-01-01T00:01:00Z";
    world.settle(&all);
    assert_eq!(
        world.conditions(),
        ["Valid True Valid", "Ready True Exported", "Conflict True PortConflict,TypeConflict"]
    );
    let conditions = &world.found.exports[0].data["status"]["conditions"];
    assert_eq!(
        (&conditions[2]["message"], &conditions[2]["observedGeneration"]),
        (&json!("P. T."), &json!(3))
    );
    assert_eq!(conditions[0]["lastTransitionTime"], json!("2026-01-01T00:00:00Z"), "its status stayed");
    assert_eq!(conditions[1]["lastTransitionTime"], json!("2026-01-01T00:01:00Z"));
}

#[test]
fn an_uninstalled_agent_leaves_nothing() {
    let mut world = World::new();
    world.export();
    world.settle(&told());
    let mut export = (*world.found.exports[0]).clone();
    let of_us = json!({"manager": "tombolo-agent", "operation": "Apply", "subresource": "status"});
    export.metadata.managed_fields = Some(vec![serde_json::from_value(of_us).unwrap()]);
    world.found.exports = vec![Arc::new(export)];
    let mut all = told();
    let order = ClusterResource::Install(InstallOrder::Removed { revision: 1 }.into());
    all.insert(order.key(), order);
    let done = world.step(&all);
    assert!(
        done.len() == 3 && done[0].starts_with("delete slice") && done[2] == "export cleared",
        "{done:?}"
    );
    assert_eq!(world.found.exports[0].data["status"], Value::Null, "an empty one is no status");
    assert_eq!(world.step(&all), [""; 0]);

    // what others say of it stays
    let theirs = json!({"type": "Theirs", "status": "True"});
    let mut export = (*world.found.exports[0]).clone();
    export.metadata.resource_version = Some("7".to_owned());
    export.data["status"] = json!({"conditions": [theirs, {"type": "Valid", "status": "True"}]});
    world.found.exports = vec![Arc::new(export)];
    assert_eq!(world.step(&all), ["export cleared"]);
    assert_eq!(world.found.exports[0].data["status"], json!({"conditions": [theirs]}));
    assert_eq!(world.step(&all), [""; 0]);
}

#[test]
fn an_export_in_a_namespace_that_takes_no_part_gets_no_conditions() {
    let mut world = World::new();
    world.export();
    let everything = Arc::new(std::mem::take(&mut world.view));
    let order = |excluded: &str| {
        let spec = json!({"version": "1", "registry": "r", "namespaces": {"exclude": [excluded]}});
        let order =
            ClusterResource::Install(InstallOrder::Installed(serde_json::from_value(spec).unwrap()).into());
        let mut all = told();
        all.insert(order.key(), order);
        all
    };
    let mut chosen = crate::chosen::Chosen::default();
    let (without, with) = (order("shop"), order("other"));
    world.view = (*chosen.of(Arc::clone(&everything), &without)).clone();
    world.settle(&without);
    assert!(world.conditions().is_empty() && world.import().is_none());
    world.view = (*chosen.of(Arc::clone(&everything), &with)).clone();
    world.settle(&with);
    assert_eq!(world.conditions().len(), 3);

    // what was said is taken back when it takes no part any more
    let mut export = (*world.found.exports[0]).clone();
    let of_us = json!({"manager": "tombolo-agent", "operation": "Apply", "subresource": "status"});
    export.metadata.managed_fields = Some(vec![serde_json::from_value(of_us).unwrap()]);
    world.found.exports = vec![Arc::new(export)];
    world.view = (*chosen.of(everything, &without)).clone();
    world.settle(&without);
    assert!(world.conditions().is_empty() && world.import().is_none());
}

#[test]
fn older_custom_resources_are_not_told_of_what_they_lack() {
    let mut world = World::new();
    world.schema = Schema { version: McsVersion::V1Alpha1, whole: false };
    world.settle(&told());
    let object = world.import().unwrap();
    let fields: Vec<_> = object.data["spec"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["ips", "ports", "sessionAffinity", "sessionAffinityConfig", "type"]);
    assert_eq!(object.data["status"], json!({"clusters": [{"cluster": "west"}]}));
    assert_eq!(object.types.as_ref().unwrap().api_version, "multicluster.x-k8s.io/v1alpha1");
}

#[test]
fn exports_in_the_view() {
    let mut index = Index::default();
    index.set_mcs(true);
    let (name, labels) = ("shop".parse().unwrap(), Labels::new());
    index.apply(Object::Namespace(NamespaceObject { name, labels: labels.clone(), ending: false }));
    let export = ExportObject { key: key(), created_s: 5, labels: labels.clone(), annotations: labels };
    assert!(index.apply(Object::Export(export.clone())));
    assert!(!index.apply(Object::Export(export.clone())));
    assert_eq!(index.view().exports.len(), 1);
    assert!(index.set_mcs(false) && index.view().spaces.is_empty());
    assert!(index.delete(&Object::Export(export).key()) && index.view().exports.is_empty());
}
