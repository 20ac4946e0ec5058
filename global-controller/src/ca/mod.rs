//! What the controller signs with. An organization's root key exists in memory only while it signs; in the database it is
//! sealed with a key that is in a file and never in the database, so that neither alone is worth anything.

mod issue;
mod key_file;
pub(crate) mod rotation;
mod seal;

pub(crate) use issue::Issued;
pub(crate) use seal::{Purpose, SealError, Vault};

use crate::store;
use thiserror::Error as ThisError;

/// Why nothing was signed.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    /// The request is not one that we sign: the asker's mistake.
    #[error("the signing request is refused")]
    Request {
        /// What is wrong with it.
        source: tombolo_mtls::Error,
    },
    /// The request is for a key that was revoked: the asker's mistake, or a thief's.
    #[error("the signing request is for a key that was revoked")]
    RevokedKey,
    /// A certificate or key of ours.
    #[error("a certificate of the organization could not be used")]
    Certificate {
        /// What is wrong with it.
        source: tombolo_mtls::Error,
    },
    /// The sealed key could not be opened.
    #[error("the key of the organization's root could not be opened")]
    Seal {
        /// Why.
        source: SealError,
    },
    /// An organization without a root: it was not made by this program.
    #[error("the organization has no root that signs")]
    NoRoot,
    /// The database.
    #[error("a root or an intermediate could not be read or stored")]
    Store {
        /// Why.
        #[from]
        source: store::Error,
    },
}
