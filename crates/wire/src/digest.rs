//! The sum over a state. It is a wrapping sum of one number per resource, so that a change of one resource
//! costs one hash and not one per resource of the state.
//!
//! It is taken over the JSON as the *sender* wrote it, with sorted keys: a receiver of an older minor version,
//! which does not know every field, still comes to the sender's sum (see [`Stated`]).

use crate::message::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use tombolo_model::{
    Generation,
    snapshot::{Resource, ResourceKey, Resources},
};

/// The number that a resource adds to the sum of its state, the highest byte first: one stands beside each key, and a number would be aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u8; 16]);

impl Sum {
    /// What `value` under `key` adds.
    #[must_use]
    pub fn of<R: Resource>(key: &ResourceKey, value: &R) -> Self {
        Self::and_size(key, value).0
    }

    /// What `value` under `key` adds, and about how many bytes it takes on a line.
    pub(crate) fn and_size<R: Resource>(key: &ResourceKey, value: &R) -> (Self, usize) {
        // A resource is plain data: it has no map with keys other than text, and nothing else can fail.
        // `Null` would show as a digest that no receiver agrees with, which is refused and reported.
        Self::of_json(key, &serde_json::to_value(value).unwrap_or(Value::Null))
    }

    /// What this JSON under `key` adds, and its length.
    fn of_json(key: &ResourceKey, json: &Value) -> (Self, usize) {
        let mut text = String::with_capacity(256);
        text.push_str(key.kind());
        text.push('/');
        text.push_str(key.name());
        text.push('\0');
        canonical(json, &mut text);
        let hash = Sha256::digest(text.as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        (Self(first), text.len())
    }

    /// The sum over a whole state.
    #[must_use]
    pub fn of_all<R: Resource>(resources: &Resources<R>) -> Self {
        resources.iter().fold(Self::default(), |sum, (key, value)| sum.plus(Self::of(key, value)))
    }

    const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// This sum with a resource more.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.number().wrapping_add(other.number()).to_be_bytes())
    }

    /// This sum with a resource less.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.number().wrapping_sub(other.number()).to_be_bytes())
    }

    /// As it is sent.
    #[must_use]
    pub fn digest(self) -> Digest {
        Digest(format!("{:032x}", self.number()))
    }
}

impl Digest {
    /// The sum over this one and a generation: for who keeps both, and must see when the number is another one.
    #[must_use]
    pub fn at(&self, generation: Generation) -> Self {
        let hash = Sha256::digest(format!("{generation} {}", self.0));
        Self(hash.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

/// Writes JSON with sorted keys and no spaces. Depth is bounded by the parser's own limit.
fn canonical(json: &Value, out: &mut String) {
    match json {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::String(name.clone()));
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

/// A resource as a receiver reads it: the value, and what it adds to the sum in the *sender's* words.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated<R>(Words<R>);

#[derive(Clone, Debug, PartialEq)]
enum Words<R> {
    Known {
        value: R,
        sum: Sum,
    },
    /// Of a type that a newer sender has and this build does not.
    Unknown(Value),
}

impl<R: Resource> Stated<R> {
    /// A resource of our own words.
    #[must_use]
    pub fn new(value: R) -> Self {
        let sum = Sum::of(&value.key(), &value);
        Self(Words::Known { value, sum })
    }

    /// The resource that stands under `key`, none where this build does not know its type, and what it adds to the sum.
    ///
    /// # Errors
    /// It belongs under another key.
    pub(crate) fn under(self, key: &ResourceKey) -> Result<(Option<R>, Sum), WrongKey> {
        match self.0 {
            Words::Known { value, .. } if value.key() != *key => Err(WrongKey),
            Words::Known { value, sum } => Ok((Some(value), sum)),
            Words::Unknown(json) => Ok((None, Sum::of_json(key, &json).0)),
        }
    }
}

/// A resource stands under another's key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrongKey;

impl<R: Resource> Serialize for Stated<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Words::Known { value, .. } => value.serialize(serializer),
            Words::Unknown(json) => json.serialize(serializer),
        }
    }
}

impl<'de, R: Resource> Deserialize<'de> for Stated<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        if json.get("type").and_then(Value::as_str).is_some_and(|kind| !R::TYPES.contains(&kind)) {
            return Ok(Self(Words::Unknown(json)));
        }
        let value = R::deserialize(&json).map_err(D::Error::custom)?;
        let (sum, _) = Sum::of_json(&value.key(), &json);
        Ok(Self(Words::Known { value, sum }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spelling_does_not_count() {
        let key = ResourceKey::new("a", "b");
        let one: Value = serde_json::from_str(r#"{"x":1,"y":{"b":[1,"é\n"],"a":null}}"#).unwrap();
        let two: Value =
            serde_json::from_str(r#" {"y": {"a":null, "b":[1, "\u00e9\u000a"]}, "x":1}"#).unwrap();
        assert_eq!(Sum::of_json(&key, &one).0, Sum::of_json(&key, &two).0);
        assert_ne!(Sum::of_json(&key, &one), Sum::of_json(&key, &json!({"x": 1})));
        assert_ne!(Sum::of_json(&key, &one), Sum::of_json(&ResourceKey::new("a", "c"), &one));
    }

    #[test]
    fn canonical_text() {
        let mut text = String::new();
        canonical(&json!({"b": [1, -2, true, null, "\""], "a": {}}), &mut text);
        assert_eq!(text, r#"{"a":{},"b":[1,-2,true,null,"\""]}"#);
    }
}
