//! `tombolo cluster install`, and how commands wait for what they asked a cluster's agent for.

use super::label;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tombolo_model::{ClusterName, NamespaceName, intent::CaptureMode};

/// What another `install` leaves as it is.
pub(super) const AGAIN: &str = "\
Again, it changes what is named and keeps all else of what is in force; what it changes is shown, from what to what.
An option that may repeat replaces all that was given of it before. --reset begins from the defaults. The version stays too:
`tombolo cluster upgrade` is for another one.";

/// `tombolo cluster install`
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The cluster.
    pub name: ClusterName,
    /// Begin from the defaults: what is in force and not named here is forgotten.
    #[arg(long)]
    pub reset: bool,
    /// What is to be there.
    #[command(flatten)]
    pub order: OrderArgs,
    /// Only show what would be written.
    #[arg(long)]
    pub dry_run: bool,
    /// How the command waits.
    #[command(flatten)]
    pub wait: Wait,
}

/// What is to be there. What is not given stays as it is in force, and has its default where nothing is.
#[derive(Debug, Default, Args)]
pub struct OrderArgs {
    /// Leave this namespace out (several: repeat). Those of the system are left out anyway.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["include_namespace", "all_namespaces"])]
    pub exclude_namespace: Vec<NamespaceName>,
    /// Take this namespace in, and no others (several: repeat).
    #[arg(long, value_delimiter = ',', conflicts_with = "all_namespaces")]
    pub include_namespace: Vec<NamespaceName>,
    /// Take all namespaces in but those of the system (the default).
    #[arg(long)]
    pub all_namespaces: bool,
    /// How other clusters reach this one: load-balancer, node-port[=PORT], host-network, or HOST:PORT (several: repeat;
    /// default: load-balancer).
    #[arg(long = "ingress", value_name = "WAY")]
    pub ingress: Vec<String>,
    /// An annotation of the load balancer's Service, as the cloud wants it: KEY=VALUE (several: repeat).
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub ingress_annotation: Vec<(String, String)>,
    /// Ingress gateways.
    #[arg(long, value_name = "COUNT")]
    pub ingress_replicas: Option<u32>,
    /// Egress gateways.
    #[arg(long, value_name = "COUNT")]
    pub egress_replicas: Option<u32>,
    /// A range of this cluster's pods or services, at which no other cluster's gateway is ever reached, as 10.244.0.0/16: egress gateways dial
    /// nobody there, whatever other clusters say. What the agent was told itself counts beside (several: repeat).
    #[arg(long, value_name = "CIDR", value_delimiter = ',', conflicts_with = "no_never_dial")]
    pub never_dial: Vec<IpNet>,
    /// Take back all such ranges (the default), but for those that the agent was told itself.
    #[arg(long)]
    pub no_never_dial: bool,
    /// Let the cluster's DNS forward the domains of global namespaces (the default).
    #[arg(long, conflicts_with = "no_dns")]
    pub dns: bool,
    /// Leave the cluster's DNS as it is.
    #[arg(long)]
    pub no_dns: bool,
    /// A webhook that puts proxies into pods of capture mode sidecar (the default).
    #[arg(long, conflicts_with = "no_injector")]
    pub injector: bool,
    /// No webhook that puts proxies into pods.
    #[arg(long)]
    pub no_injector: bool,
    /// What happens to new pods of capture mode sidecar while no agent answers that webhook (default: ignore).
    #[arg(long, value_name = "POLICY", value_enum)]
    pub webhook_failure: Option<WebhookFailure>,
    /// A proxy on each node.
    #[arg(long, conflicts_with = "no_node")]
    pub node: bool,
    /// No proxies on the nodes (the default).
    #[arg(long)]
    pub no_node: bool,
    /// How pods reach global names where neither a label of their namespace nor a global namespace says it: gateway, sidecar,
    /// node or none (default: gateway).
    #[arg(long, value_name = "MODE")]
    pub capture: Option<CaptureMode>,
    /// Where the images are (default: as the controller was told; another place is for an admin to choose).
    #[arg(long)]
    pub registry: Option<String>,
    /// The version to install (default: the controller's).
    #[arg(long, value_name = "TAG")]
    pub image_version: Option<String>,
}

/// What happens to pods while the webhook is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookFailure {
    /// They start without a proxy, and reach global names as in mode gateway.
    Ignore,
    /// They do not start.
    Fail,
}

impl WebhookFailure {
    /// As the API has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Fail => "fail",
        }
    }
}

/// How a command waits for what it asked for.
#[derive(Clone, Debug, Args)]
pub struct Wait {
    /// Ask for it, and don't wait.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}
