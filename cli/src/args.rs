//! The command line.

mod cluster;
mod explain;
mod gns;
mod install;
mod kube;
mod org;
mod service;
mod token;

pub use self::{
    cluster::ClusterCommand,
    explain::{Caller, Destination, ExplainArgs},
    gns::GnsCommand,
    install::{InstallArgs, OrderArgs, Wait, WebhookFailure},
    kube::{JoinArgs, Kube, ManifestArgs},
    org::OrgCommand,
    service::ServiceCommand,
    token::{Role, TokenCommand},
};

use crate::output::Format;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::{io::Write, path::PathBuf};
use tombolo_model::{DnsLabel, OrgName};

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
}
