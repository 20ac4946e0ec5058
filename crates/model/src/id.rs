//! Typed ids. One type for each noun, so that a cluster's id can't be passed where an organization's is meant.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with this value. Ids are made by the shell (version 7: they sort by the time of making).
            #[must_use]
            pub const fn new(id: Uuid) -> Self { Self(id) }
            /// The value, to store.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> { Uuid::parse_str(text).map(Self) }
        }
        impl From<Uuid> for $name { fn from(id: Uuid) -> Self { Self(id) } }
    )+};
}

ids! {
    /// An organization: the wall between tenants.
    OrgId,
    /// An API token.
    TokenId,
    /// A cluster, or a group of machines outside Kubernetes that joined as one.
    ClusterId,
    /// A one-time token with which a cluster joins.
    OnboardingTokenId,
    /// A global namespace.
    GnsId,
    /// An audit event.
    AuditId,
}
