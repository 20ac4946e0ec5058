//! Capture mode `sidecar` for pods: the API server asks this agent about each new pod of a namespace that wants it, and the agent
//! answers with what is to be added, a proxy and the redirect to it.
//!
//! [`patch`] decides: a function of the pod, its namespace's labels and the settings. [`review`] reads the question and writes the
//! answer. [`server`] is the HTTPS between, and [`configuration`] tells the API server whom to ask and whom to believe. Only pods of
//! namespaces in this mode are asked about, so nothing else waits for the agent; and where it does not answer, pods start without a
//! proxy (`failurePolicy: Ignore`, unless the installation says otherwise) and reach global names as in mode `gateway`.

pub mod asked;
pub mod certificate;
pub mod configuration;
mod injector;
mod keep;
pub mod patch;
mod pod;
pub mod review;
pub mod server;
mod serving;
#[cfg(test)]
mod tests;

pub use injector::{BuildError, Injector, Parts};
pub use pod::Pod;
pub(crate) use serving::Injection;

use ipnet::IpNet;
use std::{collections::BTreeSet, net::SocketAddr};
use tombolo_model::{ClusterName, NamespaceName, TrustDomain, install::FailurePolicy};

/// The first version of Kubernetes that has native sidecars without being asked to.
pub(crate) const SIDECARS: (u32, u32) = (1, 29);

/// How pods are injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the API server asks.
    pub listen: SocketAddr,
    /// The gateway's image, where no installation says which; no pod gets a proxy where nobody does.
    pub image: Option<String>,
    /// Where proxies find the agent; none for the Service in the agent's namespace.
    pub agent: Option<String>,
    /// The virtual addresses.
    pub vips: Vec<IpNet>,
    /// What happens to pods while no agent answers, where no installation says so.
    pub policy: FailurePolicy,
    /// Namespaces whose pods get none, whatever is asked for: the agent does not read them. Those of the system and its own are among them
    /// without being named here.
    pub exclude: BTreeSet<NamespaceName>,
}

/// What goes into every injected pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster.
    pub cluster: ClusterName,
    /// The organization's trust domain.
    pub trust_domain: TrustDomain,
    /// Where the agent takes gateways, as `https://tombolo-agent.tombolo-system.svc:15012`.
    pub agent: String,
    /// The organization's root certificates, PEM.
    pub roots: String,
    /// The gateway's image.
    pub image: String,
    /// The virtual addresses.
    pub vips: Vec<IpNet>,
}
