//! Under what a resource stands.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// The key of a resource in a snapshot: `<kind>/<name>`, stable over the life of what it names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ResourceKey(Arc<str>);

impl ResourceKey {
    /// The key for a thing of this kind and name.
    #[must_use]
    pub fn new(kind: &str, name: &str) -> Self {
        Self(format!("{kind}/{name}").into())
    }
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl From<String> for ResourceKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
impl From<ResourceKey> for String {
    fn from(key: ResourceKey) -> String {
        key.0.as_ref().to_owned()
    }
}
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
