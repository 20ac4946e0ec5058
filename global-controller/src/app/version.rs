//! Changes that name the version they are meant for, so that nobody overwrites what they did not see.

use super::error::{Kind, Refusal, Result};

/// Which version of a thing a change is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Whatever it is.
    Any,
    /// One of these.
    Versions(Vec<i64>),
}

impl Expected {
    /// Ok where the thing is at the version that the change is meant for.
    ///
    /// # Errors
    /// [`Kind::PreconditionFailed`].
    pub(crate) fn check(&self, version: i64) -> Result<()> {
        match self {
            Self::Any => Ok(()),
            Self::Versions(versions) if versions.contains(&version) => Ok(()),
            Self::Versions(_) => Err(Refusal::new(
                Kind::PreconditionFailed,
                "It was changed since the version in If-Match was read.",
            )
            .field(
                "If-Match",
                "names another version",
                "read it again, and repeat the change on what is there",
            )),
        }
    }
}
