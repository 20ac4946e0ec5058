//! `tombolo service`

use clap::Subcommand;
use tombolo_model::GlobalName;

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
