//! One value that many hold. States are copied at each change and kept in several forms; what is in them is not.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// A value in one place, however often it is copied. Who writes to it gets a copy of his own first.
#[derive(PartialOrd, Ord)]
pub struct Held<T>(Arc<T>);

impl<T> From<T> for Held<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}
impl<T: Default> Default for Held<T> {
    fn default() -> Self {
        Self::from(T::default())
    }
}
impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
impl<T: Clone> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}
impl<T: PartialEq> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || *self.0 == *other.0
    }
}
impl<T: Eq> Eq for Held<T> {}
impl<T: Hash> Hash for Held<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0).hash(state);
    }
}
impl<T: fmt::Debug> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T: Serialize> Serialize for Held<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Held<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_value_until_somebody_writes() {
        let one = Held::from(vec![1]);
        let mut other = one.clone();
        assert!(Arc::ptr_eq(&one.0, &other.0));
        other.push(2);
        assert_eq!((&*one, &*other), (&vec![1], &vec![1, 2]));
        assert_ne!(one, other);
        assert_eq!(one, Held::from(vec![1]));
    }

    #[test]
    fn it_reads_and_writes_like_the_value() {
        let held: Held<Vec<u8>> = serde_json::from_str("[1,2]").unwrap();
        assert_eq!(serde_json::to_string(&held).unwrap(), "[1,2]");
        assert_eq!(format!("{held:?}"), "[1, 2]");
    }
}
