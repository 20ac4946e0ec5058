//! What is added to a pod. Pure.
//!
//! Two init containers, before those that the pod has: `tombolo-init` redirects (it alone has a capability, `NET_ADMIN`, and ends at
//! once), then `tombolo-proxy`, a native sidecar: it is ready before anything else starts, and it ends after everything else did, so
//! that Jobs end. The pod's own containers are left as they are. Probes need nothing: a probe is a plain connection, and the proxy
//! passes those on.

use super::{
    Settings,
    pod::{Container, Pod, Spec},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt};
use tombolo_model::intent::Labels;

/// `"false"`, as a label or an annotation of a pod: it is left alone.
pub const INJECT: &str = "tombolo.io/inject";
/// Ports, separated by commas, whose incoming connections go past the proxy; `*` for all.
pub const EXCLUDE_INBOUND: &str = "tombolo.io/exclude-inbound-ports";
/// Ports whose outgoing connections go past the proxy.
pub const EXCLUDE_OUTBOUND: &str = "tombolo.io/exclude-outbound-ports";
/// On an injected pod: the image of its proxy.
pub const PROXY: &str = "tombolo.io/proxy";
/// The name of the proxy's container.
pub const PROXY_CONTAINER: &str = "tombolo-proxy";
const INIT_CONTAINER: &str = "tombolo-init";
const VOLUME: &str = "tombolo-token";
const TOKEN_FOLDER: &str = "/var/run/tombolo/token";
/// Whom the token is for.
const AUDIENCE: &str = "tombolo-agent";
/// The proxy's user: its own connections pass the redirect untouched.
const UID: i64 = 1337;
const OUTBOUND: u16 = 15_001;
const INBOUND: u16 = 15_006;
const TUNNEL: u16 = 15_008;
const ADMIN: u16 = 15_020;
/// What `pod-security.kubernetes.io/enforce` may say that forbids `NET_ADMIN`.
const RESTRICTIONS: [&str; 2] = ["baseline", "restricted"];
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Why a pod is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// It says so itself.
    OptedOut,
    /// It has a proxy.
    Injected,
    /// It has its node's network, which is not ours to redirect.
    HostNetwork,
    /// It runs Windows.
    Windows,
    /// Its namespace lets no pod have `NET_ADMIN`, so it would not start.
    Restricted(String),
    /// An annotation can't be read.
    Annotation {
        /// Which.
        key: &'static str,
        /// What it says.
        text: String,
    },
    /// It could not be read.
    Unreadable(String),
}

impl Left {
    /// Whether whoever made the pod would want to know.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(self, Self::OptedOut | Self::Injected)
    }
    /// For metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::OptedOut => "opted_out",
            Self::Injected => "injected_before",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
            Self::Restricted(_) => "restricted",
            Self::Annotation { .. } => "annotation",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no proxy is added: ")?;
        match self {
            Self::OptedOut => write!(f, "{INJECT} is \"false\""),
            Self::Injected => f.write_str("there is one"),
            Self::HostNetwork => {
                f.write_str("the pod has its node's network; it reaches global names in mode gateway")
            }
            Self::Windows => f.write_str("there is none for Windows"),
            Self::Restricted(level) => write!(
                f,
                "the namespace enforces the Pod Security level {level}, which forbids NET_ADMIN; use capture mode node or \
                 gateway here, or label it {ENFORCE}=privileged"
            ),
            Self::Annotation { key, text } => {
                let all = if *key == EXCLUDE_INBOUND { ", or * for all" } else { "" };
                write!(f, "{key} is {text:?}; write ports, separated by commas{all}")
            }
            Self::Unreadable(why) => write!(f, "the pod can't be read: {why}"),
        }
    }
}

/// The operations (RFC 6902) that give a pod its proxy.
///
/// # Errors
/// Why it is left as it is.
pub fn patch(pod: &Pod, namespace: &Labels, settings: &Settings) -> Result<Vec<Value>, Left> {
    let marks = Marks { pod };
    let Some(spec) = &pod.spec else { return Err(Left::Unreadable("it has no spec".to_owned())) };
    if marks.opted_out() {
        return Err(Left::OptedOut);
    }
    if containers(spec).any(|container| container.name == PROXY_CONTAINER) {
        return Err(Left::Injected);
    }
    if spec.host_network == Some(true) {
        return Err(Left::HostNetwork);
    }
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return Err(Left::Windows);
    }
    if let Some(level) = namespace.get(ENFORCE).filter(|level| RESTRICTIONS.contains(&level.as_str())) {
        return Err(Left::Restricted(level.clone()));
    }
    let redirect = redirect_container(spec, &marks, settings)?;
    let mut operations = vec![annotation(pod, &settings.image)];
    let volume = token_volume();
    operations.extend(insert(
        "/spec/initContainers",
        spec.init_containers.as_ref().map(Vec::len),
        vec![redirect, proxy_container(settings)],
    ));
    operations.push(match &spec.volumes {
        Some(_) => json!({"op": "add", "path": "/spec/volumes/-", "value": volume}),
        None => json!({"op": "add", "path": "/spec/volumes", "value": [volume]}),
    });
    Ok(operations)
}

/// What is written on a pod.
struct Marks<'a> {
    pod: &'a Pod,
}

impl Marks<'_> {
    fn annotation(&self, key: &str) -> Option<&str> {
        self.pod.metadata.as_ref()?.annotations.as_ref()?.get(key)
    }

    fn opted_out(&self) -> bool {
        let labels = self.pod.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
        labels.and_then(|labels| labels.get(INJECT)).or(self.annotation(INJECT)) == Some("false")
    }

    /// The ports of an annotation; none for all.
    fn ports(&self, key: &'static str) -> Result<Option<BTreeSet<u16>>, Left> {
        let Some(text) = self.annotation(key).map(str::trim) else { return Ok(Some(BTreeSet::new())) };
        if text == "*" {
            return Ok(None);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let ports: Result<BTreeSet<u16>, _> = parts.map(str::parse).collect();
        ports.map(Some).map_err(|_| Left::Annotation { key, text: text.to_owned() })
    }
}

fn containers(spec: &Spec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(spec.containers.iter().flatten())
}

/// The TCP ports that the pod says it listens on, and that are captured.
fn inbound(spec: &Spec, marks: &Marks<'_>) -> Result<BTreeSet<u16>, Left> {
    let Some(excluded) = marks.ports(EXCLUDE_INBOUND)? else { return Ok(BTreeSet::new()) };
    let ports = containers(spec).flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
    let numbers = tcp.filter_map(|port| u16::try_from(port.container_port).ok());
    let ours = [OUTBOUND, INBOUND, TUNNEL, ADMIN];
    Ok(numbers.filter(|port| !excluded.contains(port) && !ours.contains(port)).collect())
}

fn redirect_container(spec: &Spec, marks: &Marks<'_>, settings: &Settings) -> Result<Value, Left> {
    let list = |all: &BTreeSet<u16>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let vips: Vec<String> = settings.vips.iter().map(ToString::to_string).collect();
    let mut args = vec![
        "redirect".to_owned(),
        format!("--vips={}", vips.join(",")),
        format!("--port={OUTBOUND}"),
        format!("--exclude-uid={UID}"),
    ];
    match marks.ports(EXCLUDE_OUTBOUND)? {
        Some(ports) if ports.is_empty() => {}
        Some(ports) => args.push(format!("--exclude-outbound-ports={}", list(&ports))),
        None => {
            let (key, text) = (EXCLUDE_OUTBOUND, "*".to_owned());
            return Err(Left::Annotation { key, text });
        }
    }
    let captured = inbound(spec, marks)?;
    if !captured.is_empty() {
        args.push(format!("--inbound-port={INBOUND}"));
        args.push(format!("--inbound={}", list(&captured)));
    }
    Ok(json!({
        "name": INIT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
            "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }))
}

fn proxy_container(settings: &Settings) -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": [
            "run",
            "--role=sidecar",
            format!("--agent={}", settings.agent),
            format!("--agent-token-file={TOKEN_FOLDER}/token"),
            format!("--cluster={}", settings.cluster),
            format!("--trust-domain={}", settings.trust_domain),
            "--capture=sidecar",
            format!("--outbound-port={OUTBOUND}"),
            format!("--inbound-port={INBOUND}"),
            format!("--admin={ADMIN}"),
            "--access-log=-",
        ],
        "env": [
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_NAME", "metadata.name"),
            field("POD_IP", "status.podIP"),
            field("POD_IPS", "status.podIPs"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            {"name": "TOMBOLO_AGENT_ROOTS", "value": settings.roots},
        ],
        "ports": [
            {"name": "tombolo-tunnel", "containerPort": TUNNEL, "protocol": "TCP"},
            {"name": "tombolo-admin", "containerPort": ADMIN, "protocol": "TCP"},
        ],
        "securityContext": {
            "runAsUser": UID, "runAsGroup": UID, "runAsNonRoot": true,
            "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        // The agent may be away for minutes: the pod waits for it, and is not restarted meanwhile.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": ADMIN}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 600,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "volumeMounts": [{"name": VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true}],
    })
}

fn token_volume() -> Value {
    let token =
        json!({"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}});
    json!({"name": VOLUME, "projected": {"sources": [token]}})
}

fn annotation(pod: &Pod, image: &str) -> Value {
    match pod.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref()) {
        Some(_) => {
            let path = format!("/metadata/annotations/{}", PROXY.replace('/', "~1"));
            json!({"op": "add", "path": path, "value": image})
        }
        None => {
            let all = Labels::from([(PROXY.to_owned(), image.to_owned())]);
            json!({"op": "add", "path": "/metadata/annotations", "value": all})
        }
    }
}

/// Puts values before those of a list that has this many, or is not there.
fn insert(path: &str, there: Option<usize>, values: Vec<Value>) -> Vec<Value> {
    if there.is_none() {
        return vec![json!({"op": "add", "path": path, "value": values})];
    }
    let add = |(at, value)| json!({"op": "add", "path": format!("{path}/{at}"), "value": value});
    values.into_iter().enumerate().map(add).collect()
}
