//! The objects of a name, and what they look like when read back.

use super::seen::{PortKey, SeenService};
use crate::source::kubernetes::MANAGED_BY;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tombolo_model::{GlobalName, NamespaceName, Special, inventory::PortSpec};

/// The name that a Service stands for.
const NAME: &str = "tombolo.io/name";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who writes an EndpointSlice, as Kubernetes' own controllers ask it.
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The labels and annotations that are ours to write; others may add theirs.
pub(super) const SERVICE_LABELS: &[&str] = &[MANAGED_BY.0];
pub(super) const SLICE_LABELS: &[&str] = &[MANAGED_BY.0, SERVICE_NAME, SLICE_MANAGED_BY];
pub(super) const ANNOTATIONS: &[&str] = &[NAME];
/// An endpoint of any node may be taken, and another one for each connection.
const EVERYWHERE: &str = "Cluster";
const ANY: &str = "None";
/// The longest name of a Service.
const MOST: usize = 63;

/// A port of a name, and where egress gateways take its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) spec: PortSpec,
    pub(super) at: u16,
}

/// The name of the objects of a name: a DNS label, one for each name.
pub(super) fn object_name(name: &GlobalName) -> String {
    let mark = format!("-{:08x}", fnv(name.as_str().as_bytes()) >> 32);
    let mut text = format!("g-{}", name.as_str().replace('.', "-"));
    text.truncate(MOST - mark.len());
    text + &mark
}

/// FNV-1a: the standard library's hashes may change from version to version, and these names stay.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn meta(namespace: &NamespaceName, name: &str, global: &GlobalName) -> ObjectMeta {
    let pair = |(key, value): (&str, &str)| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_string()),
        labels: Some(pair(MANAGED_BY)),
        annotations: Some(pair((NAME, global.as_str()))),
        ..ObjectMeta::default()
    }
}

fn port_name(port: &Port) -> String {
    format!("p-{}", port.spec.port)
}

/// The Service of a name, and the virtual IPs that it carries. No selector: its endpoints are ours to say.
pub(super) fn service(
    namespace: &NamespaceName,
    name: &GlobalName,
    ports: &[Port],
    external: &BTreeSet<IpAddr>,
) -> Service {
    let port = |port: &Port| ServicePort {
        name: Some(port_name(port)),
        port: i32::from(port.spec.port),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.spec.app_protocol.clone(),
        target_port: Some(IntOrString::Int(i32::from(port.at))),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        ports: Some(ports.iter().map(port).collect()),
        // Said, so that one that somebody added is taken away.
        selector: Some(BTreeMap::new()),
        // A cluster of one family gives an address of that.
        ip_family_policy: Some("PreferDualStack".to_owned()),
        external_ips: Some(external.iter().map(ToString::to_string).collect()),
        // Said too: an egress gateway is not on each node, and each of them takes every connection.
        internal_traffic_policy: Some(EVERYWHERE.to_owned()),
        session_affinity: Some(ANY.to_owned()),
        ..ServiceSpec::default()
    };
    let metadata = meta(namespace, &object_name(name), name);
    Service { metadata, spec: Some(spec), ..Service::default() }
}

/// The kind that owns slices.
pub(super) const OWNER: &str = "Service";

/// A slice goes with the Service of this name and identity.
pub(super) fn own(slice: &mut EndpointSlice, service: &str, uid: &str) {
    slice.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: OWNER.to_owned(),
        name: service.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }]);
}

/// The endpoints of a name in one address family; see [`own`].
pub(super) fn slice(
    namespace: &NamespaceName,
    name: &GlobalName,
    ports: &[Port],
    family: &'static str,
    gateways: &[(IpAddr, bool)],
) -> EndpointSlice {
    let service = object_name(name);
    let mut metadata = meta(namespace, &slice_name(&service, family), name);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(SERVICE_NAME.to_owned(), service);
    labels.insert(SLICE_MANAGED_BY.to_owned(), MANAGED_BY.1.to_owned());
    let port = |port: &Port| EndpointPort {
        name: Some(port_name(port)),
        port: Some(i32::from(port.at)),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.spec.app_protocol.clone(),
    };
    let endpoint = |(address, ready): &(IpAddr, bool)| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(*ready), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    EndpointSlice {
        metadata,
        address_type: family.to_owned(),
        ports: Some(ports.iter().map(port).collect()),
        endpoints: gateways.iter().map(endpoint).collect(),
    }
}

pub(super) fn slice_name(service: &str, family: &str) -> String {
    format!("{service}-{}", family.to_lowercase())
}

/// The name that an object of ours stands for; none where it is no object of ours.
pub(super) fn stands_for(meta: &ObjectMeta) -> Option<GlobalName> {
    let name = GlobalName::parse(meta.annotations.as_ref()?.get(NAME)?).ok()?;
    let object = object_name(&name);
    let ours =
        |own: &String| *own == object || ["IPv4", "IPv6"].iter().any(|f| *own == slice_name(&object, f));
    meta.name.as_ref().filter(|own| ours(own)).map(|_| name)
}

/// The ports of a Service that was read: by port, the target.
pub(super) fn targets(service: &Service) -> impl Iterator<Item = (u16, u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| match port.target_port {
        Some(IntOrString::Int(target)) => Some((u16::try_from(port.port).ok()?, u16::try_from(target).ok()?)),
        _ => None,
    })
}

/// The addresses of a Service that was read.
pub(super) fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let spec = service.spec.iter();
    spec.flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip))
        .filter_map(|ip| ip.parse().ok())
}

/// The external IPs of a Service.
pub(super) fn external_ips(service: &Service) -> BTreeSet<IpAddr> {
    let all = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    all.filter_map(|ip| ip.parse().ok()).collect()
}

/// Whether callers stay with an endpoint.
pub(super) fn is_sticky(spec: &ServiceSpec) -> bool {
    spec.session_affinity.as_deref().is_some_and(|affinity| affinity != ANY)
}

/// The same Service without its external IPs; none where it has none.
pub(super) fn without_external_ips(service: &Service) -> Option<Service> {
    if external_ips(service).is_empty() {
        return None;
    }
    let mut service = service.clone();
    service.spec.get_or_insert_default().external_ips = Some(Vec::new());
    Some(service)
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

/// How a Service that was read differs from what it should be.
pub(super) fn service_differs(wanted: &SeenService, found: &SeenService) -> Difference {
    let is_foreign = |port: &PortKey| !wanted.ports.iter().any(|(ours, _)| ours == port);
    if found.is_sticky || found.ports.iter().any(|(port, _)| is_foreign(port)) {
        return Difference::Foreign;
    }
    let same =
        (&wanted.ports, &wanted.external_ips, wanted.rest) == (&found.ports, &found.external_ips, found.rest);
    if same { Difference::None } else { Difference::Lacks }
}

/// What is there with what should be in it, and nothing of others: to be written whole.
pub(super) fn service_mended(wanted: &Service, found: &Service) -> Service {
    let mut mended = found.clone();
    let (labels, annotations) = (wanted.metadata.labels.clone(), wanted.metadata.annotations.clone());
    mended.metadata.labels.get_or_insert_default().extend(labels.unwrap_or_default());
    mended.metadata.annotations.get_or_insert_default().extend(annotations.unwrap_or_default());
    mended.metadata.managed_fields = None;
    if let (Some(spec), Some(wanted)) = (&mut mended.spec, &wanted.spec) {
        spec.ports.clone_from(&wanted.ports);
        spec.selector = None;
        spec.type_.clone_from(&wanted.type_);
        spec.ip_family_policy.clone_from(&wanted.ip_family_policy);
        spec.external_ips.clone_from(&wanted.external_ips);
        spec.internal_traffic_policy.clone_from(&wanted.internal_traffic_policy);
        spec.session_affinity.clone_from(&wanted.session_affinity);
        spec.session_affinity_config = None;
    }
    mended
}

/// Whether an egress gateway's address can be an endpoint; the API server takes no others.
pub(super) fn is_endpoint(ip: IpAddr) -> bool {
    Special::may_be_of_machine(ip)
}
