//! The objects of an imported service, and what they look like when read back.

use crate::{
    index::Families,
    source::{McsVersion, kubernetes::MANAGED_BY},
};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::core::{DynamicObject, TypeMeta};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, net::IpAddr};
use tombolo_model::{
    ClusterName,
    inventory::{Protocol, ServiceKey},
    mcs::{ImportKind, ImportSpec, SessionAffinity},
    snapshot::NameSpec,
};

/// The labels of an EndpointSlice of an imported service.
pub(super) const SERVICE_NAME: &str = "multicluster.kubernetes.io/service-name";
pub(super) const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What was exported with the service, summed up: it says whether labels or annotations of another export are still there.
const EXPORTED: &str = "tombolo.io/exported";
/// Endpoints of a slice, as Kubernetes allows.
const MOST: usize = 1000;
/// The fields that older custom resources do not have.
const NEWER: [&str; 3] = ["ipFamilies", "internalTrafficPolicy", "trafficDistribution"];

/// Which custom resources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) version: McsVersion,
    /// Whether they have the fields of today; those of before 2025 do not.
    pub(super) whole: bool,
}

impl Schema {
    /// An object of a kind, without anything.
    pub(super) fn object(self, kind: &str, key: &ServiceKey) -> DynamicObject {
        let resource = self.version.resource(kind);
        DynamicObject {
            types: Some(TypeMeta { api_version: resource.api_version, kind: resource.kind }),
            metadata: ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                ..ObjectMeta::default()
            },
            data: Value::Object(Map::new()),
        }
    }
}

/// The ServiceImport.
pub(super) fn import(schema: Schema, spec: &ImportSpec, ips: &[IpAddr], families: Families) -> DynamicObject {
    let mut object = schema.object("ServiceImport", &spec.service);
    let mut labels = spec.labels.clone();
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    let mut annotations = spec.annotations.clone();
    annotations.insert(EXPORTED.to_owned(), sum(spec));
    object.metadata.labels = Some(labels);
    object.metadata.annotations = Some(annotations);
    let families: Vec<&str> = match spec.kind {
        ImportKind::ClusterSetIp => ips.iter().map(|ip| family(*ip)).collect(),
        ImportKind::Headless => families.iter().collect(),
    };
    let ports = spec.traits.ports.iter().map(|port| {
        let mut value = json!({ "port": port.port, "protocol": port.protocol.as_str() });
        if let Some(name) = &port.name {
            value["name"] = json!(name);
        }
        if let Some(app) = &port.app_protocol {
            value["appProtocol"] = json!(app);
        }
        value
    });
    let mut value = json!({ "type": spec.kind.as_str(), "ports": ports.collect::<Vec<_>>() });
    if !ips.is_empty() && spec.kind == ImportKind::ClusterSetIp {
        value["ips"] = json!(ips);
    }
    if !families.is_empty() {
        value["ipFamilies"] = json!(families);
    }
    match spec.traits.affinity {
        SessionAffinity::None => value["sessionAffinity"] = json!("None"),
        SessionAffinity::ClientIp(seconds) => {
            value["sessionAffinity"] = json!("ClientIP");
            value["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": seconds } });
        }
    }
    if let Some(policy) = &spec.traits.internal_traffic_policy {
        value["internalTrafficPolicy"] = json!(policy);
    }
    if let Some(distribution) = &spec.traits.traffic_distribution {
        value["trafficDistribution"] = json!(distribution);
    }
    if let (false, Some(fields)) = (schema.whole, value.as_object_mut()) {
        fields.retain(|name, _| !NEWER.contains(&name.as_str()));
    }
    object.data = json!({ "spec": value });
    object
}

/// The address family of an address, as Kubernetes writes it.
pub(super) const fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn sum(spec: &ImportSpec) -> String {
    let mut hash = Fnv::default();
    for (mark, map) in [("l", &spec.labels), ("a", &spec.annotations)] {
        for (name, value) in map {
            [mark, name, value].iter().for_each(|text| hash.add(text));
        }
    }
    format!("{:016x}", hash.0)
}

/// FNV-1a: the standard library's hashes may change from version to version, and these stay in objects.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What a slice lists.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) address: IpAddr,
    pub(super) hostname: Option<String>,
    pub(super) ready: bool,
}

/// Whether a ServiceImport is one that the agent made, though somebody took one of its two marks off.
pub(super) fn is_ours(meta: &ObjectMeta) -> bool {
    let label = meta.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    let mark = meta.annotations.as_ref().and_then(|annotations| annotations.get(EXPORTED));
    label.is_some_and(|by| by == MANAGED_BY.1) || mark.is_some()
}

/// The EndpointSlices of a service in one cluster. The ports are those that this cluster serves, and that are carried.
pub(super) fn slices(
    key: &ServiceKey,
    owner: &OwnerReference,
    cluster: &ClusterName,
    ports: &[EndpointPort],
    listed: &[Listed],
) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for kind in ["IPv4", "IPv6"] {
        let of_family: Vec<&Listed> = listed.iter().filter(|one| family(one.address) == kind).collect();
        for (at, some) in of_family.chunks(MOST).enumerate() {
            let mut hash = Fnv::default();
            [key.name.as_str(), cluster.as_str()].iter().for_each(|text| hash.add(text));
            let mut name = format!("mcs-{}-{cluster}-{:08x}-{}", key.name, hash.0 >> 32, kind.to_lowercase());
            if at > 0 {
                name = format!("{name}-{at}");
            }
            let labels = [
                (MANAGED_BY.0, MANAGED_BY.1),
                (SLICE_MANAGED_BY, MANAGED_BY.1),
                (SERVICE_NAME, key.name.as_str()),
                (SOURCE_CLUSTER, cluster.as_str()),
            ];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let endpoint = |one: &&Listed| Endpoint {
                addresses: vec![one.address.to_string()],
                hostname: one.hostname.clone(),
                conditions: Some(EndpointConditions {
                    ready: Some(one.ready),
                    ..EndpointConditions::default()
                }),
                ..Endpoint::default()
            };
            slices.push(EndpointSlice {
                metadata: ObjectMeta {
                    name: Some(name),
                    namespace: Some(key.namespace.to_string()),
                    labels: Some(BTreeMap::from(labels)),
                    owner_references: Some(vec![owner.clone()]),
                    ..ObjectMeta::default()
                },
                address_type: kind.to_owned(),
                ports: Some(ports.to_vec()),
                endpoints: some.iter().map(endpoint).collect(),
            });
        }
    }
    slices
}

/// The ports of a name that a cluster serves, as a slice lists them.
pub(super) fn slice_ports(name: &NameSpec, cluster: &ClusterName) -> Vec<EndpointPort> {
    let target = name.targets.iter().find(|target| target.cluster == *cluster);
    let serves = |port: u16| target.is_some_and(|target| target.ports.contains(&port));
    let carried = name.ports.iter().filter(|port| port.protocol == Protocol::Tcp && serves(port.port));
    carried
        .map(|port| EndpointPort {
            name: Some(port.name.as_ref().map(ToString::to_string).unwrap_or_default()),
            port: Some(i32::from(port.port)),
            protocol: Some("TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

/// The ServiceImport as the owner of its slices; none before it was read.
pub(super) fn owner(schema: Schema, found: &DynamicObject) -> Option<OwnerReference> {
    let resource = schema.version.resource("ServiceImport");
    Some(OwnerReference {
        api_version: resource.api_version,
        kind: resource.kind,
        name: found.metadata.name.clone()?,
        uid: found.metadata.uid.clone()?,
        ..OwnerReference::default()
    })
}

/// How what is there differs from what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    /// Applying what should be mends it.
    Lacks,
    /// There is something in it that others put there; it has to be written whole.
    Foreign,
}

pub(super) fn import_differs(wanted: &DynamicObject, found: &DynamicObject) -> Difference {
    let empty = Map::new();
    let spec = |object: &DynamicObject| object.data.get("spec").and_then(Value::as_object).cloned();
    let (wanted_spec, found_spec) = (spec(wanted).unwrap_or_default(), spec(found).unwrap_or(empty));
    if found_spec.keys().any(|field| !wanted_spec.contains_key(field)) {
        return Difference::Foreign;
    }
    let same = wanted_spec == found_spec && marked_as(&wanted.metadata, &found.metadata);
    if same { Difference::None } else { Difference::Lacks }
}

/// What is there with what should be in it, and nothing of others in the spec.
pub(super) fn import_mended(wanted: &DynamicObject, found: &DynamicObject) -> DynamicObject {
    let mut mended = found.clone();
    mended.types.clone_from(&wanted.types);
    mended.metadata.managed_fields = None;
    let (labels, annotations) = (wanted.metadata.labels.clone(), wanted.metadata.annotations.clone());
    mended.metadata.labels.get_or_insert_default().extend(labels.unwrap_or_default());
    mended.metadata.annotations.get_or_insert_default().extend(annotations.unwrap_or_default());
    mended.data["spec"] = wanted.data["spec"].clone();
    mended
}

pub(super) fn slice_differs(wanted: &EndpointSlice, found: &EndpointSlice) -> bool {
    let uid = |slice: &EndpointSlice| {
        slice.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect::<Vec<_>>()
    };
    wanted.address_type != found.address_type
        || wanted.ports != found.ports
        || wanted.endpoints != found.endpoints
        || uid(wanted) != uid(found)
        || !marked_as(&wanted.metadata, &found.metadata)
}

/// Labels and annotations of ours; others may add theirs.
fn marked_as(wanted: &ObjectMeta, found: &ObjectMeta) -> bool {
    type Pairs = Option<BTreeMap<String, String>>;
    let within = |wanted: &Pairs, found: &Pairs| {
        wanted.iter().flatten().all(|(key, value)| found.as_ref().and_then(|map| map.get(key)) == Some(value))
    };
    within(&wanted.labels, &found.labels) && within(&wanted.annotations, &found.annotations)
}

/// The service that an object of one of the two kinds is of.
pub(super) fn key_of(meta: &ObjectMeta) -> Option<ServiceKey> {
    let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
    ServiceKey::try_from(format!("{namespace}/{name}")).ok()
}
