//! `tombolo cluster`

use super::{InstallArgs, JoinArgs, Kube, ManifestArgs, Wait, install, label};
use clap::Subcommand;
use std::path::PathBuf;
use tombolo_model::ClusterName;

/// `tombolo cluster`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// All clusters, with their state and who reaches whom.
    List,
    /// Name a cluster, and get a one-time token and the commands that join it.
    Create {
        /// Its name.
        name: ClusterName,
        /// Labels for selectors, as env=prod.
        #[arg(long = "label", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Its region.
        #[arg(long)]
        region: Option<String>,
        /// Its zone.
        #[arg(long)]
        zone: Option<String>,
        /// Write the one-time token into this file (0600) instead of showing it.
        #[arg(long)]
        join_token_file: Option<PathBuf>,
    },
    /// A new one-time token, to join again.
    Token {
        /// The cluster.
        name: ClusterName,
        /// Write it into this file (0600) instead of showing it.
        #[arg(long)]
        join_token_file: Option<PathBuf>,
    },
    /// Print what a Kubernetes cluster needs to run the agent, for `kubectl apply -f -`. No secret is in it.
    Manifest {
        /// The cluster.
        name: ClusterName,
        /// What is different in it.
        #[command(flatten)]
        manifest: ManifestArgs,
    },
    /// Make a Kubernetes cluster join, all in one go: look whether all that is needed is there, name the cluster, apply
    /// the agent's manifest and a one-time token, and wait until it is connected.
    Join(JoinArgs),
    /// Install gateways, name resolution and injection in a Kubernetes cluster, or change what is installed, and show how it goes.
    /// What is not named stays.
    #[command(after_help = install::AGAIN)]
    Install(Box<InstallArgs>),
    /// Another version of what is installed, the agent included.
    Upgrade {
        /// The cluster.
        name: ClusterName,
        /// The version (default: the controller's).
        #[arg(long = "to", value_name = "VERSION")]
        to: Option<String>,
        /// How the command waits.
        #[command(flatten)]
        wait: Wait,
    },
    /// What was installed before the last change.
    Rollback {
        /// The cluster.
        name: ClusterName,
        /// How the command waits.
        #[command(flatten)]
        wait: Wait,
    },
    /// Take out everything that was installed; with --kubeconfig, the agent too.
    Uninstall {
        /// The cluster.
        name: ClusterName,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
        /// Where the cluster is, to take out the agent too.
        #[command(flatten)]
        kube: Kube,
        /// How the command waits.
        #[command(flatten)]
        wait: Wait,
    },
    /// The one-time tokens of a cluster (never their secrets).
    Tokens {
        /// The cluster.
        name: ClusterName,
    },
    /// Make a one-time token worthless.
    RevokeToken {
        /// The cluster.
        name: ClusterName,
        /// The token's id, as `tokens` shows it.
        id: String,
    },
    /// Everything about one.
    Show {
        /// Its name.
        name: ClusterName,
    },
    /// Take it out: its certificates are refused everywhere within seconds.
    Remove {
        /// Its name.
        name: ClusterName,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
}
