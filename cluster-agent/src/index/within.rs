//! Which slices a pod may be in. There are as many pods as endpoints, so of each only a digest of its name is kept: now and then a slice
//! is named that does not have the pod, and looking at it again changes nothing.

use crate::sorted::Sorted;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};
use tombolo_model::{AccountName, NamespaceName};

/// By namespace.
#[derive(Debug, Default)]
pub(super) struct Within(BTreeMap<NamespaceName, InNamespace>);

#[derive(Debug, Default)]
struct InNamespace {
    numbers: Sorted<AccountName, u32>,
    slices: Sorted<u32, AccountName>,
    next: u32,
    /// The digest of a pod, and the number of a slice that it is in; in order.
    pods: Vec<(u32, u32)>,
}

fn digest(pod: &AccountName) -> u32 {
    let mut hasher = DefaultHasher::new();
    pod.hash(&mut hasher);
    let [_, _, _, _, a, b, c, d] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl Within {
    /// The slice has these pods, and no others.
    pub(super) fn put<'a>(
        &mut self,
        namespace: &NamespaceName,
        slice: &AccountName,
        pods: impl Iterator<Item = &'a AccountName>,
    ) {
        self.remove(namespace, slice);
        let digests: Vec<u32> = pods.map(digest).collect();
        if !digests.is_empty() {
            self.0.entry(namespace.clone()).or_default().put(slice, digests);
        }
    }

    /// The slice is gone.
    pub(super) fn remove(&mut self, namespace: &NamespaceName, slice: &AccountName) {
        let Some(known) = self.0.get_mut(namespace) else { return };
        let Some(number) = known.numbers.remove(slice) else { return };
        known.slices.remove(&number);
        known.pods.retain(|(_, of)| *of != number);
        if known.pods.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// The slices that have the pod, and perhaps one that has not.
    pub(super) fn of(
        &self,
        namespace: &NamespaceName,
        pod: &AccountName,
    ) -> impl Iterator<Item = &AccountName> {
        let digest = digest(pod);
        self.0.get(namespace).into_iter().flat_map(move |known| {
            let first = known.pods.partition_point(|(known, _)| *known < digest);
            let pods = known.pods[first..].iter().take_while(move |(known, _)| *known == digest);
            pods.filter_map(move |(_, number)| known.slices.get(number))
        })
    }
}

impl InNamespace {
    fn put(&mut self, slice: &AccountName, digests: Vec<u32>) {
        while self.slices.get(&self.next).is_some() {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.numbers.insert(slice.clone(), number);
        self.slices.insert(number, slice.clone());
        for digest in digests {
            let at = self.pods.partition_point(|known| *known < (digest, number));
            if self.pods.get(at) != Some(&(digest, number)) {
                self.pods.insert(at, (digest, number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    #[test]
    fn pods_are_found_in_their_slices() {
        let (shop, bank): (NamespaceName, NamespaceName) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let mut within = Within::default();
        let pods = |these: &[&str]| these.iter().map(|pod| name(pod)).collect::<Vec<_>>();
        let of = |within: &Within, namespace: &NamespaceName, pod: &str| -> Vec<String> {
            within.of(namespace, &name(pod)).map(ToString::to_string).collect()
        };
        within.put(&shop, &name("one"), pods(&["a", "b", "a"]).iter());
        within.put(&shop, &name("two"), pods(&["b", "c"]).iter());
        within.put(&bank, &name("one"), pods(&["a"]).iter());
        assert_eq!(of(&within, &shop, "a"), ["one"]);
        assert_eq!(of(&within, &shop, "b"), ["one", "two"]);
        assert_eq!(of(&within, &bank, "b"), [""; 0]);
        within.put(&shop, &name("one"), pods(&["c"]).iter());
        assert_eq!(of(&within, &shop, "a"), [""; 0]);
        assert_eq!(of(&within, &shop, "b"), ["two"]);
        assert_eq!(of(&within, &shop, "c").len(), 2);
        within.put(&shop, &name("two"), [].iter());
        within.remove(&shop, &name("one"));
        within.remove(&shop, &name("three"));
        assert_eq!(within.0.len(), 1, "nothing is left of a namespace without pods");
        assert_eq!(of(&within, &bank, "a"), ["one"]);
    }

    #[test]
    fn two_pods_may_have_one_digest() {
        let mut known = InNamespace::default();
        known.put(&name("one"), vec![7]);
        known.put(&name("two"), vec![7, 7]);
        assert_eq!(known.pods, [(7, 0), (7, 1)], "each is asked about");
    }

    #[test]
    fn a_number_is_never_that_of_two() {
        let mut known = InNamespace { next: u32::MAX, ..InNamespace::default() };
        for slice in ["one", "two", "three"] {
            known.put(&name(slice), vec![1]);
        }
        let numbers: Vec<u32> = known.slices.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, u32::MAX]);
    }
}
