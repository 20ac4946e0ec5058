//! One service of the set out of its exports.

use super::{
    conflict::conflicts,
    name,
    ports::{Ports, numbers},
};
use crate::{
    merge::{Ends, NameBody, Part, TargetBody, target},
    world::World,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, GlobalName,
    id::ClusterId,
    inventory::{PortSpec, ServiceKey, ServiceRecord},
    mcs::{ExportRecord, ImportKind, ImportSpec, Traits},
    snapshot::NameKind,
};

/// All that follows of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetView {
    pub(crate) names: BTreeMap<GlobalName, NameBody>,
    /// What its importers are told; the same for all.
    pub(crate) import: Option<ImportSpec>,
}

/// An export that takes part.
#[derive(Clone, Copy)]
pub(crate) struct Export<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: &'a ClusterName,
    pub(crate) service: &'a ServiceRecord,
    pub(crate) record: &'a ExportRecord,
}

impl<'a> Export<'a> {
    pub(crate) const fn kind(&self) -> ImportKind {
        if self.service.headless { ImportKind::Headless } else { ImportKind::ClusterSetIp }
    }
    pub(crate) const fn traits(&self) -> &'a Traits {
        &self.record.traits
    }
}

impl SetView {
    /// Works out the service `key` from the clusters that export it.
    pub(crate) fn new(world: &World, key: &ServiceKey, clusters: &BTreeSet<ClusterId>) -> Self {
        let mut exports: Vec<Export<'_>> = clusters
            .iter()
            .filter_map(|cluster| {
                let service = world.service(*cluster, key)?;
                let (cluster_name, record) = (&world.clusters.get(cluster)?.name, service.export.as_ref()?);
                Some(Export { cluster: *cluster, cluster_name, service, record })
            })
            .collect();
        exports.sort_by_key(|export| (export.record.created_s, export.cluster));
        let (Some(oldest), Ok(full)) = (exports.first().copied(), name(&[], key)) else {
            return Self::default();
        };
        let ports = Ports::merge(exports.iter().map(|export| export.traits().ports.as_slice()));
        let import = ImportSpec {
            service: key.clone(),
            name: full.clone(),
            kind: oldest.kind(),
            traits: Traits { ports: ports.union.clone(), ..oldest.traits().clone() },
            labels: oldest.record.labels.clone(),
            annotations: oldest.record.annotations.clone(),
            clusters: exports.iter().map(|export| export.cluster_name.clone()).collect(),
            conflicts: conflicts(&exports),
        };
        let carried = ports.carried();
        let parts: Vec<(Part<'_>, BTreeSet<u16>)> = exports
            .iter()
            .zip(&ports.served)
            .map(|(export, served)| {
                let (cluster, cluster_name, record) = (export.cluster, export.cluster_name, export.service);
                (Part { cluster, cluster_name, key: key.clone(), record }, numbers(&carried, served))
            })
            .collect();
        let mut view = Self { names: BTreeMap::new(), import: Some(import) };
        let has_pods = match oldest.kind() {
            ImportKind::Headless => view.pods(key, &carried, &parts),
            ImportKind::ClusterSetIp => {
                view.by_cluster(key, &carried, &parts);
                false
            }
        };
        let mut targets = BTreeMap::new();
        for (part, numbers) in &parts {
            target(&mut targets, part, numbers, Ends::of(part.record));
        }
        view.names.insert(full, body(NameKind::Service, None, has_pods, &carried, targets));
        view
    }

    /// A name for the service in each cluster. Not for DNS, which must not have it: it is what the EndpointSlice of that
    /// cluster leads to.
    fn by_cluster(&mut self, key: &ServiceKey, carried: &[PortSpec], parts: &[(Part<'_>, BTreeSet<u16>)]) {
        for (part, numbers) in parts {
            let mut targets = BTreeMap::new();
            target(&mut targets, part, numbers, Ends::of(part.record));
            if let Ok(name) = name(&[part.cluster_name.as_str()], key) {
                self.names.insert(name, body(NameKind::ServiceInCluster, None, false, carried, targets));
            }
        }
    }

    /// `<pod>.<cluster>.<service>.<namespace>.svc.clusterset.local`. Returns whether there are any. One that would be longer
    /// than DNS allows is not there.
    fn pods(&mut self, key: &ServiceKey, carried: &[PortSpec], parts: &[(Part<'_>, BTreeSet<u16>)]) -> bool {
        for (part, numbers) in parts.iter().filter(|(part, _)| part.record.headless) {
            for (pod, record) in &part.record.pods {
                let Ok(name) = name(&[pod.as_str(), part.cluster_name.as_str()], key) else { continue };
                let (ready, tunnelled) = (u32::from(record.ready), u32::from(record.tunnelled));
                let mut targets = BTreeMap::new();
                target(&mut targets, part, numbers, Ends { ready, total: 1, tunnelled });
                self.names.insert(name, body(NameKind::Pod, Some(pod.clone()), false, carried, targets));
            }
        }
        !self.names.is_empty()
    }
}

fn body(
    kind: NameKind,
    pod: Option<tombolo_model::DnsLabel>,
    headless: bool,
    ports: &[PortSpec],
    targets: BTreeMap<ClusterId, TargetBody>,
) -> NameBody {
    NameBody { kind, pod, headless, ports: ports.to_vec(), targets }
}
