//! Fields of a manifest that are not Kubernetes': a misspelt one would be missed without a word.
//!
//! What was read is written again; a field of the text that is not in that was not understood. So the list of fields is the
//! library's own, and none of ours.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::fmt;

/// A document as it is written: its fields, and the line of each.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// No value.
    Null,
    /// A scalar.
    Scalar,
    /// A list.
    List(Vec<Tree>),
    /// Fields: name, line within the document, value.
    Fields(Vec<(String, usize, Tree)>),
}

impl Tree {
    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Fields(fields) = self else { return None };
        fields.iter().find(|(field, ..)| field == name).map(|(.., value)| value)
    }

    /// An entry of a list.
    pub(super) fn entry(&self, at: usize) -> Option<&Self> {
        let Self::List(entries) = self else { return None };
        entries.get(at)
    }

    /// The fields that are not in `understood`: line within the document, and path.
    pub(super) fn unknown(&self, understood: &Value) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        self.collect(understood, "", &mut found);
        found
    }

    fn collect(&self, understood: &Value, path: &str, found: &mut Vec<(usize, String)>) {
        match (self, understood) {
            (Self::Fields(fields), Value::Object(known)) => {
                for (name, line, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    match known.get(name) {
                        Some(known) => value.collect(known, &path, found),
                        // Nothing and "not there" are the same.
                        None if *value == Self::Null => {}
                        None => found.push((*line, path)),
                    }
                }
            }
            (Self::List(entries), Value::Array(known)) => {
                for (i, (entry, known)) in entries.iter().zip(known).enumerate() {
                    entry.collect(known, &format!("{path}[{i}]"), found);
                }
            }
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyTree)
    }
}

struct AnyTree;

impl<'de> Visitor<'de> for AnyTree {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, data: A) -> Result<Tree, A::Error> {
        data.variant::<IgnoredAny>()?;
        Ok(Tree::Scalar)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element()? {
            entries.push(entry);
        }
        Ok(Tree::List(entries))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            let line = usize::try_from(name.referenced.line()).unwrap_or_default();
            fields.push((name.value, line, map.next_value()?));
        }
        Ok(Tree::Fields(fields))
    }
}
