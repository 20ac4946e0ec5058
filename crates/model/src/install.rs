//! What the agent of a Kubernetes cluster is to install there: gateways, DNS forwarding, the injector.
//!
//! The controller tells it as one resource. That there is none means "leave it as it is": only [`InstallOrder::Removed`]
//! takes something away, so that a controller that never heard of it can't.

use crate::{
    intent::{CaptureMode, Labels},
    name::NamespaceName,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a cluster is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstallOrder {
    /// This is to be there.
    Installed(InstallSpec),
    /// Nothing of it is to be there any more.
    Removed {
        /// Rises with each order.
        revision: u64,
    },
}

impl InstallOrder {
    /// Which order it is; it rises with each.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Installed(spec) => spec.revision,
            Self::Removed { revision } => *revision,
        }
    }

    /// Where egress gateways dial no other cluster's gateway, as far as the order says.
    #[must_use]
    pub fn never_dial(&self) -> &BTreeSet<IpNet> {
        static NONE: BTreeSet<IpNet> = BTreeSet::new();
        match self {
            Self::Installed(spec) => &spec.gateways.egress.never_dial,
            Self::Removed { .. } => &NONE,
        }
    }
}

/// An order that is only tried: the agent says once what it would write. It stands beside the order in force, which it leaves
/// as it is, and ends when it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Rises with each of a cluster.
    pub number: u64,
    /// What would be asked for.
    pub spec: InstallSpec,
}

/// What an agent answers to a [`Trial`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// Which trial.
    pub number: u64,
    /// What would be written, a line each; empty where all of it is there.
    #[serde(default)]
    pub plan: Vec<String>,
    /// How the Corefile would change, a line each, with `+` or `-` before it.
    #[serde(default)]
    pub corefile: Vec<String>,
    /// What can't be done, and what to do about it.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What is to be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSpec {
    /// Rises with each order.
    #[serde(default)]
    pub revision: u64,
    /// The tag of the images, of agent and gateways alike.
    pub version: String,
    /// Where the images are: `<registry>/tombolo-gateway:<version>`.
    pub registry: String,
    /// Whose services are read, and whose pods take part.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// The gateways.
    #[serde(default)]
    pub gateways: Gateways,
    /// Name resolution.
    #[serde(default)]
    pub dns: DnsInstall,
    /// The webhook that puts proxies into pods.
    #[serde(default)]
    pub injector: Injector,
    /// The proxy of each node.
    #[serde(default)]
    pub node: NodeProxy,
    /// The capture mode of namespaces that say nothing themselves, as agents know it that do not know `capture`.
    #[serde(default)]
    pub default_mode: DefaultMode,
    /// The same, where it is one that `default_mode` has no word for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureMode>,
}

impl InstallSpec {
    /// The capture mode of namespaces that say nothing themselves.
    #[must_use]
    pub fn capture(&self) -> CaptureMode {
        self.capture.unwrap_or(match self.default_mode {
            DefaultMode::Gateway => CaptureMode::Gateway,
            DefaultMode::None => CaptureMode::None,
        })
    }

    /// Sets it, in words that an older agent knows too where there are such.
    pub fn set_capture(&mut self, mode: CaptureMode) {
        let (default_mode, capture) = match mode {
            CaptureMode::Gateway => (DefaultMode::Gateway, None),
            CaptureMode::None => (DefaultMode::None, None),
            // To an older agent they are pods that nothing was said about.
            CaptureMode::Sidecar | CaptureMode::Node => (DefaultMode::Gateway, Some(mode)),
        };
        self.default_mode = default_mode;
        self.capture = capture;
    }
}

/// Chooses namespaces. Those of the system never take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespaces {
    /// All but these.
    Exclude(BTreeSet<NamespaceName>),
    /// These alone.
    Include(BTreeSet<NamespaceName>),
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::Exclude(BTreeSet::new())
    }
}

impl Namespaces {
    /// Whether this one is chosen.
    #[must_use]
    pub fn chooses(&self, namespace: &NamespaceName) -> bool {
        match self {
            Self::Exclude(these) => !these.contains(namespace),
            Self::Include(these) => these.contains(namespace),
        }
    }
}

/// The gateways of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateways {
    /// Those that send to other clusters.
    #[serde(default)]
    pub egress: Egress,
    /// Those that take from other clusters.
    #[serde(default)]
    pub ingress: Ingress,
}

/// How many pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// So many, where the cluster does not measure load.
    pub replicas: u32,
    /// At least so many, where it does.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { replicas: 2, min: 2, max: 6 }
    }
}

/// The egress gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// How many.
    #[serde(flatten)]
    pub replicas: Replicas,
    /// Where they dial no other cluster's gateway, beside what the agent was told itself. An older agent knows of no such.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub never_dial: BTreeSet<IpNet>,
}

/// The ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// How many.
    #[serde(flatten)]
    pub replicas: Replicas,
    /// How other clusters reach them; several at once are fine.
    #[serde(default)]
    pub exposure: Vec<Exposure>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            replicas: Replicas::default(),
            exposure: vec![Exposure::LoadBalancer { annotations: Labels::new() }],
        }
    }
}

/// A way from other clusters to the ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Exposure {
    /// The addresses or names that a Service of type `LoadBalancer` gets.
    LoadBalancer {
        /// For the Service, as the cloud wants them.
        #[serde(default)]
        annotations: Labels,
    },
    /// A port of the nodes' addresses.
    NodePort {
        /// Which; the cluster chooses one where none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The gateways' pods use the network of their nodes.
    HostNetwork,
    /// Addresses that somebody else leads to the gateways.
    Address {
        /// `host:port` each.
        addresses: BTreeSet<String>,
    },
}

/// What is done about name resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsInstall {
    /// Whether the cluster's `CoreDNS` is told to forward our domains.
    pub corefile: bool,
}

impl Default for DnsInstall {
    fn default() -> Self {
        Self { corefile: true }
    }
}

/// The webhook that puts proxies into pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injector {
    /// Whether there is one.
    pub enabled: bool,
    /// What happens to pods while it does not answer.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

impl Default for Injector {
    fn default() -> Self {
        Self { enabled: true, failure_policy: FailurePolicy::default() }
    }
}

/// What happens to pods while the webhook does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// They start without a proxy.
    #[default]
    Ignore,
    /// They do not start.
    Fail,
}

/// The proxy of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProxy {
    /// Whether there is one.
    pub enabled: bool,
}

/// How pods reach global names where their namespace says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultMode {
    /// Through Services of the egress gateways.
    #[default]
    Gateway,
    /// Not at all.
    None,
}

/// How an installation goes, as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallStatus {
    /// The order that it is about.
    pub revision: u64,
    /// In their order.
    #[serde(default)]
    pub steps: Vec<InstallStep>,
    /// How many ranges of the order egress gateways never dial, as the agent was told of them. None from an agent that knows of no such,
    /// and where a controller that knows of none handed the order on.
    #[serde(default, skip_serializing_if = "is_none")]
    pub never_dial: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none(count: &usize) -> bool {
    *count == 0
}

impl InstallStatus {
    /// How this order goes.
    #[must_use]
    pub fn of(order: &InstallOrder, steps: Vec<InstallStep>) -> Self {
        Self { revision: order.revision(), steps, never_dial: order.never_dial().len() }
    }
}

/// A step of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallStep {
    /// Which: `egress`, `ingress`, `address`, `dns`, `injector`, `peers`.
    pub step: String,
    /// How it stands.
    pub state: StepState,
    /// What is there, what is waited for, or what is wrong and what to do.
    #[serde(default)]
    pub message: String,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// For something before it, or that is not ours to do.
    Waiting,
    /// It is being done.
    Working,
    /// It is done.
    Done,
    /// It failed, and is tried again.
    Failed,
}

#[cfg(test)]
mod tests;
