//! Which cluster, and what of it.

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf};
use tombolo_agent::{agent::SourceConfig, inject, source::kubernetes};
use tombolo_model::{NamespaceName, install::FailurePolicy};

/// Where the agent learns what runs in its cluster: one of the two.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// The directory of Kubernetes manifests that describe this cluster's services.
    #[arg(long)]
    pub(crate) manifests: Option<PathBuf>,
    /// Read the services from Kubernetes: from the cluster that the agent runs in, or with --kubeconfig from another.
    #[arg(long)]
    kubernetes: bool,
}

#[derive(Args)]
pub(crate) struct Kubernetes {
    /// Reach the API server as this file says.
    #[arg(long, requires = "kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in the file; the current one without.
    #[arg(long, requires = "kubeconfig")]
    pub(crate) context: Option<String>,
    /// The agent's own namespace [default: that of its pod, or tombolo-system outside of one].
    #[arg(long, requires = "kubernetes")]
    pub(crate) namespace: Option<NamespaceName>,
    /// How pods reach imported names: none, or gateway, where each name becomes a Service in the agent's namespace whose
    /// endpoints are the egress gateways, and DNS answers its address.
    #[arg(long, requires = "kubernetes", value_enum, default_value_t = Capture::None)]
    pub(crate) capture: Capture,
    /// Whether services that the Multi-Cluster Services API (ServiceExport) exports are shared by the organization's clusters.
    #[arg(long, requires = "kubernetes", value_enum, default_value_t = Mcs::On)]
    pub(crate) mcs: Mcs,
    /// Where the API server asks about new pods of namespaces in capture mode sidecar: IP:PORT. Nobody is asked without.
    #[arg(long, requires = "kubernetes")]
    pub(crate) webhook_listen: Option<SocketAddr>,
    /// A registry that images of an installation may come from, as registry.example.com/tombolo. May stand several times
    /// [default: where the image of the agent's own Deployment comes from].
    #[arg(long, requires = "kubernetes", value_name = "REGISTRY", value_delimiter = ',')]
    pub(crate) allowed_registry: Vec<String>,
    /// The gateway's image, for the proxies in pods of a cluster that the controller has installed nothing in.
    #[arg(long, requires = "webhook_listen")]
    pub(crate) gateway_image: Option<String>,
    /// Where proxies in pods find the agent [default: https://tombolo-agent.NAMESPACE.svc:15012].
    #[arg(long, requires = "webhook_listen", value_name = "https://HOST:PORT")]
    pub(crate) gateway_agent: Option<String>,
    /// What becomes of such pods while no agent answers: ignore starts them without a proxy, fail does not start them.
    #[arg(long, requires = "webhook_listen", value_enum, default_value_t = Failure::Ignore)]
    pub(crate) webhook_failure: Failure,
    /// The virtual addresses of the installation, as the controller was told.
    #[arg(
        long,
        requires = "kubernetes",
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "240.0.0.0/4,fd74:6f6d:6265:6c6f::/64"
    )]
    pub(crate) vips: Vec<IpNet>,
    /// Where egress gateways of the installation dial no other cluster's gateway, whatever other clusters say: the ranges of this cluster's pods
    /// and services, if no other cluster's gateway is ever reached at an address in them. Their own addresses and the API server's Service they
    /// leave alone anyway.
    #[arg(long, requires = "kubernetes", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) never_dial: Vec<IpNet>,
    /// The priority class of the gateways' pods and the nodes' proxies; an empty one for none [default: system-cluster-critical, and
    /// system-node-critical for the nodes' proxies].
    #[arg(long, requires = "kubernetes", value_name = "CLASS")]
    pub(crate) gateway_priority_class: Option<String>,
    /// Endpoints that are no pods of their EndpointSlice's own namespace: allow takes them, so that Services without a selector lead outside of
    /// the cluster, and whoever may write EndpointSlices anywhere a gateway can reach; refuse leaves them out, and says so.
    #[arg(long, requires = "kubernetes", value_enum, default_value_t = Foreign::Allow)]
    pub(crate) foreign_endpoints: Foreign,
    /// Leave this namespace out, beside kube-system, kube-public, kube-node-lease and the agent's own. May stand
    /// several times.
    #[arg(long, requires = "kubernetes", value_delimiter = ',')]
    pub(crate) exclude_namespace: Vec<NamespaceName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Capture {
    /// Not by this agent's doing.
    None,
    /// Through Services of the egress gateways; nothing is in the pods.
    Gateway,
}

/// Whether the Multi-Cluster Services API is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mcs {
    /// Where the cluster has it.
    On,
    /// Not at all.
    Off,
}

/// Whether endpoints may be what is no pod of their namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Foreign {
    /// As Kubernetes has it.
    Allow,
    /// They are left out.
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Failure {
    /// Pods start without a proxy.
    Ignore,
    /// Pods do not start.
    Fail,
}

impl Kubernetes {
    fn inject(&self) -> Option<inject::Config> {
        let policy = match self.webhook_failure {
            Failure::Ignore => FailurePolicy::Ignore,
            Failure::Fail => FailurePolicy::Fail,
        };
        Some(inject::Config {
            listen: self.webhook_listen?,
            image: self.gateway_image.clone(),
            agent: self.gateway_agent.clone(),
            vips: self.vips.clone(),
            policy,
            exclude: self.exclude_namespace.iter().cloned().collect(),
        })
    }
}

impl Source {
    /// Clap has seen to it that there is exactly one.
    pub(crate) fn config(self, kubernetes: Kubernetes) -> SourceConfig {
        if let Some(manifests) = self.manifests {
            return SourceConfig::Manifests(manifests);
        }
        let inject = kubernetes.inject().map(Box::new);
        let access = match kubernetes.kubeconfig {
            Some(path) => kubernetes::Access::Kubeconfig { path, context: kubernetes.context },
            None => kubernetes::Access::InCluster,
        };
        let cluster = kubernetes::Config {
            access,
            namespace: kubernetes.namespace,
            exclude: kubernetes.exclude_namespace.into_iter().collect(),
            mcs: kubernetes.mcs == Mcs::On,
            vips: kubernetes.vips.into(),
            foreign_endpoints: kubernetes.foreign_endpoints == Foreign::Allow,
            gateway_priority: kubernetes.gateway_priority_class.map(Into::into),
        };
        let expose = kubernetes.capture == Capture::Gateway;
        SourceConfig::Kubernetes { cluster, expose, inject }
    }
}
