//! What runs in this cluster, joined from its objects: each service with its ports and the endpoints behind them.
//! Synchronous; says whether anything changed; [`Index::view`] is cheap to take and never changes afterwards.

use crate::{
    capture::Chosen,
    source::{
        AccountObject, Change, Check, ExportObject, NamespaceObject, Object, ObjectKey, ObjectKind,
        PodObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject, SlicePort, TargetPort, pod_key,
    },
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tombolo_model::{
    AccountName, DnsLabel, Locality, NamespaceName,
    install::Namespaces,
    intent::Labels,
    inventory::{PortSpec, Protocol, ServiceKey},
    mcs::{ExportRecord, Traits},
    snapshot::WorkloadSelector,
};

/// A service of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    /// When it was made, seconds since 1970, where its manifest says so.
    pub created_s: Option<i64>,
    /// Whether its pods have names of their own.
    pub headless: bool,
    /// Who serves it, as far as it is known.
    pub accounts: BTreeSet<AccountName>,
    /// Its ports.
    pub ports: Vec<LocalPort>,
    /// Its endpoints by address.
    pub endpoints: BTreeMap<IpAddr, LocalAddress>,
    /// What of it goes to other clusters where it is exported.
    pub traits: Traits,
}

/// What is known of an address of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddress {
    /// The name in DNS of a pod that has one.
    pub hostname: Option<DnsLabel>,
    /// The pod; one of a cluster with IPv4 and IPv6 has two addresses.
    pub pod: Option<AccountName>,
    /// Who serves at it, as far as it is known.
    pub account: Option<AccountName>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// What clients see.
    pub spec: PortSpec,
    /// Where it leads.
    pub endpoints: BTreeMap<SocketAddr, LocalEndpoint>,
}

/// An endpoint of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// What its EndpointSlice says. It takes requests when its check agrees.
    pub ready: bool,
    /// On its way out and still answering: taken while no other of the port is ready.
    pub draining: bool,
    /// How it is checked.
    pub check: Check,
}

/// Who a workload of this cluster is, and how its processes are known.
pub type Workloads = BTreeMap<(NamespaceName, AccountName), BTreeSet<WorkloadSelector>>;

/// All that runs in this cluster at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The labels of each namespace that is declared or used.
    pub namespaces: BTreeMap<NamespaceName, Labels>,
    /// Its services.
    pub services: BTreeMap<ServiceKey, Arc<LocalService>>,
    /// Its service accounts, and those that a service names.
    pub workloads: Workloads,
    /// The namespaces in which ServiceImports can be made; none where the cluster has no Multi-Cluster Services API.
    pub spaces: BTreeSet<NamespaceName>,
    /// The services that are exported to the cluster set.
    pub exports: BTreeMap<ServiceKey, ExportObject>,
    /// Services that stand for nothing in the cluster.
    pub external: BTreeSet<ServiceKey>,
    /// The address families that pods have.
    pub families: Families,
    /// Its pods; from an API server only.
    pub pods: Arc<Pods>,
    /// How the capture modes of its namespaces are chosen, as the controller's snapshot has it; by labels alone before that was read.
    pub capture: Arc<Chosen>,
}

impl View {
    /// The export of a service, as it is reported.
    #[must_use]
    pub fn export(&self, key: &ServiceKey, service: &LocalService) -> Option<ExportRecord> {
        let export = self.exports.get(key).filter(|_| self.spaces.contains(&key.namespace))?;
        Some(ExportRecord {
            created_s: export.created_s,
            traits: service.traits.clone(),
            labels: export.labels.clone(),
            annotations: export.annotations.clone(),
        })
    }
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Default for Families {
    /// What a cluster without pods has.
    fn default() -> Self {
        Self { v4: true, v6: false }
    }
}

impl Families {
    /// Whether this is an address of one of them.
    #[must_use]
    pub const fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
    /// As Kubernetes writes them, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        [(self.v4, "IPv4"), (self.v6, "IPv6")].into_iter().filter_map(|(has, name)| has.then_some(name))
    }
}

/// The pods of a cluster, by namespace and name.
pub type Pods = BTreeMap<(NamespaceName, AccountName), Arc<PodObject>>;

/// The objects, and what follows from them.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: BTreeMap<NamespaceName, NamespaceObject>,
    services: BTreeMap<ServiceKey, ServiceObject>,
    slices: BTreeMap<ObjectKey, SliceObject>,
    accounts: BTreeMap<ObjectKey, AccountObject>,
    pods: Arc<Pods>,
    nodes: BTreeMap<AccountName, Locality>,
    exports: BTreeMap<ServiceKey, ExportObject>,
    /// Whether ServiceImports can be made.
    mcs: bool,
    /// How many pods have an address of IPv4, and of IPv6.
    pods_with: (usize, usize),
    slices_of: BTreeMap<ServiceKey, BTreeSet<ObjectKey>>,
    /// Of each pod; nearly always one, and there are many pods.
    slices_with: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    joined: BTreeMap<ServiceKey, Arc<LocalService>>,
}

impl Index {
    /// An object came or changed. Whether anything is different now.
    pub fn apply(&mut self, object: Object) -> bool {
        let key = object.key();
        match object {
            Object::Namespace(new) => replace(&mut self.namespaces, new.name.clone(), new),
            Object::Account(new) => replace(&mut self.accounts, key, new),
            Object::Service(new) => {
                let service = new.key.clone();
                let was = self.services.get(&service).is_some_and(|old| old.external);
                let differs = was != new.external;
                replace(&mut self.services, service.clone(), new) && (self.join(&service) | differs)
            }
            Object::Export(new) => replace(&mut self.exports, new.key.clone(), new),
            Object::Slice(new) => {
                let service = service_of(&new);
                if self.slices.get(&key) == Some(&new) {
                    return false;
                }
                let pods: Vec<ObjectKey> = pods_of(&new).collect();
                let old = self.slices.insert(key.clone(), new);
                let mut changed = false;
                if let Some(old) = old {
                    self.forget_pods(&old, &key);
                    let other = service_of(&old);
                    changed = other != service && self.unlink(&other, &key);
                }
                for pod in pods {
                    let slices = self.slices_with.entry(pod).or_default();
                    if !slices.contains(&key) {
                        slices.reserve_exact(1);
                        slices.push(key.clone());
                    }
                }
                self.slices_of.entry(service.clone()).or_default().insert(key);
                self.join(&service) || changed
            }
            Object::Pod(new) => {
                let place = (new.namespace.clone(), new.name.clone());
                let old = self.pods.get(&place).cloned();
                if old.as_ref().is_some_and(|old| **old == new) {
                    return false;
                }
                self.count(old.as_deref(), Some(&new));
                Arc::make_mut(&mut self.pods).insert(place, Arc::new(new));
                self.join_all_with(&key);
                true
            }
            // Nothing in the view depends on it.
            Object::Node(new) => {
                self.nodes.insert(new.name, new.locality);
                false
            }
        }
    }

    /// An object is gone. Whether anything is different now.
    pub fn delete(&mut self, key: &ObjectKey) -> bool {
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
                self.forget_pods(&old, key);
                self.unlink(&service_of(&old), key)
            }
            ObjectKind::Pod => {
                let place = (key.namespace.clone(), key.name.clone());
                let Some(old) = self.pods.get(&place).cloned() else { return false };
                self.count(Some(&old), None);
                Arc::make_mut(&mut self.pods).remove(&place);
                self.join_all_with(key);
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
        *self = Self::default();
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
    pub const fn set_mcs(&mut self, there: bool) -> bool {
        let differs = self.mcs != there;
        self.mcs = there;
        differs
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
        View {
            namespaces,
            services: self.joined.clone(),
            workloads,
            spaces: spaces.map(|space| space.name.clone()).collect(),
            exports: self.exports.clone(),
            external: external.map(|service| service.key.clone()).collect(),
            families: self.families(),
            pods: Arc::clone(&self.pods),
            capture: Arc::default(),
        }
    }

    /// Where the nodes stand, by name; known in Kubernetes only.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<AccountName, Locality> {
        &self.nodes
    }

    /// The slice no longer has these pods.
    fn forget_pods(&mut self, slice: &SliceObject, key: &ObjectKey) {
        for pod in pods_of(slice) {
            if let Some(slices) = self.slices_with.get_mut(&pod) {
                slices.retain(|slice| slice != key);
                if slices.is_empty() {
                    self.slices_with.remove(&pod);
                }
            }
        }
    }

    /// Works out again the services that a pod serves. Whether any is different now.
    fn join_all_with(&mut self, pod: &ObjectKey) -> bool {
        let Some(slices) = self.slices_with.get(pod) else { return false };
        let services: BTreeSet<ServiceKey> =
            slices.iter().filter_map(|slice| self.slices.get(slice)).map(service_of).collect();
        services.iter().fold(false, |changed, service| self.join(service) | changed)
    }

    fn unlink(&mut self, service: &ServiceKey, slice: &ObjectKey) -> bool {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        self.join(service)
    }

    /// Works out a service again. Whether it is different now.
    fn join(&mut self, key: &ServiceKey) -> bool {
        let Some(service) = self.services.get(key).filter(|service| !service.external) else {
            return self.joined.remove(key).is_some();
        };
        let none = BTreeSet::new();
        let slices: Vec<&SliceObject> = self
            .slices_of
            .get(key)
            .unwrap_or(&none)
            .iter()
            .filter_map(|slice| self.slices.get(slice))
            .collect();
        let mut endpoints = BTreeMap::new();
        for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
            let known: &mut LocalAddress = endpoints.entry(endpoint.address).or_default();
            known.hostname = known.hostname.take().or_else(|| endpoint.hostname.clone());
            known.pod = known.pod.take().or_else(|| endpoint.pod.clone());
        }
        for known in endpoints.values_mut() {
            let of_pod = || {
                let pod = self.pods.get(&(key.namespace.clone(), known.pod.clone()?))?;
                Some(pod.account.clone())
            };
            known.account = service.account.clone().or_else(of_pod);
        }
        let accounts =
            service.account.iter().chain(endpoints.values().filter_map(|known| known.account.as_ref()));
        let accounts = accounts.cloned().collect();
        let ports = service
            .ports
            .iter()
            .map(|port| LocalPort {
                spec: port.spec.clone(),
                endpoints: leads_to(port, &service.check, &slices),
            })
            .collect();
        let new = LocalService {
            created_s: service.created_s,
            headless: service.headless,
            accounts,
            ports,
            endpoints,
            traits: service.traits.clone(),
        };
        if self.joined.get(key).is_some_and(|old| **old == new) {
            return false;
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

fn pods_of(slice: &SliceObject) -> impl Iterator<Item = ObjectKey> {
    let pod = |endpoint: &SliceEndpoint| Some(pod_key(&slice.namespace, endpoint.pod.as_ref()?));
    slice.endpoints.iter().filter_map(pod)
}

fn service_of(slice: &SliceObject) -> ServiceKey {
    ServiceKey { namespace: slice.namespace.clone(), name: slice.service.clone() }
}

fn leads_to(
    port: &ServicePort,
    check: &Check,
    slices: &[&SliceObject],
) -> BTreeMap<SocketAddr, LocalEndpoint> {
    let mut all: BTreeMap<SocketAddr, LocalEndpoint> = BTreeMap::new();
    for slice in slices {
        let Some(number) = target_number(port, slice.ports.as_deref()) else { continue };
        for endpoint in &slice.endpoints {
            let check = if port.spec.protocol == Protocol::Tcp { check.clone() } else { Check::None };
            // In two slices (Kubernetes allows it while it moves endpoints): ready where one says so.
            all.entry(SocketAddr::new(endpoint.address, number))
                .and_modify(|known| {
                    known.ready |= endpoint.ready;
                    known.draining |= endpoint.draining;
                })
                .or_insert(LocalEndpoint { ready: endpoint.ready, draining: endpoint.draining, check });
        }
    }
    all
}

/// The endpoints' port number for a service's port. Kubernetes links the two by the port's name; hand-written
/// slices often leave names out, so a target port that is there by name or number is taken too.
fn target_number(port: &ServicePort, slice: Option<&[SlicePort]>) -> Option<u16> {
    let Some(ports) = slice else {
        return match port.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        };
    };
    let same = |p: &&SlicePort| p.protocol == port.spec.protocol;
    let name = port.spec.name.as_ref().map_or("", DnsLabel::as_str);
    let by_name = ports.iter().filter(same).find(|p| p.name == name);
    let by_target = || {
        ports.iter().filter(same).find(|p| match &port.target {
            TargetPort::Number(number) => p.port == *number,
            TargetPort::Name(name) => p.name == *name,
        })
    };
    by_name.or_else(by_target).map(|p| p.port)
}

/// An endpoint to check, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Probe {
    /// Where.
    pub address: SocketAddr,
    /// `GET` of this path; only a connection where there is none.
    pub http: Option<String>,
}

impl Probe {
    /// The probe of an endpoint; none where it is not checked.
    #[must_use]
    pub fn of(address: SocketAddr, check: &Check) -> Option<Self> {
        match check {
            Check::None => None,
            Check::Tcp => Some(Self { address, http: None }),
            Check::Http(path) => Some(Self { address, http: Some(path.clone()) }),
        }
    }
}

impl View {
    /// What of it is in the namespaces that are chosen.
    #[must_use]
    pub fn only(&self, chosen: &Namespaces) -> Self {
        let mut view = self.clone();
        view.namespaces.retain(|name, _| chosen.chooses(name));
        view.services.retain(|key, _| chosen.chooses(&key.namespace));
        view.spaces.retain(|namespace| chosen.chooses(namespace));
        view.exports.retain(|key, _| chosen.chooses(&key.namespace));
        view.workloads.retain(|(namespace, _), _| chosen.chooses(namespace));
        view
    }

    /// All endpoints to check: those that their slices call ready.
    #[must_use]
    pub fn probes(&self) -> BTreeSet<Probe> {
        self.services
            .values()
            .flat_map(|service| &service.ports)
            .flat_map(|port| &port.endpoints)
            .filter(|(_, endpoint)| endpoint.ready)
            .filter_map(|(address, endpoint)| Probe::of(*address, &endpoint.check))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Files;

    #[test]
    fn namespaces_that_are_not_chosen_are_not_there() {
        let text = "kind: Service\napiVersion: v1\nmetadata: {name: NAME, namespace: NAME}\nspec: {ports: [{port: 80}]}\n";
        let text = ["shop", "bank"].map(|name| text.replace("NAME", name)).join("---\n");
        let mut index = Index::default();
        objects(&text).into_iter().for_each(|object| {
            index.apply(object);
        });
        let (view, these) = (index.view(), BTreeSet::from([NamespaceName::parse("bank").unwrap()]));
        let names = |view: View| {
            let services: Vec<_> = view.services.keys().map(ToString::to_string).collect();
            (view.namespaces.keys().map(ToString::to_string).collect::<Vec<_>>(), services)
        };
        let all = |name: &str| (vec![name.to_owned()], vec![format!("{name}/{name}")]);
        assert_eq!(names(view.only(&Namespaces::Include(these.clone()))), all("bank"));
        assert_eq!(names(view.only(&Namespaces::Exclude(these))), all("shop"));
    }

    fn objects(text: &str) -> Vec<Object> {
        let mut files = Files::default();
        let changes = files.load("f", text.as_bytes());
        assert_eq!(files.problems(), []);
        changes
            .into_iter()
            .map(|change| match change {
                Change::Apply(object) => object,
                Change::Delete(key) => panic!("{key}"),
            })
            .collect()
    }

    fn service(ports: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: {ports}}}\n---\n")
    }

    fn slice(name: &str, rest: &str) -> String {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
             {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n{rest}\n---\n"
        )
    }

    fn addresses(text: &str) -> Vec<String> {
        let mut index = Index::default();
        index.reset(objects(text));
        let view = index.view();
        let ports = view.services.values().flat_map(|service| service.ports.clone());
        ports
            .flat_map(|port| {
                port.endpoints.into_iter().map(move |(at, e)| format!("{} {at} {}", port.spec.port, e.ready))
            })
            .collect()
    }

    const TWO: &str =
        "endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]";

    #[test]
    fn target_ports() {
        for (ports, slice_ports, number) in [
            ("[{port: 80}]", "ports: [{port: 8080}]", Some(8080)),
            ("[{port: 80, name: x}]", "ports: [{port: 8080, name: x}]", Some(8080)),
            ("[{port: 80, targetPort: web}]", "ports: [{port: 8080, name: web}]", Some(8080)),
            ("[{port: 80, name: x, targetPort: 8080}]", "ports: [{port: 8080}]", Some(8080)),
            ("[{port: 80, targetPort: 8080}]", "", Some(8080)),
            ("[{port: 80}]", "", Some(80)),
            ("[{port: 80, targetPort: web}]", "", None),
            ("[{port: 80, name: x}]", "ports: [{port: 8080, name: y}]", None),
            ("[{port: 80}]", "ports: [{port: 80, protocol: UDP}]", None),
        ] {
            let found =
                addresses(&format!("{}{}", service(ports), slice("s", &format!("{slice_ports}\n{TWO}"))));
            let wanted = number
                .map_or(vec![], |n| vec![format!("80 10.0.0.1:{n} true"), format!("80 10.0.0.2:{n} false")]);
            assert_eq!(found, wanted, "{ports} {slice_ports}");
        }
    }

    #[test]
    fn says_whether_anything_changed() {
        let text =
            format!("{}{}", service("[{port: 80}]"), slice("s", &format!("ports: [{{port: 1}}]\n{TWO}")));
        let mut index = Index::default();
        let all = objects(&text);
        assert!(index.reset(all.clone()));
        assert!(!index.reset(all.clone()));
        for object in all.clone() {
            assert!(!index.apply(object));
        }
        let orphan = objects(&slice("t", "ports: []\nendpoints: []"));
        assert!(!index.apply(orphan[0].clone()), "no endpoint more or less");
        assert!(index.delete(&all[1].key()), "the endpoints are gone");
        assert!(!index.delete(&all[1].key()));
        assert!(index.delete(&all[0].key()), "the service is gone");
        assert_eq!(index.view().services.len(), 0);
        // The slice may come before its service.
        assert!(!index.apply(all[1].clone()));
        assert!(index.apply(all[0].clone()));
        assert_eq!(index.view().probes().len(), 1, "only the ready one is checked");
    }

    #[test]
    fn namespaces_and_workloads_are_implied() {
        let mut index = Index::default();
        index.reset(objects(&service("[{port: 80}]")));
        let view = index.view();
        let labels = &view.namespaces[&NamespaceName::parse("default").unwrap()];
        assert_eq!(labels["kubernetes.io/metadata.name"], "default");
        assert_eq!(view.workloads.len(), 1);
    }
}
