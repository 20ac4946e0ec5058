//! What runs in this cluster, joined from its objects: each service with its ports and the endpoints behind them.
//! Synchronous; says whether anything changed; [`Index::view`] is cheap to take and never changes afterwards.
//!
//! A cluster may have 50,000 pods, each with an endpoint: what is said of each of them is kept once, and a name that stands in several
//! places is one text.

mod guard;
mod local;
mod names;
mod pods;
#[cfg(test)]
mod tests;
mod view;
mod within;

pub use guard::Guard;
pub use local::{LocalAddress, LocalEndpoint, LocalPort, LocalService, Probe};
pub use pods::Pods;
pub use view::{Families, View, Workloads};

use crate::source::{
    AccountObject, Change, ExportObject, NamespaceObject, Object, ObjectKey, ObjectKind, PodObject,
    ServiceObject, SliceObject,
};
use guard::Refused;
use names::Names;
use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
};
use tombolo_model::{
    AccountName, DnsLabel, Held, Locality, NamespaceName, intent::Labels, inventory::ServiceKey,
};
use tombolo_wire::message::Problem;
use within::Within;

/// The objects, and what follows from them.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<NamespaceName, NamespaceObject>,
    services: BTreeMap<ServiceKey, Box<ServiceObject>>,
    slices: BTreeMap<ObjectKey, Box<SliceObject>>,
    accounts: BTreeMap<ObjectKey, AccountObject>,
    pods: Arc<Pods>,
    nodes: BTreeMap<AccountName, Locality>,
    exports: BTreeMap<ServiceKey, ExportObject>,
    /// Whether ServiceImports can be made.
    mcs: bool,
    /// How many pods have an address of IPv4, and of IPv6.
    pods_with: (usize, usize),
    /// Of each service, by name; in its namespace.
    slices_of: BTreeMap<ServiceKey, Names>,
    slices_with: Within,
    joined: BTreeMap<ServiceKey, Arc<LocalService>>,
    /// What endpoints are held to; in Kubernetes.
    guard: Option<Guard>,
    /// Where the API server is.
    api: BTreeSet<SocketAddr>,
    /// Endpoints that are left out.
    refused: BTreeMap<ServiceKey, Vec<Refused>>,
    /// Services that depend on more pods than those that their slices name.
    loose: BTreeSet<ServiceKey>,
    /// What of a view nothing changed since the last one.
    rarely: OnceCell<Rarely>,
}

/// What of a view seldom changes: nothing of it follows from where endpoints are, and whether they are ready.
#[derive(Debug)]
struct Rarely {
    namespaces: Held<BTreeMap<NamespaceName, Labels>>,
    workloads: Held<Workloads>,
    spaces: Held<BTreeSet<NamespaceName>>,
    exports: Held<BTreeMap<ServiceKey, ExportObject>>,
    external: Held<BTreeSet<ServiceKey>>,
}

impl Index {
    /// One whose endpoints are held to this.
    #[must_use]
    pub fn guarded(guard: Guard) -> Self {
        Self { guard: Some(guard), ..Self::default() }
    }

    /// Endpoints that are left out, and why.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let of = |(service, slice, message): (&ServiceKey, &AccountName, String)| Problem {
            subject: slice_key(&service.namespace, slice).to_string(),
            message,
        };
        let all = self.refused.iter().flat_map(|(service, refused)| {
            guard::problems(refused).map(move |(slice, message)| (service, slice, message))
        });
        all.map(of).collect()
    }

    /// An object came or changed. Whether anything is different now.
    pub fn apply(&mut self, object: Object) -> bool {
        let key = object.key();
        self.may_change(key.kind);
        match object {
            Object::Namespace(new) => replace(&mut self.namespaces, new.name.clone(), new),
            Object::Account(new) => replace(&mut self.accounts, key, new),
            Object::Service(new) => {
                let service = new.key.clone();
                let was = self.services.get(&service).is_some_and(|old| old.external);
                let differs = was != new.external;
                replace(&mut self.services, service.clone(), Box::new(new)) && (self.join(&service) | differs)
            }
            Object::Export(new) => replace(&mut self.exports, new.key.clone(), new),
            Object::Slice(new) => self.apply_slice(key, new),
            Object::Pod(new) => self.apply_pod(new),
            // Nothing in the view depends on it.
            Object::Node(new) => {
                self.nodes.insert(new.name, new.locality);
                false
            }
        }
    }

    /// An object is gone. Whether anything is different now.
    pub fn delete(&mut self, key: &ObjectKey) -> bool {
        self.may_change(key.kind);
        match key.kind {
            ObjectKind::Namespace => self.namespaces.remove(&key.namespace).is_some(),
            ObjectKind::ServiceAccount => self.accounts.remove(key).is_some(),
            ObjectKind::Service => {
                let Ok(name) = DnsLabel::parse(key.name.as_str()) else { return false };
                let service = ServiceKey { namespace: key.namespace.clone(), name };
                let Some(old) = self.services.remove(&service) else { return false };
                self.join(&service) || old.external
            }
            ObjectKind::ServiceExport => {
                let Ok(name) = DnsLabel::parse(key.name.as_str()) else { return false };
                self.exports.remove(&ServiceKey { namespace: key.namespace.clone(), name }).is_some()
            }
            ObjectKind::EndpointSlice => {
                let Some(old) = self.slices.remove(key) else { return false };
                self.slices_with.remove(&old.namespace, &old.name);
                let service = service_of(&old);
                self.unlink(&service, &key.name) | self.api_server(&service)
            }
            ObjectKind::Pod => {
                let Some(old) = self.pods.get(&key.namespace, &key.name).cloned() else { return false };
                self.count(Some(&old), None);
                Arc::make_mut(&mut self.pods).remove(&key.namespace, &key.name);
                self.join_all_with(&key.namespace, &key.name);
                true
            }
            ObjectKind::Node => {
                self.nodes.remove(&key.name);
                false
            }
        }
    }

    /// These, and no others, are the objects. Whether anything is different now.
    pub fn reset(&mut self, objects: Vec<Object>) -> bool {
        let before = self.view();
        *self = Self { guard: self.guard.take(), ..Self::default() };
        for object in objects {
            self.apply(object);
        }
        self.view() != before
    }

    /// A change of either kind. Whether anything is different now.
    pub fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Apply(object) => self.apply(object),
            Change::Delete(key) => self.delete(&key),
        }
    }

    /// Whether ServiceImports can be made in the cluster. Returns whether anything is different now.
    pub fn set_mcs(&mut self, there: bool) -> bool {
        let differs = self.mcs != there;
        self.mcs = there;
        if differs {
            self.rarely.take();
        }
        differs
    }

    /// An object of this kind is another one, or gone.
    fn may_change(&mut self, kind: ObjectKind) {
        if !matches!(kind, ObjectKind::EndpointSlice | ObjectKind::Pod | ObjectKind::Node) {
            self.rarely.take();
        }
    }

    /// A pod is another one now.
    fn count(&mut self, old: Option<&PodObject>, new: Option<&PodObject>) {
        let has = |pod: &PodObject, v4| pod.addresses.iter().any(|address| address.is_ipv4() == v4);
        let counts = [(true, &mut self.pods_with.0), (false, &mut self.pods_with.1)];
        for (v4, count) in counts {
            *count += usize::from(new.is_some_and(|pod| has(pod, v4)));
            *count -= usize::from(old.is_some_and(|pod| has(pod, v4)));
        }
    }

    fn families(&self) -> Families {
        match self.pods_with {
            (0, 0) => Families::default(),
            (v4, v6) => Families { v4: v4 > 0, v6: v6 > 0 },
        }
    }

    /// All that runs in the cluster now.
    #[must_use]
    pub fn view(&self) -> View {
        let Rarely { namespaces, workloads, spaces, exports, external } =
            self.rarely.get_or_init(|| self.rarely());
        View {
            namespaces: namespaces.clone(),
            services: self.joined.clone(),
            workloads: workloads.clone(),
            spaces: spaces.clone(),
            exports: exports.clone(),
            external: external.clone(),
            families: self.families(),
            pods: Arc::clone(&self.pods),
            capture: Arc::default(),
        }
    }

    fn rarely(&self) -> Rarely {
        let implied = self.joined.keys().map(|key| &key.namespace);
        let implied = implied.chain(self.accounts.keys().map(|key| &key.namespace));
        let mut namespaces: BTreeMap<NamespaceName, Labels> =
            implied.map(|name| (name.clone(), Labels::new())).collect();
        for (name, object) in &self.namespaces {
            namespaces.insert(name.clone(), object.labels.clone());
        }
        for (name, labels) in &mut namespaces {
            // Kubernetes sets this label on every namespace, and people select by it.
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_string());
        }
        let of_service = |(key, service): (&ServiceKey, &Arc<LocalService>)| -> Vec<_> {
            service.accounts.iter().map(|account| (key.namespace.clone(), account.clone())).collect()
        };
        let mut workloads: Workloads =
            self.joined.iter().flat_map(of_service).map(|workload| (workload, BTreeSet::new())).collect();
        for account in self.accounts.values() {
            workloads.insert((account.namespace.clone(), account.name.clone()), account.selectors.clone());
        }
        let spaces = self.namespaces.values().filter(|space| self.mcs && !space.ending);
        let external = self.services.values().filter(|service| service.external);
        Rarely {
            namespaces: namespaces.into(),
            workloads: workloads.into(),
            spaces: spaces.map(|space| space.name.clone()).collect::<BTreeSet<_>>().into(),
            exports: self.exports.clone().into(),
            external: external.map(|service| service.key.clone()).collect::<BTreeSet<_>>().into(),
        }
    }

    /// Where the nodes stand, by name; known in Kubernetes only.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<AccountName, Locality> {
        &self.nodes
    }

    fn apply_slice(&mut self, key: ObjectKey, mut new: SliceObject) -> bool {
        if self.slices.get(&key).is_some_and(|old| **old == new) {
            return false;
        }
        let service = service_of(&new);
        for pod in new.endpoints.iter_mut().filter_map(|endpoint| endpoint.pod.as_mut()) {
            if let Some(known) = self.pods.get(&new.namespace, pod) {
                *pod = known.name.clone();
            }
        }
        let mut changed = false;
        if let Some(old) = self.slices.remove(&key) {
            let other = service_of(&old);
            changed = other != service && self.unlink(&other, &key.name);
        }
        self.slices_with.put(&new.namespace, &key.name, pods_of(&new));
        add(&mut self.slices_of, service.clone(), &key.name);
        self.slices.insert(key, Box::new(new));
        self.join(&service) | self.api_server(&service) | changed
    }

    fn apply_pod(&mut self, new: PodObject) -> bool {
        let old = self.pods.get(&new.namespace, &new.name).cloned();
        if old.as_ref().is_some_and(|old| **old == new) {
            return false;
        }
        self.count(old.as_deref(), Some(&new));
        let pod = Arc::make_mut(&mut self.pods).insert(new);
        if old.is_none() {
            self.share_name(&pod);
        }
        self.join_all_with(&pod.namespace, &pod.name);
        true
    }

    /// A pod's name in slices that were there before it becomes the pod's own.
    fn share_name(&mut self, pod: &PodObject) {
        let slices: Vec<AccountName> = self.slices_with.of(&pod.namespace, &pod.name).cloned().collect();
        for slice in &slices {
            let Some(slice) = self.slices.get_mut(&slice_key(&pod.namespace, slice)) else { continue };
            let names = slice.endpoints.iter_mut().filter_map(|endpoint| endpoint.pod.as_mut());
            names.filter(|name| **name == pod.name).for_each(|name| *name = pod.name.clone());
        }
    }

    /// Where the API server is may be different now: then every service may be. Whether any is.
    fn api_server(&mut self, service: &ServiceKey) -> bool {
        if self.guard.is_none() || !guard::is_api_server(service) {
            return false;
        }
        let names = self.slices_of.get(service).map_or(&[][..], Names::as_slice);
        let slices = names.iter().filter_map(|name| self.slices.get(&slice_key(&service.namespace, name)));
        let now: BTreeSet<SocketAddr> = slices.flat_map(|slice| guard::places(slice)).collect();
        if now == self.api {
            return false;
        }
        self.api = now;
        let all: Vec<ServiceKey> = self.services.keys().cloned().collect();
        all.iter().fold(false, |changed, service| self.join(service) | changed)
    }

    /// Works out again the services that a pod serves. Whether any is different now.
    fn join_all_with(&mut self, namespace: &NamespaceName, pod: &AccountName) -> bool {
        let slices = self.slices_with.of(namespace, pod);
        let mut services: BTreeSet<ServiceKey> = slices
            .filter_map(|slice| self.slices.get(&slice_key(namespace, slice)))
            .map(|slice| service_of(slice))
            .collect();
        services.extend(self.loose.iter().filter(|service| service.namespace == *namespace).cloned());
        services.iter().fold(false, |changed, service| self.join(service) | changed)
    }

    fn unlink(&mut self, service: &ServiceKey, slice: &AccountName) -> bool {
        remove(&mut self.slices_of, service, slice);
        self.join(service)
    }

    /// Works out a service again. Whether it is different now.
    fn join(&mut self, key: &ServiceKey) -> bool {
        let Some(service) = self.services.get(key).filter(|service| !service.external) else {
            self.refused.remove(key);
            self.loose.remove(key);
            let was = self.joined.remove(key).is_some();
            if was {
                self.rarely.take();
            }
            return was;
        };
        let names = self.slices_of.get(key).map_or(&[][..], Names::as_slice);
        let slices: Vec<&SliceObject> = names
            .iter()
            .filter_map(|name| self.slices.get(&slice_key(&key.namespace, name)).map(|slice| &**slice))
            .collect();
        let account = |pod: &AccountName| Some(self.pods.get(&key.namespace, pod)?.account.clone());
        let (mut refused, guard) = (Vec::new(), self.guard.as_ref());
        let new = {
            let believed = slices.iter().map(|slice| match guard {
                Some(guard) => guard.sieve(slice, &self.pods, &self.api, &mut refused),
                None => Cow::Borrowed(*slice),
            });
            let believed: Vec<Cow<'_, SliceObject>> = believed.collect();
            let believed: Vec<&SliceObject> = believed.iter().map(|slice| &**slice).collect();
            LocalService::join(service, &believed, account)
        };
        let is_loose = guard.is_some_and(|guard| slices.iter().any(|slice| guard.depends_on_all(slice)));
        refused.sort_unstable();
        match refused.is_empty() {
            true => drop(self.refused.remove(key)),
            false => drop(self.refused.insert(key.clone(), refused)),
        }
        match is_loose {
            true => self.loose.insert(key.clone()),
            false => self.loose.remove(key),
        };
        let old = self.joined.get(key);
        if old.is_some_and(|old| **old == new) {
            return false;
        }
        if old.is_none_or(|old| old.accounts != new.accounts) {
            self.rarely.take();
        }
        self.joined.insert(key.clone(), Arc::new(new));
        true
    }
}

fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    map.insert(key, value);
    true
}

fn add(map: &mut BTreeMap<ServiceKey, Names>, key: ServiceKey, name: &AccountName) {
    match map.entry(key) {
        Entry::Vacant(place) => drop(place.insert(Names::One(name.clone()))),
        Entry::Occupied(mut names) => names.get_mut().insert(name.clone()),
    }
}

fn remove(map: &mut BTreeMap<ServiceKey, Names>, key: &ServiceKey, name: &AccountName) {
    let Some(names) = map.get_mut(key) else { return };
    match names.without(name) {
        Some(left) => *names = left,
        None => drop(map.remove(key)),
    }
}

fn pods_of(slice: &SliceObject) -> impl Iterator<Item = &AccountName> {
    slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref())
}

fn service_of(slice: &SliceObject) -> ServiceKey {
    ServiceKey { namespace: slice.namespace.clone(), name: slice.service.clone() }
}

/// What names a slice.
fn slice_key(namespace: &NamespaceName, name: &AccountName) -> ObjectKey {
    ObjectKey { kind: ObjectKind::EndpointSlice, namespace: namespace.clone(), name: name.clone() }
}
