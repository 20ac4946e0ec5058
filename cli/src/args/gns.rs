//! `tombolo gns`

use clap::Subcommand;
use tombolo_model::{ClusterName, DnsLabel, Domain, NamespaceName, intent::CaptureMode};

/// `tombolo gns`
#[derive(Debug, Subcommand)]
pub enum GnsCommand {
    /// All global namespaces.
    List,
    /// Make one.
    Create {
        /// Its name.
        name: DnsLabel,
        /// Its domain.
        #[arg(long)]
        domain: Domain,
        /// The namespace whose services it names, in the chosen clusters (several: repeat).
        #[arg(long = "namespace", default_value = "default")]
        namespaces: Vec<NamespaceName>,
        /// Only in these clusters (default: in all).
        #[arg(long = "cluster")]
        clusters: Vec<ClusterName>,
        /// How pods of these namespaces reach global names: gateway, sidecar, node or none (default: as the installation says).
        #[arg(long, value_name = "MODE")]
        capture: Option<CaptureMode>,
    },
    /// Change what is given of one; the rest stays.
    Update {
        /// Its name.
        name: DnsLabel,
        /// Its domain.
        #[arg(long, required_unless_present_any = ["capture", "no_capture"])]
        domain: Option<Domain>,
        /// How pods of its namespaces reach global names: gateway, sidecar, node or none.
        #[arg(long, value_name = "MODE", conflicts_with = "no_capture")]
        capture: Option<CaptureMode>,
        /// It has no say any more in how they do.
        #[arg(long)]
        no_capture: bool,
    },
    /// Show one, with its services.
    Show {
        /// Its name.
        name: DnsLabel,
    },
    /// Remove one; its names stop resolving.
    Remove {
        /// Its name.
        name: DnsLabel,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
}
