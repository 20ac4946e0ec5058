//! What is known of an object that was read: as much as the plan asks for, and no more. A cluster has an object or two for each name, and a whole one is
//! kilobytes.

use super::objects;
use crate::source::Uid;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, runtime::watcher::Event};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};
use tombolo_model::{Few, GlobalName};

/// A Service of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenService {
    /// The name that it stands for; none where it is no object of ours.
    pub(super) name: Option<GlobalName>,
    /// `metadata.uid`: one that was made anew has another.
    pub(super) uid: Option<Uid>,
    /// Its ports, and a digest of what else there is of each, in order.
    pub(super) ports: Few<(PortKey, u64)>,
    /// By port, the target.
    pub(super) targets: Few<(u16, u16)>,
    pub(super) cluster_ips: Few<IpAddr>,
    pub(super) external_ips: Few<IpAddr>,
    /// Whether callers stay with an endpoint; that has settings that go with it.
    pub(super) is_sticky: bool,
    /// What of it must be as it was made, beside its ports and external IPs.
    pub(super) rest: u64,
}

/// What names a port within a Service, as Kubernetes merges them: its number, and its protocol where that is not TCP.
pub(super) type PortKey = (i32, Option<Box<str>>);

/// An EndpointSlice of ours: all that must be as it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SeenSlice(u64);

/// Within one process: nothing is kept by it.
fn digest(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn port(port: &ServicePort) -> (PortKey, u64) {
    let protocol = port.protocol.as_deref().filter(|protocol| *protocol != "TCP").map(Into::into);
    let target = port.target_port.as_ref().map(|target| format!("{target:?}"));
    ((port.port, protocol), digest((&port.name, target, &port.app_protocol)))
}

/// Labels and annotations of ours; others may add theirs.
fn marks(meta: &ObjectMeta, labels: &[&str]) -> u64 {
    let of_ours = |map: &Option<BTreeMap<String, String>>, keys: &[&str]| -> Vec<Option<String>> {
        keys.iter().map(|key| map.as_ref().and_then(|map| map.get(*key)).cloned()).collect()
    };
    digest((of_ours(&meta.labels, labels), of_ours(&meta.annotations, objects::ANNOTATIONS)))
}

impl SeenService {
    pub(super) fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        let ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten().map(port)).collect();
        let has_selector =
            spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
        let stated =
            |spec: &ServiceSpec| digest([&spec.type_, &spec.ip_family_policy, &spec.internal_traffic_policy]);
        let as_made = (has_selector, spec.map(stated));
        Self {
            name: objects::stands_for(&service.metadata),
            uid: service.metadata.uid.as_deref().map(Into::into),
            ports,
            targets: objects::targets(service).collect(),
            cluster_ips: objects::cluster_ips(service).collect(),
            external_ips: objects::external_ips(service).into_iter().collect(),
            is_sticky: spec.is_some_and(objects::is_sticky),
            rest: digest((as_made, marks(&service.metadata, objects::SERVICE_LABELS))),
        }
    }
}

impl SeenSlice {
    pub(super) fn of(slice: &EndpointSlice) -> Self {
        let ports = slice
            .ports
            .iter()
            .flatten()
            .map(|port| digest((&port.name, port.port, &port.protocol, &port.app_protocol)));
        // whatever else somebody wrote into an endpoint is not ours, and counts
        let endpoints = slice.endpoints.iter().map(|endpoint| digest(format!("{endpoint:?}")));
        // one that others added is theirs
        let owners = slice.metadata.owner_references.iter().flatten();
        let owner =
            owners.filter(|owner| owner.kind == objects::OWNER).map(|owner| (&owner.name, &owner.uid));
        let all = (ports.collect::<Vec<_>>(), endpoints.collect::<Vec<_>>(), owner.collect::<Vec<_>>());
        Self(digest((&slice.address_type, all, marks(&slice.metadata, objects::SLICE_LABELS))))
    }
}

/// The objects of a kind by name, as a watch tells them.
#[derive(Debug)]
pub(super) struct Seen<S> {
    pub(super) all: BTreeMap<Box<str>, S>,
    /// What a list that is not complete yet has told.
    listed: BTreeMap<Box<str>, S>,
    /// Whether a list was complete once.
    pub(super) is_read: bool,
}

impl<S> Default for Seen<S> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), listed: BTreeMap::new(), is_read: false }
    }
}

impl<S> Seen<S> {
    /// Events in their order.
    pub(super) fn take_all<K: Resource>(&mut self, events: Vec<Event<K>>, of: impl Fn(&K) -> S) {
        events.into_iter().for_each(|event| self.take(event, &of));
    }

    /// What is known stays until a new list is complete.
    fn take<K: Resource>(&mut self, event: Event<K>, of: impl Fn(&K) -> S) {
        let name = |object: &K| Box::from(object.meta().name.as_deref().unwrap_or_default());
        match event {
            Event::Apply(object) => drop(self.all.insert(name(&object), of(&object))),
            Event::Delete(object) => drop(self.all.remove(&name(&object))),
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => drop(self.listed.insert(name(&object), of(&object))),
            Event::InitDone => {
                // a tree that grew at its end is half empty, and one that is made of what is in order is full
                self.all = std::mem::take(&mut self.listed).into_iter().collect();
                self.is_read = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_stays_until_a_list_is_complete() {
        let service = |name: &str| {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            Service { metadata, ..Service::default() }
        };
        let mut seen = Seen::default();
        let mut take = |event| {
            seen.take(event, SeenService::of);
            (seen.all.keys().map(|name| &**name).collect::<Vec<_>>().join(" "), seen.is_read)
        };
        assert_eq!(take(Event::Init), (String::new(), false));
        assert_eq!(take(Event::InitApply(service("a"))), (String::new(), false));
        assert_eq!(take(Event::InitDone), ("a".to_owned(), true));
        assert_eq!(take(Event::Apply(service("b"))), ("a b".to_owned(), true));
        assert_eq!(take(Event::Delete(service("a"))), ("b".to_owned(), true));
        assert_eq!(take(Event::Init), ("b".to_owned(), true));
        assert_eq!(take(Event::InitApply(service("c"))), ("b".to_owned(), true));
        assert_eq!(take(Event::InitDone), ("c".to_owned(), true));
    }

    /// What is written and what is compared are two lists.
    #[test]
    fn all_marks_that_are_written_are_compared() {
        let name = GlobalName::parse("catalog.acme.example.com").unwrap();
        let namespace = tombolo_model::NamespaceName::parse("tombolo-system").unwrap();
        let service = objects::service(&namespace, &name, &[], &Default::default());
        let slice = objects::slice(&namespace, &name, &[], "IPv4", &[]);
        let keys = |map: &Option<BTreeMap<String, String>>| {
            map.iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>()
        };
        let sorted = |keys: &[&str]| {
            let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            keys.sort();
            keys
        };
        for (meta, labels) in
            [(&service.metadata, objects::SERVICE_LABELS), (&slice.metadata, objects::SLICE_LABELS)]
        {
            assert_eq!(keys(&meta.labels), sorted(labels));
            assert_eq!(keys(&meta.annotations), sorted(objects::ANNOTATIONS));
        }
    }
}
