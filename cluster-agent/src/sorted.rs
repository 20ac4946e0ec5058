//! Many values by their names. An API server lists objects in the order of their names, and a tree that grows at its end is half empty.

/// Where the value of this key stands in values in order, or would stand. That it would at the end is seen at once.
pub(crate) fn place<T, K: Ord>(values: &[T], key: &K, key_of: impl Fn(&T) -> &K) -> Result<usize, usize> {
    match values.last() {
        Some(last) if key_of(last) < key => Err(values.len()),
        _ => values.binary_search_by(|known| key_of(known).cmp(key)),
    }
}

/// Values by key, in order, one after the other. To add one at the end is cheap, and to add one elsewhere moves those after it: tens of thousands
/// of small ones in some microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sorted<K, V>(Vec<(K, V)>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Sorted<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        place(&self.0, key, |(known, _)| known)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.place(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Puts the value in the place of the one that stood there, which it gives. A key that was there stays.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.place(key).ok()?;
        let (_, value) = self.0.remove(at);
        // What is left of a namespace that was large does not keep its room.
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn is_like_a_tree(steps in prop::collection::vec((0u8..20, prop::option::of(0u8..3)), 0..60)) {
            let (mut tree, mut sorted) = (BTreeMap::new(), Sorted::default());
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(sorted.insert(key, value), tree.insert(key, value)),
                    None => prop_assert_eq!(sorted.remove(&key), tree.remove(&key)),
                }
                prop_assert!(sorted.iter().eq(tree.iter()));
                prop_assert_eq!((sorted.get(&key), sorted.is_empty()), (tree.get(&key), tree.is_empty()));
            }
        }
    }

    #[test]
    fn room_is_given_back() {
        let mut sorted: Sorted<u16, ()> = Sorted::default();
        for key in 0..1000 {
            sorted.insert(key, ());
        }
        for key in 10..1000 {
            sorted.remove(&key);
        }
        assert!(sorted.0.capacity() < 100, "{}", sorted.0.capacity());
    }
}
