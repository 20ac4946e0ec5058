//! `tombolo org`

use clap::Subcommand;
use std::path::PathBuf;
use tombolo_model::OrgName;

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
