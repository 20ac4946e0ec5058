//! All that runs in the cluster at one time.

use super::{LocalService, Pods, Probe};
use crate::{
    capture::Chosen,
    source::{Check, ExportObject},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tombolo_model::{
    AccountName, Held, NamespaceName,
    install::Namespaces,
    intent::Labels,
    inventory::ServiceKey,
    mcs::{ExportRecord, Traits},
    snapshot::WorkloadSelector,
};

/// Who a workload of this cluster is, and how its processes are known.
pub type Workloads = BTreeMap<(NamespaceName, AccountName), BTreeSet<WorkloadSelector>>;

/// All that runs in this cluster at one time. What a change does not touch is the same value in the views before and after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The labels of each namespace that is declared or used.
    pub namespaces: Held<BTreeMap<NamespaceName, Labels>>,
    /// Its services.
    pub services: BTreeMap<ServiceKey, Arc<LocalService>>,
    /// Its service accounts, and those that a service names.
    pub workloads: Held<Workloads>,
    /// The namespaces in which ServiceImports can be made; none where the cluster has no Multi-Cluster Services API.
    pub spaces: Held<BTreeSet<NamespaceName>>,
    /// The services that are exported to the cluster set.
    pub exports: Held<BTreeMap<ServiceKey, ExportObject>>,
    /// Services that stand for nothing in the cluster.
    pub external: Held<BTreeSet<ServiceKey>>,
    /// The address families that pods have.
    pub families: Families,
    /// Its pods; from an API server only.
    pub pods: Arc<Pods>,
    /// How the capture modes of its namespaces are chosen, as the controller's snapshot has it; by labels alone before that was read.
    pub capture: Arc<Chosen>,
}

impl View {
    /// That a service is exported, where it can be imported, too.
    #[must_use]
    pub fn exported(&self, key: &ServiceKey) -> Option<&ExportObject> {
        self.exports.get(key).filter(|_| self.spaces.contains(&key.namespace))
    }

    /// The export of a service, as it is reported.
    #[must_use]
    pub fn export(&self, key: &ServiceKey, service: &LocalService) -> Option<ExportRecord> {
        let export = self.exported(key)?;
        Some(ExportRecord {
            created_s: export.created_s,
            traits: Traits::clone(&service.traits),
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

impl View {
    /// What of it is in the namespaces that are chosen.
    #[must_use]
    pub fn only(&self, chosen: &Namespaces) -> Self {
        let mut view = self.clone();
        let is_out = |name: &NamespaceName| !chosen.chooses(name);
        if view.namespaces.keys().chain(view.spaces.iter()).any(is_out) {
            view.namespaces.retain(|name, _| chosen.chooses(name));
            view.spaces.retain(|namespace| chosen.chooses(namespace));
        }
        if view.exports.keys().any(|key| is_out(&key.namespace)) {
            view.exports.retain(|key, _| chosen.chooses(&key.namespace));
        }
        if view.workloads.keys().any(|(namespace, _)| is_out(namespace)) {
            view.workloads.retain(|(namespace, _), _| chosen.chooses(namespace));
        }
        view.services.retain(|key, _| chosen.chooses(&key.namespace));
        view
    }

    /// All endpoints to check: those that their slices call ready.
    #[must_use]
    pub fn probes(&self) -> BTreeSet<Probe> {
        self.services
            .values()
            .flat_map(|service| &service.ports)
            .filter(|port| port.check != Check::None)
            .flat_map(|port| {
                let ready = port.endpoints.iter().filter(|(_, endpoint)| endpoint.ready);
                ready.filter_map(|(address, _)| Probe::of(address.socket(), &port.check))
            })
            .collect()
    }
}
