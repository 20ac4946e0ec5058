//! How many connections each destination has from here.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts by destination. Clones share them.
#[derive(Debug)]
pub struct Loads<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Loads<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Loads<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> Loads<K> {
    /// How many a destination has.
    pub fn of(&self, key: &K) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(0)
    }

    /// Counts one more until the guard is dropped.
    #[must_use]
    pub fn add(&self, key: &K) -> Load<K> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_insert(0) += 1;
        Load { loads: self.clone(), key: key.clone() }
    }
}

/// One connection in the count.
#[derive(Debug)]
pub struct Load<K: Clone + Eq + Hash> {
    loads: Loads<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Drop for Load<K> {
    fn drop(&mut self) {
        let mut counts = self.loads.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_while_it_lasts() {
        let loads = Loads::default();
        let (first, second) = (loads.add(&"a"), loads.add(&"a"));
        assert_eq!((loads.of(&"a"), loads.of(&"b")), (2, 0));
        drop((first, second));
        assert!(loads.0.lock().unwrap().is_empty());
    }
}
