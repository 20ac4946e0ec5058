//! What there should be, and what is to be done for it. Pure.

use super::{
    objects::{self, Difference, Listed, Schema},
    status::{self, Exported},
};
use crate::{expose::Exposed, index::View, install::is_removed};
use k8s_openapi::{
    api::discovery::v1::{EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::core::DynamicObject;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tombolo_model::{
    ClusterName, GlobalName,
    inventory::{Protocol, ServiceKey},
    mcs::{ImportKind, ImportSpec},
    snapshot::{ClusterResource, NameKind, NameSpec, ResourceKey, Resources},
};

/// What was read back.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// All ServiceExports.
    pub(super) exports: Vec<Arc<DynamicObject>>,
    /// All ServiceImports.
    pub(super) imports: Vec<Arc<DynamicObject>>,
    /// The EndpointSlices that this agent made for them.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    ApplyImport(Box<DynamicObject>),
    ReplaceImport(Box<DynamicObject>),
    ImportStatus(Box<DynamicObject>),
    DeleteImport(ServiceKey),
    ApplySlice(Box<EndpointSlice>),
    /// By namespace and name.
    DeleteSlice(String, String),
    ExportStatus(Box<DynamicObject>),
    /// Takes our conditions away: a merge patch.
    ClearExport(Box<DynamicObject>),
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// The controller's snapshot.
    pub(super) resources: &'a Resources<ClusterResource>,
    /// What runs here, in the namespaces that take part.
    pub(super) view: &'a View,
    /// The names that are exposed, where they are.
    pub(super) exposed: Option<&'a Exposed>,
    pub(super) schema: Schema,
    /// For conditions that change, RFC 3339.
    pub(super) now: &'a str,
}

/// Works out what to do.
pub(super) fn plan(known: Known<'_>, found: &Found) -> Vec<Action> {
    let Some(ClusterResource::Itself(own)) = known.resources.get(&ResourceKey::new("self", "")) else {
        return Vec::new();
    };
    let (ours, theirs): (Vec<_>, Vec<_>) =
        found.imports.iter().partition(|import| objects::is_ours(&import.metadata));
    let by_key: BTreeMap<ServiceKey, &DynamicObject> =
        ours.into_iter().filter_map(|import| Some((objects::key_of(&import.metadata)?, &**import))).collect();
    let theirs: BTreeSet<ServiceKey> =
        theirs.into_iter().filter_map(|import| objects::key_of(&import.metadata)).collect();
    let removed = is_removed(known.resources);
    let mut actions = Vec::new();
    let mut wanted_imports = BTreeSet::new();
    let mut wanted_slices = BTreeMap::new();
    let pods = pods(known.resources);
    let here = |import: &&ImportSpec| !removed && known.view.spaces.contains(&import.service.namespace);
    for import in imports(known.resources).filter(here).filter(|import| !theirs.contains(&import.service)) {
        let there = by_key.get(&import.service).copied();
        let mut all = Importing { known, import, there, pods: &pods, actions: &mut actions };
        let slices = all.object();
        wanted_imports.insert(&import.service);
        for slice in slices {
            wanted_slices.insert(slice_key(&slice), slice);
        }
    }
    let read: BTreeMap<(String, String), &EndpointSlice> =
        found.slices.iter().map(|slice| (slice_key(slice), &**slice)).collect();
    for (key, slice) in &wanted_slices {
        if read.get(key).is_none_or(|found| objects::slice_differs(slice, found)) {
            actions.push(Action::ApplySlice(Box::new(slice.clone())));
        }
    }
    for (namespace, name) in read.into_keys().filter(|key| !wanted_slices.contains_key(key)) {
        actions.push(Action::DeleteSlice(namespace, name));
    }
    let gone = by_key.keys().filter(|key| !wanted_imports.contains(key));
    actions.extend(gone.cloned().map(Action::DeleteImport));
    if removed {
        let ours = found.exports.iter().filter_map(|export| status::none(known.schema, export));
        actions.extend(ours.map(|object| Action::ClearExport(Box::new(object))));
    } else {
        exports(known, &own.cluster, found, &mut actions);
    }
    actions
}

/// The services whose ServiceImport somebody else made: those are left as they are.
pub(super) fn foreign(resources: &Resources<ClusterResource>, found: &Found) -> BTreeSet<ServiceKey> {
    if is_removed(resources) {
        return BTreeSet::new();
    }
    let wanted: BTreeSet<&ServiceKey> = imports(resources).map(|import| &import.service).collect();
    let theirs = found.imports.iter().filter(|import| !objects::is_ours(&import.metadata));
    theirs.filter_map(|import| objects::key_of(&import.metadata)).filter(|key| wanted.contains(key)).collect()
}

fn imports(resources: &Resources<ClusterResource>) -> impl Iterator<Item = &ImportSpec> {
    resources.range(ResourceKey::new("import", "")..).map_while(|(_, resource)| match resource {
        ClusterResource::Import(import) => Some(&**import),
        _ => None,
    })
}

fn slice_key(slice: &EndpointSlice) -> (String, String) {
    let meta = &slice.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The pods of each service of the set, by the service's name.
type Pods<'a> = BTreeMap<&'a str, Vec<&'a NameSpec>>;

fn pods(resources: &Resources<ClusterResource>) -> Pods<'_> {
    let mut pods: Pods<'_> = BTreeMap::new();
    for resource in resources.values() {
        let ClusterResource::Name(name) = resource else { continue };
        if name.kind != NameKind::Pod || !name.domain.is_cluster_set() {
            continue;
        }
        // <pod>.<cluster>.<service>…
        if let Some(service) = name.name.as_str().splitn(3, '.').nth(2) {
            pods.entry(service).or_default().push(name);
        }
    }
    pods
}

/// The conditions of what this cluster exports.
fn exports(known: Known<'_>, own: &ClusterName, found: &Found, actions: &mut Vec<Action>) {
    for export in found.exports.iter().filter(|export| export.metadata.deletion_timestamp.is_none()) {
        // In namespaces that take no part nothing is said; not any more, where they did.
        let Some(key) =
            objects::key_of(&export.metadata).filter(|key| known.view.spaces.contains(&key.namespace))
        else {
            let ours = status::none(known.schema, export);
            actions.extend(ours.map(|object| Action::ClearExport(Box::new(object))));
            continue;
        };
        let service = if known.view.external.contains(&key) {
            Exported::External
        } else if known.view.services.contains_key(&key) {
            Exported::Service
        } else {
            Exported::Nothing
        };
        let import = match known.resources.get(&ResourceKey::new("import", &key.to_string())) {
            Some(ClusterResource::Import(import)) => Some(&**import),
            _ => None,
        };
        let conditions = status::of_export(service, import, own);
        if let Some(object) = status::export_status(known.schema, export, &conditions, known.now) {
            actions.push(Action::ExportStatus(Box::new(object)));
        }
    }
}

/// One imported service.
struct Importing<'a> {
    known: Known<'a>,
    import: &'a ImportSpec,
    there: Option<&'a DynamicObject>,
    pods: &'a Pods<'a>,
    actions: &'a mut Vec<Action>,
}

impl<'a> Importing<'a> {
    /// Brings about the ServiceImport and its status; gives the slices that it should have.
    fn object(&mut self) -> Vec<EndpointSlice> {
        let (known, import) = (self.known, self.import);
        let name = self.name(&import.name);
        let ips = match import.kind {
            ImportKind::ClusterSetIp => name.map(|name| self.addresses(name)).unwrap_or_default(),
            ImportKind::Headless => Vec::new(),
        };
        let object = objects::import(known.schema, import, &ips, known.view.families);
        match self.there.map(|found| (objects::import_differs(&object, found), found)) {
            Some((Difference::None, _)) => {}
            Some((Difference::Foreign, found)) => {
                self.actions.push(Action::ReplaceImport(Box::new(objects::import_mended(&object, found))));
            }
            None | Some((Difference::Lacks, _)) => self.actions.push(Action::ApplyImport(Box::new(object))),
        }
        // What belongs to it waits until it is there: they are its own by its id.
        let Some(found) = self.there else { return Vec::new() };
        let slices = match objects::owner(known.schema, found) {
            Some(owner) => self.slices(&owner),
            None => Vec::new(),
        };
        let ready = status::of_import(import, name.is_some_and(has_tcp), !ips.is_empty());
        let status =
            status::import_status(known.schema, found, import, &ready, !slices.is_empty(), known.now);
        self.actions.extend(status.map(|object| Action::ImportStatus(Box::new(object))));
        slices
    }

    fn name(&self, name: &GlobalName) -> Option<&'a NameSpec> {
        match self.known.resources.get(&ResourceKey::of_name("name", name))? {
            ClusterResource::Name(name) => Some(name),
            _ => None,
        }
    }

    /// The addresses at which a name is reached in this cluster, IPv4 first.
    fn addresses(&self, name: &NameSpec) -> Vec<IpAddr> {
        if let Some(exposed) = self.known.exposed.filter(|_| has_tcp(name)) {
            return exposed
                .get(&name.name)
                .into_iter()
                .flat_map(|exposure| exposure.addresses.clone())
                .collect();
        }
        let (v4, v6) = (IpAddr::V4(name.vip.v4), IpAddr::V6(name.vip.v6));
        [v4, v6].into_iter().filter(|ip| self.known.view.families.has(*ip)).collect()
    }

    fn slices(&self, owner: &OwnerReference) -> Vec<EndpointSlice> {
        let mut slices = Vec::new();
        for cluster in &self.import.clusters {
            let (ports, listed) = match self.import.kind {
                ImportKind::ClusterSetIp => self.of_cluster(cluster),
                ImportKind::Headless => self.of_pods(cluster),
            };
            if !ports.is_empty() {
                slices.extend(objects::slices(&self.import.service, owner, cluster, &ports, &listed));
            }
        }
        slices
    }

    /// The service in one cluster is one endpoint: that cluster's gateway picks the pod.
    fn of_cluster(&self, cluster: &ClusterName) -> (Vec<EndpointPort>, Vec<Listed>) {
        let full = GlobalName::parse(&format!("{cluster}.{}", self.import.name)).ok();
        let Some(name) = full.and_then(|full| self.name(&full)) else { return Default::default() };
        let ready = name.targets.iter().any(|target| target.ready > 0);
        let listed =
            self.addresses(name).into_iter().map(|address| Listed { address, hostname: None, ready });
        (objects::slice_ports(name, cluster), listed.collect())
    }

    fn of_pods(&self, cluster: &ClusterName) -> (Vec<EndpointPort>, Vec<Listed>) {
        let (mut ports, mut listed) = (Vec::new(), Vec::new());
        for name in self.pods.get(self.import.name.as_str()).into_iter().flatten() {
            let Some(target) = name.targets.iter().find(|target| target.cluster == *cluster) else {
                continue;
            };
            let (hostname, ready) = (name.pod.as_ref().map(ToString::to_string), target.ready > 0);
            let all = self.addresses(name).into_iter();
            listed.extend(all.map(|address| Listed { address, hostname: hostname.clone(), ready }));
            ports = objects::slice_ports(name, cluster);
        }
        (ports, listed)
    }
}

fn has_tcp(name: &NameSpec) -> bool {
    name.ports.iter().any(|port| port.protocol == Protocol::Tcp)
}
