//! A set of few values. Nearly every service has one name, one account and a port or two, and an agent knows thousands of them: a tree
//! has room for eleven at once.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    slice, vec,
};

/// Some values, each once, in order; as small as it can be. A change copies all of it. Told and written like any other set.
#[derive(Clone)]
pub struct Few<T>(Values<T>);

/// One value never stands in a box, so what is equal has the same shape.
#[derive(Clone)]
enum Values<T> {
    One(T),
    Other(Box<[T]>),
}

impl<T: Ord> Few<T> {
    /// Whether the value is one of them.
    #[must_use]
    pub fn contains(&self, value: &T) -> bool {
        self.binary_search(value).is_ok()
    }

    /// One more, where it is not one of them.
    pub fn insert(&mut self, value: T) {
        if !self.contains(&value) {
            let values = std::mem::take(self);
            *self = values.into_iter().chain([value]).collect();
        }
    }

    /// Leaves out all but the first so many.
    pub fn truncate(&mut self, most: usize) {
        if self.len() > most {
            let values = std::mem::take(self);
            *self = Self::of(values.into_iter().take(most).collect());
        }
    }

    fn of(mut values: Vec<T>) -> Self {
        values.sort();
        values.dedup();
        match <[T; 1]>::try_from(values) {
            Ok([one]) => Self(Values::One(one)),
            Err(values) => Self(Values::Other(values.into())),
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Values::Other(Box::default()))
    }
}
impl<T> Deref for Few<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Values::One(value) => slice::from_ref(value),
            Values::Other(values) => values,
        }
    }
}
impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::of(values.into_iter().collect())
    }
}
impl<T: Ord, const N: usize> From<[T; N]> for Few<T> {
    fn from(values: [T; N]) -> Self {
        Self::of(values.into())
    }
}
impl<T: Ord> From<BTreeSet<T>> for Few<T> {
    fn from(values: BTreeSet<T>) -> Self {
        values.into_iter().collect()
    }
}
impl<T: Ord + Clone> From<&BTreeSet<T>> for Few<T> {
    fn from(values: &BTreeSet<T>) -> Self {
        values.iter().cloned().collect()
    }
}
impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = vec::IntoIter<T>;
    fn into_iter(self) -> vec::IntoIter<T> {
        match self.0 {
            Values::One(value) => vec![value].into_iter(),
            Values::Other(values) => values.into_vec().into_iter(),
        }
    }
}
impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;
    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}
impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: Eq> Eq for Few<T> {}
impl<T: PartialOrd> PartialOrd for Few<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}
impl<T: Ord> Ord for Few<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}
impl<T: Hash> Hash for Few<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}
impl<T: Serialize> Serialize for Few<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}
impl<'de, T: Deserialize<'de> + Ord> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inventory::ServiceKey, name::GlobalName};
    use proptest::prelude::*;
    use std::{hash::DefaultHasher, mem::size_of, net::IpAddr};

    fn hash(of: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        hasher.finish()
    }

    proptest! {
        /// Whatever is in it, it reads, writes, sorts and shows like the set that it stands for.
        #[test]
        fn is_like_a_set(one in prop::collection::vec(0u16..6, 0..5), other in prop::collection::vec(0u16..6, 0..5)) {
            let tree = |values: &[u16]| values.iter().copied().collect::<BTreeSet<_>>();
            let few = |values: &[u16]| values.iter().copied().collect::<Few<_>>();
            let ((a, b), (few_a, few_b)) = ((tree(&one), tree(&other)), (few(&one), few(&other)));
            prop_assert!(few_a.iter().eq(&a) && few_a.clone().into_iter().eq(a.clone()));
            prop_assert_eq!(few_a == few_b, a == b);
            prop_assert_eq!(few_a.cmp(&few_b), a.cmp(&b));
            prop_assert_eq!(hash(&few_a) == hash(&few_b), hash(&a) == hash(&b));
            prop_assert_eq!(format!("{few_a:?}"), format!("{a:?}"));
            prop_assert!((0..6).all(|value| few_a.contains(&value) == a.contains(&value)));
            let mut both = few_a.clone();
            few_b.iter().for_each(|value| both.insert(*value));
            prop_assert!(both.iter().eq(a.union(&b)));
            let mut first = few_a.clone();
            first.truncate(2);
            prop_assert!(first.iter().eq(a.iter().take(2)));
            prop_assert_eq!(Few::from(&a), few_a.clone());
            prop_assert_eq!(Few::from(a.clone()), few_a.clone());
            let text = serde_json::to_string(&a).unwrap();
            prop_assert_eq!(serde_json::to_string(&few_a).unwrap(), text.clone());
            prop_assert_eq!(serde_json::from_str::<Few<u16>>(&text).unwrap(), few_a.clone());
            // a set that somebody wrote in another order is the same
            prop_assert_eq!(serde_json::from_str::<Few<u16>>(&serde_json::to_string(&one).unwrap()).unwrap(), few_a);
        }
    }

    #[test]
    fn nothing_and_one_take_no_place_of_their_own() {
        assert_eq!(Few::<u16>::default(), Few::from([]));
        assert!(matches!(Few::from([1, 1]).0, Values::One(1)));
        assert_eq!(size_of::<Few<u16>>(), size_of::<Box<[u16]>>());
        assert_eq!((size_of::<Few<ServiceKey>>(), size_of::<Few<GlobalName>>()), (24, 16));
        assert_eq!(size_of::<Few<IpAddr>>(), 24);
    }
}
