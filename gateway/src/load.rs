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

    /// Counts one more until the guard is dropped, unless there are `most` already. Looking and counting are one step.
    pub fn try_add(&self, key: &K, most: usize) -> Option<Load<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(key) {
            Some(count) if *count >= most => return None,
            Some(count) => *count += 1,
            None if most == 0 => return None,
            None => drop(counts.insert(key.clone(), 1)),
        }
        Some(Load { loads: self.clone(), key: key.clone() })
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

    #[test]
    fn a_bound_holds_however_many_ask_at_once() {
        let loads = Loads::default();
        let taken: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| loads.try_add(&"a", 50)).collect::<Vec<_>>()))
                .collect();
            asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!((taken.len(), loads.of(&"a")), (50, 50));
        assert!(loads.try_add(&"b", 1).is_some() && loads.try_add(&"b", 0).is_none());
        drop(taken);
        assert!(loads.0.lock().unwrap().is_empty());
    }
}
