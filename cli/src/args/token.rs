//! `tombolo token`

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use tombolo_model::AccountName;

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
    /// Everything but tokens, other registries, and annotations of load balancers.
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
