//! What can go wrong with the database, as far as a caller can act on it.

use thiserror::Error as ThisError;

/// Why a query or a transaction failed.
#[derive(Debug, ThisError)]
pub(crate) enum Error {
    /// No connection, or it broke: the same again later may work.
    #[error("the database does not answer")]
    Unavailable {
        /// The cause.
        source: sqlx::Error,
    },
    /// A unique constraint: the thing is there already.
    #[error("breaks the unique constraint {constraint}")]
    Duplicate {
        /// The constraint's name, as in the migrations.
        constraint: String,
    },
    /// Refers to something that is not there, or is still referred to.
    #[error("breaks the reference {constraint}")]
    Reference {
        /// The constraint's name.
        constraint: String,
    },
    /// Two transactions at once: the same again works.
    #[error("lost against another transaction")]
    Contended {
        /// The cause.
        source: sqlx::Error,
    },
    /// A stored value that our own parser refuses.
    #[error("a stored {what} cannot be read: {value}")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// What is there.
        value: String,
    },
    /// A migration failed.
    #[error("the schema could not be brought up to this version")]
    Schema {
        /// The cause.
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// Anything else that the database refuses: a mistake of ours.
    #[error("a query failed")]
    Query {
        /// The cause.
        source: sqlx::Error,
    },
}

impl Error {
    /// A stored value that our own parser refuses.
    pub(crate) fn corrupt(what: &'static str, value: &dyn std::fmt::Debug) -> Self {
        Self::Corrupt { what, value: format!("{value:?}") }
    }

    /// Whether this constraint was broken by a duplicate.
    pub(crate) fn is_duplicate(&self, name: &str) -> bool {
        matches!(self, Self::Duplicate { constraint } if constraint == name)
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let Some(refused) = source.as_database_error() else {
            return match source {
                E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                    Self::Unavailable { source }
                }
                _ => Self::Query { source },
            };
        };
        let constraint = || refused.constraint().unwrap_or_default().to_owned();
        match refused.code().as_deref() {
            Some("23505") => Self::Duplicate { constraint: constraint() },
            Some("23503") => Self::Reference { constraint: constraint() },
            Some("40001" | "40P01" | "55P03") => Self::Contended { source },
            // starting, stopping, too many connections, cut off by the administrator
            Some(code) if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                Self::Unavailable { source }
            }
            _ => Self::Query { source },
        }
    }
}
