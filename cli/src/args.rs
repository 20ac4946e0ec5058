//! The command line.

use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{io::Write, path::PathBuf};
use tombolo_model::{
    AccountName, ClusterName, DnsLabel, Domain, GlobalName, NamespaceName, OrgName, intent::CaptureMode,
};

/// Many clusters behave as one by name.
///
/// Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 the server can't be reached; 4 not allowed (token).
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Under which heading help shows them: after what is the command's own.
const EVERYWHERE: &str = "Options of every command";

/// What a file for `apply` and `diff` looks like.
const APPLY_EXAMPLE: &str = "\
Files hold documents of the kinds Cluster and GlobalNamespace. What is in no file is left alone.

  apiVersion: tombolo.io/v1
  kind: GlobalNamespace
  metadata: { name: acme }
  spec:
    domain: acme.example.com
    rules:
      - cluster: { labels: {} }          # in all clusters; or { name: cluster-1 }
        namespace: { name: default }     # or { labels: { team: shop } }
  ---
  apiVersion: tombolo.io/v1
  kind: Cluster
  metadata: { name: cluster-1 }
  spec: { labels: { env: prod }, locality: { region: eu-1, zone: a } }";

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// The controller, as https://127.0.0.1:8443 (else: what `tombolo login` stored).
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "TOMBOLO_SERVER")]
    pub server: Option<String>,
    /// The controller's CA, as sha256:<hex>; `system` trusts the machine's roots.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "TOMBOLO_CA_FINGERPRINT")]
    pub ca_fingerprint: Option<String>,
    /// A file with the API token, or `-` for standard input.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "TOMBOLO_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The organization to work in.
    #[arg(long = "organization", short = 'O', global = true, help_heading = EVERYWHERE, env = "TOMBOLO_ORGANIZATION")]
    pub organization: Option<OrgName>,
    /// The configuration file.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "TOMBOLO_CONFIG")]
    pub config: Option<PathBuf>,
    /// A table for people, or everything for programs.
    #[arg(long, short, global = true, help_heading = EVERYWHERE, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// No colours (as when NO_COLOR is set, or the output is no terminal).
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub no_color: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a token (from --token-file, else standard input) and remember it, the server and its CA.
    Login(LoginArgs),
    /// Organizations (with the installation's owner token).
    #[command(subcommand)]
    Org(OrgCommand),
    /// Clusters: create, onboard, watch, remove.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Global namespaces.
    #[command(subcommand)]
    Gns(GnsCommand),
    /// Global services: names, addresses, where they are served.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// API tokens of the organization (with none chosen: of the installation's owner).
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who changed what in the organization (with none chosen: in the installation).
    Audit(AuditArgs),
    /// Make the organization as the files say.
    #[command(after_long_help = APPLY_EXAMPLE)]
    Apply(ApplyArgs),
    /// Show what `apply` would change; ends with 1 if anything.
    #[command(after_long_help = APPLY_EXAMPLE)]
    Diff(ApplyArgs),
    /// Walk a request hop by hop, and name the first that says no.
    #[command(
        after_help = "Example:\n  tombolo explain --from cluster-1/default/shopping catalog.acme.example.com:8082"
    )]
    Explain(ExplainArgs),
    /// Look for what is wrong, or will be.
    Doctor,
    /// Two clusters and a shop on this machine, until Ctrl-C.
    Demo(DemoArgs),
    /// Print the completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// `tombolo login`: the token comes from `--token-file`, else from standard input.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The name to remember it by.
    #[arg(long, default_value = "default")]
    pub context: DnsLabel,
}

/// `tombolo org`
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// All organizations.
    List,
    /// Make one, with its root certificate.
    Create {
        /// Its name.
        name: OrgName,
        /// The trust domain of its identities (default: <name>.tombolo.internal).
        #[arg(long)]
        trust_domain: Option<String>,
        /// Write a first admin token of it into this file (0600).
        #[arg(long)]
        admin_token_file: Option<PathBuf>,
    },
    /// Show one.
    Show {
        /// Its name.
        name: OrgName,
    },
    /// Put a new root of trust in the place of the old one, without a connection lost; or show how far that is.
    RotateRoot {
        /// Its name.
        name: OrgName,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete one with all that is in it. It must have no clusters.
    Remove {
        /// Its name.
        name: OrgName,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
}

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
        /// Where the images are (default: as the controller was told).
        #[arg(long)]
        registry: Option<String>,
        /// Their tag (default: the controller's version).
        #[arg(long, value_name = "TAG")]
        image_version: Option<String>,
    },
    /// Make a Kubernetes cluster join, all in one go: look whether all that is needed is there, name the cluster, apply
    /// the agent's manifest and a one-time token, and wait until it is connected.
    Join(JoinArgs),
    /// Install gateways, name resolution and injection in a Kubernetes cluster, and show how it goes.
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

/// `tombolo cluster join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The cluster's name; it is made where there is none of it yet.
    pub name: ClusterName,
    /// Where the cluster is.
    #[command(flatten)]
    pub kube: Kube,
    /// Where the images are (default: as the controller was told).
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

/// `tombolo cluster install`
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The cluster.
    pub name: ClusterName,
    /// Leave this namespace out (several: repeat). Those of the system are left out anyway.
    #[arg(long, value_delimiter = ',', conflicts_with = "include_namespace")]
    pub exclude_namespace: Vec<NamespaceName>,
    /// Take this namespace in, and no others (several: repeat).
    #[arg(long, value_delimiter = ',')]
    pub include_namespace: Vec<NamespaceName>,
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
    /// Leave the cluster's DNS as it is.
    #[arg(long)]
    pub no_dns: bool,
    /// No webhook that puts proxies into pods.
    #[arg(long)]
    pub no_injector: bool,
    /// A proxy on each node.
    #[arg(long)]
    pub node: bool,
    /// How pods reach global names where neither a label of their namespace nor a global namespace says it: gateway, sidecar,
    /// node or none (default: gateway).
    #[arg(long, value_name = "MODE")]
    pub capture: Option<CaptureMode>,
    /// Where the images are (default: as the controller was told).
    #[arg(long)]
    pub registry: Option<String>,
    /// The version to install (default: the controller's).
    #[arg(long, value_name = "TAG")]
    pub image_version: Option<String>,
    /// Only show what would be written.
    #[arg(long)]
    pub dry_run: bool,
    /// How the command waits.
    #[command(flatten)]
    pub wait: Wait,
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

/// `tombolo service`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// All global services.
    List {
        /// The names of single clusters and pods too.
        #[arg(long)]
        all: bool,
    },
    /// Show one.
    Show {
        /// Its full name.
        name: GlobalName,
    },
}

/// `tombolo token`: those of the organization; where none is chosen, the installation owner's.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// All tokens (never their secrets).
    List,
    /// Make one; the secret is shown once.
    Create {
        /// What it is for.
        name: AccountName,
        /// What it may do in the organization.
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// How long it is good for, 1m to 87600h (default: for good).
        #[arg(long)]
        expires_in: Option<String>,
        /// Write it into this file (0600) instead of showing it.
        #[arg(long)]
        secret_file: Option<PathBuf>,
    },
    /// Make one worthless.
    Revoke {
        /// Its name.
        name: AccountName,
    },
}

/// What a token may do in its organization.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but tokens.
    Editor,
    /// Only look.
    Viewer,
}

impl Role {
    /// As the API has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
        }
    }
}

/// `tombolo audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// How many of the newest events.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `tombolo apply`, `tombolo diff`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// A file, a folder of *.yaml files, or `-`. May repeat.
    #[arg(long = "file", short = 'f', required = true)]
    pub files: Vec<PathBuf>,
}

/// `tombolo explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who calls: cluster/namespace/account.
    #[arg(long, value_parser = caller)]
    pub from: Caller,
    /// What is called: name:port.
    #[arg(value_parser = destination)]
    pub to: Destination,
}

/// `tombolo demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Check every step from outside, then end with an exit code.
    #[arg(long)]
    pub check: bool,
    /// Where to keep its files while it runs (default: a new folder in the temporary one). It is removed in the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Keep the logs at the end.
    #[arg(long)]
    pub keep: bool,
}

/// A calling workload.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its service account.
    pub account: AccountName,
}

/// A name and a port.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The global name.
    pub name: GlobalName,
    /// The port.
    pub port: u16,
}

fn caller(text: &str) -> Result<Caller, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let [cluster, namespace, account] = parts.as_slice() else {
        return Err("give cluster/namespace/account, as cluster-1/default/shopping".into());
    };
    Ok(Caller {
        cluster: ClusterName::parse(cluster).map_err(|e| format!("the cluster {e}"))?,
        namespace: NamespaceName::parse(namespace).map_err(|e| format!("the namespace {e}"))?,
        account: AccountName::parse(account).map_err(|e| format!("the account {e}"))?,
    })
}

fn destination(text: &str) -> Result<Destination, String> {
    let (name, port) = text.rsplit_once(':').ok_or("give name:port, as catalog.acme.example.com:8082")?;
    let port = port.parse().ok().filter(|p| *p > 0).ok_or("the port is a number from 1 to 65535")?;
    Ok(Destination { name: GlobalName::parse(name).map_err(|e| format!("the name {e}"))?, port })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("give key=value, as env=prod")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Writes the completion script of a shell.
pub fn completion(shell: Shell, to: &mut dyn Write) {
    use clap::CommandFactory as _;
    clap_complete::generate(shell, &mut Cli::command(), "tombolo", &mut { to });
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn callers_and_destinations() {
        assert!(caller("c/ns/sa").is_ok());
        assert!(caller("c/ns").is_err());
        assert!(destination("a.b:80").is_ok());
        for bad in ["a.b", "a.b:0", "a.b:70000", "a:80", ":80"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }
}
