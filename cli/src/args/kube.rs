//! Kubernetes clusters, and how they join.

use clap::Args;
use ipnet::IpNet;
use std::path::PathBuf;
use tombolo_model::ClusterName;

/// `tombolo cluster join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The cluster's name; it is made where there is none of it yet.
    pub name: ClusterName,
    /// Where the cluster is.
    #[command(flatten)]
    pub kube: Kube,
    /// What is different in its manifest.
    #[command(flatten)]
    pub manifest: ManifestArgs,
    /// How other clusters will reach this one, to be looked at, as for `cluster install` (several: repeat; default:
    /// load-balancer).
    #[arg(long = "ingress", value_name = "WAY")]
    pub ingress: Vec<String>,
    /// Only look whether all that is needed is there.
    #[arg(long)]
    pub check: bool,
    /// Join again with a new token, whether or not the cluster's agent can come back by itself. What it showed until then is believed no more, and
    /// connections that rely on it end.
    #[arg(long, conflicts_with = "check")]
    pub rejoin: bool,
}

/// What is different in a manifest.
#[derive(Clone, Debug, Default, Args)]
pub struct ManifestArgs {
    /// Where the images are (default: as the controller was told; another place is for an admin to choose).
    #[arg(long)]
    pub registry: Option<String>,
    /// Their tag (default: the controller's version).
    #[arg(long, value_name = "TAG")]
    pub image_version: Option<String>,
    /// A range of the cluster's pods or services, at which no other cluster's gateway is ever reached, as 10.244.0.0/16: the agent has egress
    /// gateways dial nobody there, whatever is ordered later (several: repeat).
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub never_dial: Vec<IpNet>,
}

/// A Kubernetes cluster.
#[derive(Clone, Debug, Args)]
pub struct Kube {
    /// The kubeconfig (default: KUBECONFIG, or ~/.kube/config).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it (default: the current one).
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}
