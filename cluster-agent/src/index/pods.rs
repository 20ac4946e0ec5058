//! The pods of a cluster.

use crate::{sorted, source::PodObject};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_model::{AccountName, NamespaceName};

/// The pods of a namespace, in the order of their names. A list tells them in this order, so most are added at the end.
type InNamespace = Vec<Arc<PodObject>>;

/// Where the pod of this name stands, or would stand.
fn place(pods: &InNamespace, name: &AccountName) -> Result<usize, usize> {
    sorted::place(pods, name, |pod| &pod.name)
}

/// The pods of a cluster, by namespace and name. A copy shares what it has in common with the other: a change touches one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods(BTreeMap<NamespaceName, Arc<InNamespace>>);

impl Pods {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pod of this name.
    #[must_use]
    pub fn get(&self, namespace: &NamespaceName, name: &AccountName) -> Option<&Arc<PodObject>> {
        let pods = self.0.get(namespace)?;
        pods.get(place(pods, name).ok()?)
    }

    /// The pods of a namespace, by name.
    pub fn of(&self, namespace: &NamespaceName) -> impl Iterator<Item = &Arc<PodObject>> {
        self.0.get(namespace).into_iter().flat_map(|pods| pods.iter())
    }

    /// All of them, by namespace and name.
    pub fn values(&self) -> impl Iterator<Item = &Arc<PodObject>> {
        self.0.values().flat_map(|pods| pods.iter())
    }

    /// A pod came, or is another one now. Its names become those that are known already, where they are the same.
    pub fn insert(&mut self, mut pod: PodObject) -> Arc<PodObject> {
        if let Some((known, _)) = self.0.get_key_value(&pod.namespace) {
            pod.namespace = known.clone();
        }
        let pods = self.0.entry(pod.namespace.clone()).or_default();
        let place = place(pods, &pod.name);
        if let Ok(at) = place {
            pod.name = pods[at].name.clone();
        }
        // Pods of one workload stand beside each other, before the first of them or after the last.
        let at = place.unwrap_or_else(|at| at);
        let beside = pods[at.saturating_sub(1)..].iter().take(2);
        if let Some(other) = beside.into_iter().find(|other| other.account == pod.account) {
            pod.account = other.account.clone();
        }
        let pod = Arc::new(pod);
        let pods = Arc::make_mut(pods);
        match place {
            Ok(at) => pods[at] = Arc::clone(&pod),
            Err(at) => pods.insert(at, Arc::clone(&pod)),
        }
        pod
    }

    /// A pod is gone.
    pub fn remove(&mut self, namespace: &NamespaceName, name: &AccountName) {
        let Some(pods) = self.0.get_mut(namespace) else { return };
        if let Ok(at) = place(pods, name) {
            Arc::make_mut(pods).remove(at);
        }
        if pods.is_empty() {
            self.0.remove(namespace);
        }
    }
}

impl FromIterator<PodObject> for Pods {
    fn from_iter<I: IntoIterator<Item = PodObject>>(all: I) -> Self {
        let mut pods = Self::default();
        for pod in all {
            pods.insert(pod);
        }
        pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> PodObject {
        PodObject {
            namespace: namespace.parse().unwrap(),
            name: name.parse().unwrap(),
            uid: "".into(),
            node: None,
            addresses: [].into(),
            host_network: false,
            account: "shop".parse().unwrap(),
        }
    }

    fn names(pods: &Pods) -> Vec<String> {
        pods.values().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect()
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut pods: Pods = [pod("b", "2"), pod("a", "1"), pod("b", "1")].into_iter().collect();
        let before = pods.clone();
        assert_eq!(names(&before), ["a/1", "b/1", "b/2"]);
        pods.remove(&"b".parse().unwrap(), &"2".parse().unwrap());
        pods.remove(&"a".parse().unwrap(), &"9".parse().unwrap());
        pods.remove(&"c".parse().unwrap(), &"1".parse().unwrap());
        pods.insert(pod("b", "3"));
        assert_eq!(names(&pods), ["a/1", "b/1", "b/3"]);
        assert_eq!(names(&before), ["a/1", "b/1", "b/2"]);
        assert_eq!(pods.of(&"b".parse().unwrap()).count(), 2);
        let shared = |pods: &Pods| Arc::as_ptr(&pods.0[&NamespaceName::parse("a").unwrap()]);
        assert_eq!(shared(&pods), shared(&before), "what did not change is not copied");
    }

    #[test]
    fn a_namespace_without_pods_is_not_there() {
        let mut pods: Pods = [pod("a", "1")].into_iter().collect();
        pods.remove(&"a".parse().unwrap(), &"1".parse().unwrap());
        assert!(pods.is_empty());
        assert_eq!(pods, Pods::default());
    }

    #[test]
    fn names_are_one_text() {
        let mut pods: Pods = [pod("a", "1")].into_iter().collect();
        let first = Arc::clone(pods.values().next().unwrap());
        let second = pods.insert(pod("a", "2"));
        let again = pods.insert(PodObject { uid: "other".into(), ..pod("a", "1") });
        let at = |name: &str| name.as_ptr();
        for other in [&second, &again] {
            assert_eq!(at(first.namespace.as_str()), at(other.namespace.as_str()));
            assert_eq!(at(first.account.as_str()), at(other.account.as_str()));
        }
        assert_eq!(at(first.name.as_str()), at(again.name.as_str()));
    }
}
