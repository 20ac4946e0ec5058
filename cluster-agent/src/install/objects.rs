//! The objects of an installation.

use super::object::{COMPONENT, Count, Key, Kind, NODES, Objects, labels, object};
use crate::registries::plain;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, GatewayRole, NamespaceName, TrustDomain,
    install::{Exposure, InstallSpec, Replicas},
};

/// The Deployment and Service of the ingress gateways.
pub(super) const INGRESS: &str = "tombolo-ingress";
/// The Deployment of the egress gateways.
pub(super) const EGRESS: &str = "tombolo-egress";
/// The DaemonSet of the nodes' proxies.
pub(super) const NODE: &str = "tombolo-node";
/// The agent's own Deployment, which is applied by a person.
pub(super) const AGENT: &str = "tombolo-agent";
/// Where peers' tunnels come in.
pub(super) const TUNNEL: u16 = 15443;
/// Where the gateways' metrics and health are.
const ADMIN: u16 = 15014;
/// The same on a node's own network, where other programs listen too.
const NODE_ADMIN: u16 = 15020;
/// The user of agent and gateways.
const USER: u32 = 65532;
/// How long a pod that ends goes on to take connections: until all nodes have heard that it ends.
const LAST_CALLS_S: u32 = 5;
/// How long it may take to end altogether.
const GRACE_S: u32 = 60;

/// What objects are made from.
#[derive(Clone, Debug)]
pub(super) struct Context<'a> {
    pub(super) spec: &'a InstallSpec,
    pub(super) namespace: &'a NamespaceName,
    pub(super) cluster: &'a ClusterName,
    pub(super) trust_domain: &'a TrustDomain,
    /// The organization's roots, PEM.
    pub(super) roots: String,
    pub(super) abilities: Abilities,
    /// The installation's virtual addresses.
    pub(super) vips: &'a [IpNet],
    /// The class of the gateways' pods, where it is not the system's own; an empty one is none.
    pub(super) priority: Option<&'a str>,
    /// Where egress gateways dial nobody, beside what is ordered.
    pub(super) never_dial: &'a [IpNet],
    /// How many pods there are now, by Deployment: an autoscaler may have said so.
    pub(super) replicas: BTreeMap<&'static str, u32>,
}

/// What the API server can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It has the metrics that an autoscaler reads.
    pub(super) measures: bool,
    /// There is `NodeLocal DNSCache`.
    pub(super) caches: bool,
}

/// All that is to be there.
pub(super) fn wanted(context: &Context<'_>) -> Objects {
    let mut all = Objects::new();
    let mut put = |key: Key, component: &str, annotations: Map<String, Value>, spec: Value, count: Count| {
        let value = object(&key, context.namespace.as_str(), component, annotations, spec, count);
        all.insert(key, value);
    };
    let gateways = &context.spec.gateways;
    for (name, role, replicas) in [
        (EGRESS, GatewayRole::Egress, gateways.egress.replicas),
        (INGRESS, GatewayRole::Ingress, gateways.ingress.replicas),
    ] {
        let component = role.as_str();
        let scaled = context.abilities.measures && replicas.min < replicas.max;
        put(
            Key::new(Kind::Deployment, name),
            component,
            Map::new(),
            deployment(context, name, role, replicas, scaled),
            if scaled { Count::Autoscaled } else { Count::Own },
        );
        let mut add = |key: Key, component: &str, annotations: Map<String, Value>, spec: Value| {
            put(key, component, annotations, spec, Count::Own);
        };
        let budget = json!({ "maxUnavailable": 1, "selector": selector(name) });
        add(Key::new(Kind::PodDisruptionBudget, name), component, Map::new(), budget);
        if scaled {
            add(
                Key::new(Kind::HorizontalPodAutoscaler, name),
                component,
                Map::new(),
                autoscaler(name, replicas),
            );
        }
    }
    let mut add = |key: Key, component: &str, annotations: Map<String, Value>, spec: Value| {
        put(key, component, annotations, spec, Count::Own);
    };
    if context.spec.node.enabled {
        add(Key::new(Kind::DaemonSet, NODE), GatewayRole::Node.as_str(), Map::new(), daemon_set(context));
    }
    let (annotations, service) = service(&gateways.ingress.exposure);
    add(Key::new(Kind::Service, INGRESS), GatewayRole::Ingress.as_str(), annotations, service);
    all
}

fn selector(name: &str) -> Value {
    json!({ "matchLabels": { "app.kubernetes.io/name": name } })
}

fn on_hosts(context: &Context<'_>, role: GatewayRole) -> bool {
    role == GatewayRole::Ingress
        && context.spec.gateways.ingress.exposure.iter().any(|way| matches!(way, Exposure::HostNetwork))
}

fn deployment(
    context: &Context<'_>,
    name: &str,
    role: GatewayRole,
    replicas: Replicas,
    scaled: bool,
) -> Value {
    let count = match context.replicas.get(name) {
        Some(found) if scaled => (*found).clamp(replicas.min, replicas.max),
        _ if scaled => replicas.replicas.clamp(replicas.min, replicas.max),
        _ => replicas.replicas,
    };
    // on the hosts' network, two pods do not fit on one node
    let strategy = if on_hosts(context, role) {
        json!({ "maxSurge": 0, "maxUnavailable": 1 })
    } else {
        json!({ "maxSurge": 1, "maxUnavailable": 0 })
    };
    let mut labels = labels(role.as_str());
    labels["tombolo.io/inject"] = json!("false");
    json!({
        "replicas": count,
        "selector": selector(name),
        "strategy": { "type": "RollingUpdate", "rollingUpdate": strategy },
        "progressDeadlineSeconds": 120,
        // said, so that a rollout that somebody stopped goes on
        "paused": false,
        "template": { "metadata": { "labels": labels }, "spec": pod(context, name, role) },
    })
}

/// A proxy on each node, in the node's own network. It captures what the node's pods send, so it is root with the two capabilities for that,
/// and no other. A node that knows no `BPF`, or allows it to nobody, starts it all the same.
fn daemon_set(context: &Context<'_>) -> Value {
    let mut labels = labels(GatewayRole::Node.as_str());
    labels["tombolo.io/inject"] = json!("false");
    let mut pod = pod(context, NODE, GatewayRole::Node);
    pod["hostNetwork"] = json!(true);
    pod["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    pod["tolerations"] = json!([{ "operator": "Exists" }]);
    prioritize(&mut pod, context, "system-node-critical");
    pod["securityContext"] = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("topologySpreadConstraints");
    }
    json!({
        "selector": selector(NODE),
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
        "template": { "metadata": { "labels": labels }, "spec": pod },
    })
}

fn pod(context: &Context<'_>, name: &str, role: GatewayRole) -> Value {
    // counted by generation: beside those that are replaced, all new ones would go to one node
    let spread = |key: &str| json!({ "maxSkew": 1, "matchLabelKeys": ["pod-template-hash"], "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector(name) });
    let token = json!({ "serviceAccountToken": { "audience": "tombolo-agent", "expirationSeconds": 3600, "path": "token" } });
    let mut pod = json!({
        "serviceAccountName": name,
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": GRACE_S,
        // said whole, so that a node that somebody chose is none
        (NODES): { "kubernetes.io/os": "linux" },
        // as the API server has them anyway: said, so that another one that somebody chose is mended
        "schedulerName": "default-scheduler",
        "dnsPolicy": "ClusterFirst",
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "topologySpreadConstraints": [spread("topology.kubernetes.io/zone"), spread("kubernetes.io/hostname")],
        "containers": [container(context, role)],
        "volumes": [
            { "name": "token", "projected": { "sources": [token] } },
            { "name": "cache", "emptyDir": {} },
        ],
    });
    prioritize(&mut pod, context, "system-cluster-critical");
    if on_hosts(context, role) {
        pod["hostNetwork"] = json!(true);
        pod["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    }
    pod
}

/// On a node that runs out of something, applications go before the way between them.
fn prioritize(pod: &mut Value, context: &Context<'_>, class: &str) {
    // nothing is said as such, so that what stood there goes
    pod["priorityClassName"] = match context.priority.unwrap_or(class) {
        "" => Value::Null,
        class => json!(class),
    };
}

/// Where egress gateways dial nobody: as the agent was told by whoever applied it, which no order takes back, and as is ordered. Each once, in
/// an order that is always the same: another one would replace the pods.
fn never_dial(context: &Context<'_>) -> Vec<IpNet> {
    let ordered = &context.spec.gateways.egress.never_dial;
    let all: BTreeSet<IpNet> =
        context.never_dial.iter().map(IpNet::trunc).chain(ordered.iter().copied()).collect();
    all.into_iter().collect()
}

fn container(context: &Context<'_>, role: GatewayRole) -> Value {
    let Context { spec, namespace, cluster, trust_domain, roots, .. } = context;
    let is_node = role == GatewayRole::Node;
    let admin = if is_node { NODE_ADMIN } else { ADMIN };
    let mut args = vec![
        "run".to_owned(),
        format!("--role={role}"),
        format!("--agent=https://{AGENT}.{namespace}.svc:15012"),
        "--agent-token-file=/var/run/tombolo/token/token".to_owned(),
        format!("--cluster={cluster}"),
        format!("--trust-domain={trust_domain}"),
        "--cache=/var/lib/tombolo/table".to_owned(),
        if is_node { format!("--admin={admin}") } else { format!("--admin=0.0.0.0:{admin}") },
        format!("--last-calls={LAST_CALLS_S}"),
        "--access-log=-".to_owned(),
    ];
    let (option, networks) = match role {
        GatewayRole::Node => ("--vips", context.vips.to_vec()),
        GatewayRole::Egress => ("--never-dial", never_dial(context)),
        GatewayRole::Ingress | GatewayRole::Sidecar => ("", Vec::new()),
    };
    if !networks.is_empty() {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        args.push(format!("{option}={}", networks.join(",")));
    }
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let tunnel = if role == GatewayRole::Ingress { TUNNEL } else { 15008 };
    let port = |name: &str, port: u16| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let probe = |path: &str, period: u32, failures: u32| json!({ "httpGet": { "path": path, "port": "admin" }, "periodSeconds": period, "failureThreshold": failures });
    let mut container = json!({
        "name": "gateway",
        "image": image(spec, "tombolo-gateway"),
        "imagePullPolicy": "IfNotPresent",
        // the image's own: said, so that one that somebody put in its place goes
        "command": [],
        "args": args,
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IP", "status.podIP"),
            field("POD_IPS", "status.podIPs"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            { "name": "TOMBOLO_AGENT_ROOTS", "value": roots },
        ],
        "ports": [port("tunnel", tunnel), port("admin", admin)],
        "startupProbe": probe("/healthz", 1, 60),
        "livenessProbe": probe("/healthz", 10, 6),
        "readinessProbe": probe("/readyz", 2, 2),
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "512Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "token", "mountPath": "/var/run/tombolo/token", "readOnly": true },
            { "name": "cache", "mountPath": "/var/lib/tombolo" },
        ],
    });
    if is_node {
        container["securityContext"] = json!({
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "BPF"] },
        });
    }
    container
}

/// An image of this order.
pub(crate) fn image(spec: &InstallSpec, name: &str) -> String {
    format!("{}/{name}:{}", plain(&spec.registry), spec.version)
}

fn autoscaler(name: &str, replicas: Replicas) -> Value {
    json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
        "minReplicas": replicas.min,
        "maxReplicas": replicas.max,
        "metrics": [{
            "type": "Resource",
            "resource": { "name": "cpu", "target": { "type": "AverageValue", "averageValue": "500m" } },
        }],
    })
}

/// The ingress gateways' Service, and its annotations.
fn service(ways: &[Exposure]) -> (Map<String, Value>, Value) {
    let (mut kind, mut annotations) = ("ClusterIP", Map::new());
    let mut port = json!({ "name": "tunnel", "port": TUNNEL, "targetPort": "tunnel", "protocol": "TCP" });
    for way in ways {
        match way {
            Exposure::LoadBalancer { annotations: given } => {
                kind = "LoadBalancer";
                annotations.extend(given.iter().map(|(key, value)| (key.clone(), json!(value))));
            }
            Exposure::NodePort { port: number } => {
                if kind == "ClusterIP" {
                    kind = "NodePort";
                }
                if let Some(number) = number {
                    port["nodePort"] = json!(number);
                }
            }
            Exposure::HostNetwork | Exposure::Address { .. } => {}
        }
    }
    let selector = json!({ "app.kubernetes.io/name": INGRESS, COMPONENT: GatewayRole::Ingress.as_str() });
    (annotations, json!({ "type": kind, "selector": selector, "ports": [port] }))
}
