//! From Kubernetes' types to ours. What is wrong is said with the path of the field.

use super::Check;
use super::object::{
    AccountObject, NamespaceObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject, SlicePort,
    TargetPort, default_account, selectors,
};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Service, ServiceAccount, ServiceSpec},
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use std::{collections::BTreeSet, fmt::Display, net::IpAddr};
use tombolo_model::{
    AccountName, DnsLabel, NameError, NamespaceName,
    inventory::{PortSpec, Protocol, ServiceKey},
    mcs::{ExportedPort, SessionAffinity, Traits, Transport},
};

/// Who serves a service.
pub(super) const SERVICE_ACCOUNT: &str = "tombolo.io/service-account";
/// How the endpoints of a service are checked.
pub(super) const HEALTH_CHECK: &str = "tombolo.io/health-check";
/// How a machine's proxy knows the processes of a service account.
const SELECTOR: &str = "tombolo.io/selector";
/// The service of an EndpointSlice.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said, as Kubernetes has it.
const DEFAULT_AFFINITY_S: u32 = 10_800;

fn at<T, E: Display>(path: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{path}: {error}"))
}

fn name<T>(meta: &ObjectMeta, parse: impl Fn(&str) -> Result<T, NameError>) -> Result<T, String> {
    at("metadata.name", parse(meta.name.as_deref().unwrap_or_default()))
}

fn space(meta: &ObjectMeta) -> Result<NamespaceName, String> {
    at("metadata.namespace", NamespaceName::parse(meta.namespace.as_deref().unwrap_or("default")))
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

fn number(path: &str, port: i32) -> Result<u16, String> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{path}: {port} is not a port; use 1 to 65535")),
    }
}

fn protocol(path: &str, text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some(other) => Err(format!("{path}: {other:?} is not carried; use TCP")),
    }
}

pub(super) fn namespace(object: Namespace) -> Result<NamespaceObject, String> {
    let name = name(&object.metadata, NamespaceName::parse)?;
    Ok(NamespaceObject { name, labels: object.metadata.labels.unwrap_or_default(), ending: false })
}

pub(super) fn account(object: ServiceAccount) -> Result<AccountObject, String> {
    let meta = &object.metadata;
    let selectors = match annotation(meta, SELECTOR) {
        Some(text) => at(&format!("metadata.annotations[{SELECTOR}]"), selectors(text))?,
        None => BTreeSet::new(),
    };
    Ok(AccountObject { namespace: space(meta)?, name: name(meta, AccountName::parse)?, selectors })
}

pub(super) fn service(object: Service) -> Result<ServiceObject, String> {
    let meta = &object.metadata;
    let key = ServiceKey { namespace: space(meta)?, name: name(meta, DnsLabel::parse)? };
    let account = match annotation(meta, SERVICE_ACCOUNT) {
        Some(text) => at(&format!("metadata.annotations[{SERVICE_ACCOUNT}]"), AccountName::parse(text))?,
        None => default_account(),
    };
    let account = Some(account);
    let check = match annotation(meta, HEALTH_CHECK) {
        Some(text) => at(&format!("metadata.annotations[{HEALTH_CHECK}]"), text.parse())?,
        None => Check::Tcp,
    };
    let spec = object.spec.unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err(
            "spec.type: an ExternalName has no endpoints to carry requests to; leave it out".to_owned()
        );
    }
    let traits = traits(&spec).into();
    let mut ports = Vec::with_capacity(spec.ports.as_ref().map_or(0, Vec::len));
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in spec.ports.unwrap_or_default().into_iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let protocol = protocol(&format!("{path}.protocol"), port.protocol.as_deref())?;
        let port_number = number(&format!("{path}.port"), port.port)?;
        let name = match port.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Some(at(&format!("{path}.name"), DnsLabel::parse(name))?),
            None => None,
        };
        if !numbers.insert((port_number, protocol)) {
            return Err(format!(
                "{path}.port: {port_number} stands twice; give each port a number of its own"
            ));
        }
        if !names.insert(name.clone()) {
            return Err(format!("{path}.name: several ports need a name each, and each another"));
        }
        let target = match port.target_port {
            None => TargetPort::Number(port_number),
            Some(IntOrString::Int(target)) => {
                TargetPort::Number(number(&format!("{path}.targetPort"), target)?)
            }
            Some(IntOrString::String(target)) => TargetPort::Name(target),
        };
        let spec = PortSpec { port: port_number, protocol, name, app_protocol: port.app_protocol };
        ports.push(ServicePort { spec, target });
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    if ports.is_empty() && !headless {
        return Err("spec.ports: is empty; name the ports that clients use".to_owned());
    }
    let created_s = meta.creation_timestamp.as_ref().map(|time| time.0.as_second());
    Ok(ServiceObject { key, created_s, ports, headless, account, check, traits, external: false })
}

/// What of a Service goes to other clusters. A port that can't be one is left out; the API server takes none.
pub(super) fn traits(spec: &ServiceSpec) -> Traits {
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Transport::Tcp,
            Some("UDP") => Transport::Udp,
            Some("SCTP") => Transport::Sctp,
            Some(_) => return None,
        };
        let name = port.name.as_deref().and_then(|name| DnsLabel::parse(name).ok());
        let number = u16::try_from(port.port).ok().filter(|port| *port > 0)?;
        Some(ExportedPort { name, port: number, protocol, app_protocol: port.app_protocol.clone() })
    };
    let seconds = || {
        let by_client = spec.session_affinity_config.as_ref()?.client_ip.as_ref()?;
        u32::try_from(by_client.timeout_seconds?).ok()
    };
    let affinity = match spec.session_affinity.as_deref() {
        Some("ClientIP") => SessionAffinity::ClientIp(seconds().unwrap_or(DEFAULT_AFFINITY_S)),
        _ => SessionAffinity::None,
    };
    let mut ports: Vec<ExportedPort> = spec.ports.iter().flatten().filter_map(port).collect();
    ports.shrink_to_fit();
    Traits {
        ports,
        affinity,
        internal_traffic_policy: spec.internal_traffic_policy.clone(),
        traffic_distribution: spec.traffic_distribution.clone(),
    }
}

pub(super) fn slice(object: EndpointSlice) -> Result<SliceObject, String> {
    let meta = &object.metadata;
    let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).ok_or_else(|| {
        format!("metadata.labels: {SERVICE_NAME} is missing; it says whose endpoints these are")
    })?;
    let service = at(&format!("metadata.labels[{SERVICE_NAME}]"), DnsLabel::parse(service))?;
    if !matches!(object.address_type.as_str(), "IPv4" | "IPv6") {
        return Err(format!("addressType: {:?} is not carried; use IPv4 or IPv6", object.address_type));
    }
    let ports = match object.ports {
        None => None,
        Some(ports) => slice_ports(ports)?,
    };
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for (i, endpoint) in object.endpoints.into_iter().enumerate() {
        endpoints.push(slice_endpoint(&format!("endpoints[{i}]"), endpoint, &object.address_type)?);
    }
    Ok(SliceObject {
        namespace: space(meta)?,
        name: name(meta, AccountName::parse)?,
        service,
        ports,
        endpoints,
    })
}

fn slice_ports(ports: Vec<EndpointPort>) -> Result<Option<Vec<SlicePort>>, String> {
    let mut list = Vec::with_capacity(ports.len());
    for (i, port) in ports.into_iter().enumerate() {
        let path = format!("ports[{i}]");
        // A port without a number means "every port" to Kubernetes.
        let Some(value) = port.port else { return Ok(None) };
        list.push(SlicePort {
            name: port.name.unwrap_or_default(),
            port: number(&format!("{path}.port"), value)?,
            protocol: protocol(&format!("{path}.protocol"), port.protocol.as_deref())?,
        });
    }
    Ok(Some(list))
}

fn slice_endpoint(path: &str, endpoint: Endpoint, kind: &str) -> Result<SliceEndpoint, String> {
    let field = format!("{path}.addresses");
    let text = endpoint.addresses.first().ok_or_else(|| format!("{field}: is empty; give one address"))?;
    let address: IpAddr = text.parse().map_err(|_| format!("{field}: {text:?} is not an IP address"))?;
    if address.is_ipv4() != (kind == "IPv4") {
        return Err(format!("{field}: {text} is not of addressType {kind}"));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("{field}: {text} is no address that an application can have"));
    }
    let hostname = match endpoint.hostname.as_deref() {
        Some(name) => Some(at(&format!("{path}.hostname"), DnsLabel::parse(name))?.into()),
        None => None,
    };
    let conditions = endpoint.conditions.unwrap_or_default();
    // What is not said of serving counts as true, as Kubernetes says.
    let ready = conditions.ready.unwrap_or(true);
    let draining = !ready && conditions.terminating == Some(true) && conditions.serving != Some(false);
    let pod = match endpoint.target_ref {
        Some(target) if target.kind.as_deref() == Some("Pod") => {
            let name = target.name.as_deref().unwrap_or_default();
            Some(at(&format!("{path}.targetRef.name"), AccountName::parse(name))?)
        }
        _ => None,
    };
    Ok(SliceEndpoint { address, ready, draining, hostname, pod })
}
