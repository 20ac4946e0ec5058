//! Under what a resource stands.

use crate::{name::GlobalName, recent};
use arcstr::{ArcStr, literal};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The key of a resource in a snapshot: `<kind>/<name>`, stable over the life of what it names. There are several for each global name, and
/// all of them share its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ResourceKey {
    kind: ArcStr,
    name: ArcStr,
}

/// A kind as one text: those that there are take no memory.
fn kind(text: &str) -> ArcStr {
    match text {
        "self" => literal!("self"),
        "bundle" => literal!("bundle"),
        "peer" => literal!("peer"),
        "domain" => literal!("domain"),
        "name" => literal!("name"),
        "import" => literal!("import"),
        "capture" => literal!("capture"),
        "install" => literal!("install"),
        "trial" => literal!("trial"),
        "route" => literal!("route"),
        "export" => literal!("export"),
        "workload" => literal!("workload"),
        "gateways" => literal!("gateways"),
        other => recent::text(other),
    }
}

impl ResourceKey {
    /// The key for a thing of this kind and name.
    #[must_use]
    pub fn new(of: &str, name: &str) -> Self {
        Self { kind: kind(of), name: recent::text(name) }
    }
    /// The key for what has a global name.
    #[must_use]
    pub fn of_name(of: &str, name: &GlobalName) -> Self {
        Self { kind: kind(of), name: name.text().clone() }
    }
    /// The key for a thing of another kind and the same name.
    #[must_use]
    pub fn beside(&self, of: &str) -> Self {
        Self { kind: kind(of), name: self.name.clone() }
    }
    /// What kind of thing stands under it.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }
    /// The name within its kind; empty where there is only one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// How long it is as text, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.kind.len() + 1 + self.name.len()
    }
}
impl From<String> for ResourceKey {
    /// A text without a slash, which nobody sends, is a kind without a name.
    fn from(text: String) -> Self {
        let (kind, name) = text.split_once('/').unwrap_or((&text, ""));
        Self::new(kind, name)
    }
}
impl From<ResourceKey> for String {
    fn from(key: ResourceKey) -> String {
        key.to_string()
    }
}
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_string().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_writes_as_one_text() {
        for text in ["self/", "name/catalog.acme.example.com", "import/shop/web", "later/a/b"] {
            let key = ResourceKey::from(text.to_owned());
            assert_eq!((key.to_string().as_str(), key.size()), (text, text.len()));
            assert_eq!(serde_json::to_string(&key).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<ResourceKey>(&format!("{text:?}")).unwrap(), key);
        }
    }

    #[test]
    fn the_name_is_one_text() {
        let name = GlobalName::parse("catalog.acme.example.com").unwrap();
        let key = ResourceKey::of_name("name", &name);
        let route = key.beside("route");
        assert_eq!((route.kind(), route.name()), ("route", name.as_str()));
        assert_eq!(route.name().as_ptr(), name.as_str().as_ptr());
        assert_eq!(key, ResourceKey::new("name", name.as_str()));
        assert_eq!(size_of::<ResourceKey>(), 16);
    }

    /// Both ends of a link go through what there is in this order.
    #[test]
    fn the_order_is_that_of_the_texts() {
        let mut texts: Vec<&str> =
            ["self/", "name/b", "name/a", "import/s/b", "import/s/a", "install/", "bundle/", "peer/c2"]
                .into();
        let mut keys: Vec<ResourceKey> = texts.iter().map(|text| text.to_string().into()).collect();
        texts.sort_unstable();
        keys.sort_unstable();
        assert!(keys.iter().map(ToString::to_string).eq(texts));
    }
}
