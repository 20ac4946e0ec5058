//! What is to be installed in a cluster, as it is asked for and shown.

use super::super::capture::CaptureMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tombolo_model::{
    NamespaceName,
    install::{self as model, InstallSpec},
    intent::Labels,
};
use utoipa::ToSchema;

/// What is to be installed in a cluster. What is left out has its default, not what stood before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallRequest {
    /// The tag of the images; the controller's `--image-version` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.1.0")]
    pub(crate) version: Option<String>,
    /// Where the images are; the controller's `--image-registry` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "registry.example.com/tombolo")]
    pub(crate) registry: Option<String>,
    /// Whose services are read, and whose pods take part. Those of the system never do.
    #[serde(default)]
    pub(crate) namespaces: NamespaceChoice,
    /// The gateways.
    #[serde(default)]
    pub(crate) gateways: GatewaysRequest,
    /// Name resolution.
    #[serde(default)]
    pub(crate) dns: DnsRequest,
    /// The webhook that puts proxies into pods.
    #[serde(default)]
    pub(crate) injector: InjectorRequest,
    /// The proxy of each node.
    #[serde(default)]
    pub(crate) node: NodeRequest,
    /// The capture mode of namespaces about which neither their label nor a global namespace says anything.
    #[serde(default)]
    pub(crate) default_mode: CaptureMode,
}

/// Chooses namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NamespaceChoice {
    /// All but these.
    Exclude(Vec<String>),
    /// These alone.
    Include(Vec<String>),
}

impl Default for NamespaceChoice {
    fn default() -> Self {
        Self::Exclude(Vec::new())
    }
}

/// The gateways of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaysRequest {
    /// Those that send to other clusters.
    #[serde(default)]
    pub(crate) egress: EgressRequest,
    /// Those that take from other clusters.
    #[serde(default)]
    pub(crate) ingress: IngressRequest,
}

/// How many egress gateways, and where they dial nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EgressRequest {
    /// So many, where the cluster does not measure load.
    pub(crate) replicas: u32,
    /// At least so many, where it does.
    pub(crate) min: u32,
    /// At most so many.
    pub(crate) max: u32,
    /// Ranges of this cluster's pods and services, at which no other cluster's gateway is ever reached: nobody is dialled there, whatever other
    /// clusters say. Those that the agent was told itself (`--never-dial`) count beside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) never_dial: Vec<String>,
}

impl Default for EgressRequest {
    fn default() -> Self {
        let model::Replicas { replicas, min, max } = model::Replicas::default();
        Self { replicas, min, max, never_dial: Vec::new() }
    }
}

/// How many ingress gateways, and how other clusters reach them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IngressRequest {
    /// So many, where the cluster does not measure load.
    pub(crate) replicas: u32,
    /// At least so many, where it does.
    pub(crate) min: u32,
    /// At most so many.
    pub(crate) max: u32,
    /// How other clusters reach them; several at once are fine. A load balancer where it is left out.
    pub(crate) exposure: Vec<ExposureRequest>,
}

impl Default for IngressRequest {
    fn default() -> Self {
        let model::Replicas { replicas, min, max } = model::Replicas::default();
        Self {
            replicas,
            min,
            max,
            exposure: vec![ExposureRequest::LoadBalancer { annotations: Labels::new() }],
        }
    }
}

/// A way from other clusters to the ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ExposureRequest {
    /// The addresses or names that a Service of type `LoadBalancer` gets.
    LoadBalancer {
        /// For the Service, as the cloud wants them.
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        annotations: Labels,
    },
    /// A port of the nodes' addresses.
    NodePort {
        /// Which; the cluster chooses one where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The gateways' pods use the network of their nodes.
    HostNetwork {},
    /// Addresses that somebody else leads to the gateways.
    Address {
        /// `host:port` each.
        addresses: Vec<String>,
    },
}

/// What is done about name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DnsRequest {
    /// Whether the cluster's CoreDNS is told to forward the domains of global namespaces to the agent.
    pub(crate) corefile: bool,
}

impl Default for DnsRequest {
    fn default() -> Self {
        Self { corefile: true }
    }
}

/// The webhook that puts proxies into pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InjectorRequest {
    /// Whether there is one.
    pub(crate) enabled: bool,
    /// What happens to pods while it does not answer.
    pub(crate) failure_policy: FailurePolicy,
}

impl Default for InjectorRequest {
    fn default() -> Self {
        Self { enabled: true, failure_policy: FailurePolicy::Ignore }
    }
}

/// What happens to pods while the webhook does not answer: `ignore` lets them start without a proxy, `fail` does not let
/// them start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailurePolicy {
    #[default]
    Ignore,
    Fail,
}

/// The proxy of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeRequest {
    /// Whether there is one.
    pub(crate) enabled: bool,
}

impl InstallRequest {
    pub(in crate::app) fn show(spec: &InstallSpec) -> Self {
        let names = |names: &BTreeSet<NamespaceName>| names.iter().map(ToString::to_string).collect();
        let model::Egress { replicas: model::Replicas { replicas, min, max }, never_dial } =
            &spec.gateways.egress;
        let never_dial = never_dial.iter().map(ToString::to_string).collect();
        let egress = EgressRequest { replicas: *replicas, min: *min, max: *max, never_dial };
        let model::Replicas { replicas, min, max } = spec.gateways.ingress.replicas;
        let exposure = spec.gateways.ingress.exposure.iter().map(|way| match way {
            model::Exposure::LoadBalancer { annotations } => {
                ExposureRequest::LoadBalancer { annotations: annotations.clone() }
            }
            model::Exposure::NodePort { port } => ExposureRequest::NodePort { port: *port },
            model::Exposure::HostNetwork => ExposureRequest::HostNetwork {},
            model::Exposure::Address { addresses } => {
                ExposureRequest::Address { addresses: addresses.iter().cloned().collect() }
            }
        });
        let ingress = IngressRequest { replicas, min, max, exposure: exposure.collect() };
        Self {
            version: Some(spec.version.clone()),
            registry: Some(spec.registry.clone()),
            namespaces: match &spec.namespaces {
                model::Namespaces::Exclude(these) => NamespaceChoice::Exclude(names(these)),
                model::Namespaces::Include(these) => NamespaceChoice::Include(names(these)),
            },
            gateways: GatewaysRequest { egress, ingress },
            dns: DnsRequest { corefile: spec.dns.corefile },
            injector: InjectorRequest {
                enabled: spec.injector.enabled,
                failure_policy: match spec.injector.failure_policy {
                    model::FailurePolicy::Ignore => FailurePolicy::Ignore,
                    model::FailurePolicy::Fail => FailurePolicy::Fail,
                },
            },
            node: NodeRequest { enabled: spec.node.enabled },
            default_mode: spec.capture().into(),
        }
    }
}
