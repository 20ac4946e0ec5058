//! Kubernetes clusters, and how they join.

use clap::Args;
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
    /// Where the images are (default: as the controller was told; another place is for an admin to choose).
    #[arg(long)]
    pub registry: Option<String>,
    /// Their tag (default: the controller's version).
    #[arg(long, value_name = "TAG")]
    pub image_version: Option<String>,
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
