//! From an API server's objects to ours. What the API server took is sound, so little can be wrong with it; what can't
//! be carried is left out, and said.

use crate::{
    locality,
    source::{
        Check, NamespaceObject, NodeObject, Object, ObjectKey, ObjectKind, PodObject, ServiceObject,
        convert::{self, HEALTH_CHECK, SERVICE_ACCOUNT, SERVICE_NAME},
        object::{AccountObject, ExportObject, default_account, node_key},
    },
};
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service, ServiceAccount, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr};
use tombolo_model::{
    AccountName, DnsLabel, Held, NamespaceName, bounds, intent::Labels, inventory::ServiceKey, mcs::Traits,
};

/// On each object that the agent makes: it is not one to be read.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tombolo-agent");

/// An object, as far as it can be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Read {
    pub(super) key: ObjectKey,
    /// None where it can't be used, or is not one for us.
    pub(super) object: Option<Object>,
    /// What was left out, and why.
    pub(super) problems: Vec<String>,
}

impl Read {
    fn of(key: ObjectKey, object: Result<Object, String>) -> Self {
        match object {
            Ok(object) => Self { key, object: Some(object), problems: Vec::new() },
            Err(problem) => Self { key, object: None, problems: vec![problem] },
        }
    }
    const fn passed_over(key: ObjectKey) -> Self {
        Self { key, object: None, problems: Vec::new() }
    }
}

/// What names an object. Kubernetes takes no other names for these kinds than ours.
fn key(kind: ObjectKind, meta: &ObjectMeta) -> ObjectKey {
    let name = meta.name.as_deref().and_then(|name| AccountName::parse(name).ok());
    let name = name.unwrap_or_else(default_account);
    let namespace = match kind {
        ObjectKind::Node => return node_key(&name),
        ObjectKind::Namespace => meta.name.as_deref(),
        _ => meta.namespace.as_deref(),
    };
    let namespace = namespace.and_then(|name| NamespaceName::parse(name).ok());
    let namespace = namespace.unwrap_or_else(|| node_key(&name).namespace);
    ObjectKey { kind, namespace, name }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

pub(super) fn namespace(object: PartialObjectMeta<Namespace>) -> Read {
    let key = key(ObjectKind::Namespace, &object.metadata);
    let ending = object.metadata.deletion_timestamp.is_some();
    let labels = object.metadata.labels.unwrap_or_default();
    let name = key.namespace.clone();
    Read::of(key, Ok(Object::Namespace(NamespaceObject { name, labels, ending })))
}

pub(super) fn account(object: PartialObjectMeta<ServiceAccount>) -> Read {
    let key = key(ObjectKind::ServiceAccount, &object.metadata);
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    // In a cluster a workload is its pod; no process is looked for.
    Read::of(key, Ok(Object::Account(AccountObject { namespace, name, selectors: BTreeSet::new() })))
}

pub(super) fn service(mut object: Service, vips: &[IpNet]) -> Read {
    let key = key(ObjectKind::Service, &object.metadata);
    let ours = label(&object.metadata, MANAGED_BY.0) == Some(MANAGED_BY.1);
    let the_api_server = key.namespace.as_str() == "default" && key.name.as_str() == "kubernetes";
    let mut problems: Vec<String> =
        object.spec.as_ref().and_then(|spec| claim(spec, vips)).into_iter().collect();
    if ours || the_api_server {
        return Read { problems, ..Read::passed_over(key) };
    }
    let spec = object.spec.get_or_insert_default();
    let traits = convert::traits(spec).into();
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref().unwrap_or_default();
        problems.push(format!(
            "spec.type: an ExternalName can't be exported, as it has no endpoints; call {target} itself, or make a \
             Service without a selector and an EndpointSlice with the addresses"
        ));
        let object = external(&key, traits).map(Object::Service);
        return Read { key, object, problems };
    }
    let claims = problems.len();
    if let Some(ports) = &mut spec.ports {
        ports.retain(|port| {
            let carried = matches!(port.protocol.as_deref(), None | Some("TCP" | "UDP"));
            if !carried {
                let protocol = port.protocol.as_deref().unwrap_or_default();
                problems.push(format!(
                    "spec.ports: port {} is {protocol}, which is not carried; it is left out",
                    port.port
                ));
            }
            carried
        });
        if ports.is_empty() && problems.len() > claims {
            return Read { key, object: None, problems };
        }
    }
    let annotations = object.metadata.annotations.get_or_insert_default();
    // Kubernetes checks the endpoints, and the pods say who they are: these two are for manifests, and for endpoints
    // that are no pods.
    annotations.remove(HEALTH_CHECK);
    let declared = annotations.contains_key(SERVICE_ACCOUNT);
    if let Some(Err(error)) = annotations.get(SERVICE_ACCOUNT).map(|text| AccountName::parse(text)) {
        problems.push(format!("metadata.annotations[{SERVICE_ACCOUNT}]: {error}; it is passed over"));
        annotations.remove(SERVICE_ACCOUNT);
    }
    let declared = declared && annotations.contains_key(SERVICE_ACCOUNT);
    match convert::service(object) {
        Ok(mut service) => {
            service.check = Check::None;
            service.traits = traits;
            service.account = service.account.filter(|_| declared);
            Read { key, object: Some(Object::Service(service)), problems }
        }
        Err(problem) => {
            problems.push(problem);
            Read { key, object: None, problems }
        }
    }
}

/// What a Service of others says that has virtual addresses as its own: the agent's are in its namespace, which is not read here.
fn claim(spec: &ServiceSpec, vips: &[IpNet]) -> Option<String> {
    // kube-proxy reads more spellings of an address than anybody else
    let is_virtual = |text: &&String| {
        text.parse::<IpAddr>().map_or(true, |address| vips.iter().any(|net| net.contains(&address)))
    };
    let claimed: Vec<&str> =
        spec.external_ips.iter().flatten().filter(is_virtual).map(String::as_str).collect();
    (!claimed.is_empty()).then(|| {
        format!(
            "spec.externalIPs: {} is a virtual address, and may be that of a global name, whose connections then come here; take it out \
             (the policy tombolo-virtual-addresses of the agent's manifest lets nobody have one)",
            claimed.join(", ")
        )
    })
}

/// A Service that stands for nothing in the cluster: known, so that its ServiceExport can be told so.
fn external(key: &ObjectKey, traits: Held<Traits>) -> Option<ServiceObject> {
    let key = ServiceKey { namespace: key.namespace.clone(), name: DnsLabel::parse(key.name.as_str()).ok()? };
    let (created_s, ports, account) = (None, Vec::new(), None);
    Some(ServiceObject {
        key,
        created_s,
        ports,
        headless: false,
        account,
        check: Check::None,
        traits,
        external: true,
    })
}

pub(super) fn export(object: DynamicObject) -> Read {
    let key = key(ObjectKind::ServiceExport, &object.metadata);
    if object.metadata.deletion_timestamp.is_some() {
        return Read::passed_over(key);
    }
    let name = match DnsLabel::parse(key.name.as_str()) {
        Ok(name) => name,
        Err(error) => {
            let problem = format!("metadata.name: {error}; a ServiceExport is called like its Service");
            return Read::of(key, Err(problem));
        }
    };
    let mut problems = Vec::new();
    let mut map = |field: &str, good: fn(&str, &str) -> bool| {
        let given = object.data.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_object);
        let mut map = Labels::new();
        for (name, value) in given.into_iter().flatten() {
            match value.as_str().filter(|value| good(name, value)) {
                Some(value) => drop(map.insert(name.clone(), value.to_owned())),
                None => problems
                    .push(format!("spec.{field}[{name}]: no ServiceImport can have it; it is left out")),
            }
        }
        let size = bounds::size(&map);
        if size > bounds::LABELS {
            let most = bounds::LABELS;
            problems.push(format!("spec.{field}: has {size} bytes; at most {most} go with a service"));
            map.clear();
        }
        map
    };
    let labels = map("exportedLabels", |name, value| is_qualified(name) && is_label_value(value));
    // a NUL is no text to PostgreSQL
    let annotations = map("exportedAnnotations", |name, value| is_qualified(name) && !value.contains('\0'));
    let created_s = object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let service = ServiceKey { namespace: key.namespace.clone(), name };
    let object = ExportObject { key: service, created_s, labels, annotations };
    Read { key, object: Some(Object::Export(object)), problems }
}

/// Whether Kubernetes takes this as the name of a label or an annotation: `[domain/]name`.
fn is_qualified(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    domain.is_none_or(|domain| AccountName::parse(domain).is_ok_and(|parsed| parsed.as_str() == domain))
        && !name.is_empty()
        && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let at_the_ends = |text: &str| {
        let end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        end(text.chars().next()) && end(text.chars().next_back())
    };
    text.len() <= 63
        && at_the_ends(text)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

pub(super) fn slice(mut object: EndpointSlice) -> Read {
    let key = key(ObjectKind::EndpointSlice, &object.metadata);
    let ours = label(&object.metadata, MANAGED_BY.0) == Some(MANAGED_BY.1);
    if ours || label(&object.metadata, SERVICE_NAME).is_none() {
        return Read::passed_over(key);
    }
    if let Some(ports) = &mut object.ports {
        // Its service says that they are left out.
        ports.retain(|port| matches!(port.protocol.as_deref(), None | Some("TCP" | "UDP")));
    }
    Read::of(key, convert::slice(object).map(Object::Slice))
}

pub(super) fn pod(object: Pod) -> Read {
    let key = key(ObjectKind::Pod, &object.metadata);
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let account = spec.service_account_name.filter(|name| !name.is_empty());
    let account = match account.map_or_else(|| Ok(default_account()), |name| AccountName::parse(&name)) {
        Ok(account) => account,
        Err(error) => return Read::of(key, Err(format!("spec.serviceAccountName: {error}"))),
    };
    let texts = status.pod_ips.unwrap_or_default().into_iter().map(|address| address.ip).chain(status.pod_ip);
    let pod = PodObject {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: object.metadata.uid.unwrap_or_default().into(),
        node: spec.node_name.and_then(|name| AccountName::parse(&name).ok()),
        host_network: spec.host_network.unwrap_or_default(),
        addresses: texts.filter_map(|text| text.parse().ok()).collect(),
        account,
    };
    Read::of(key, Ok(Object::Pod(pod)))
}

pub(super) fn node(object: PartialObjectMeta<Node>) -> Read {
    let key = key(ObjectKind::Node, &object.metadata);
    let (name, locality) = (key.name.clone(), locality::of(&object.metadata));
    Read::of(key, Ok(Object::Node(NodeObject { name, locality })))
}
