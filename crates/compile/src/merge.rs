//! One global service out of the services of several clusters and namespaces that bear its name.

use crate::{
    conflict::{Conflict, Reason, Source},
    world::World,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    AccountName, ClusterName, DnsLabel, GlobalName, NamespaceName,
    id::ClusterId,
    intent::GlobalNamespace,
    inventory::{PortSpec, ServiceKey, ServiceRecord},
    snapshot::{EndToEnd, NameKind},
};

/// A global name as it is for every receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameBody {
    pub(crate) kind: NameKind,
    pub(crate) pod: Option<DnsLabel>,
    pub(crate) headless: bool,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) targets: BTreeMap<ClusterId, TargetBody>,
}

/// A target as it is for every receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetBody {
    pub(crate) services: BTreeSet<ServiceKey>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) ready: u32,
    pub(crate) end_to_end: EndToEnd,
    pub(crate) accounts: BTreeSet<(NamespaceName, AccountName)>,
}

/// All names of one service of one GNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub(crate) names: BTreeMap<GlobalName, NameBody>,
    pub(crate) conflicts: Vec<Conflict>,
}

/// A service of a cluster that takes part.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: &'a ClusterName,
    pub(crate) key: ServiceKey,
    pub(crate) record: &'a ServiceRecord,
}

impl Part<'_> {
    fn source(&self) -> Source {
        Source { cluster: self.cluster_name.clone(), service: self.key.clone() }
    }
}

/// Works out the service `label` of `gns` from the namespaces that have one.
pub(crate) fn service(
    world: &World,
    gns: &GlobalNamespace,
    members: &BTreeSet<ClusterId>,
    label: &DnsLabel,
    sources: &BTreeSet<(ClusterId, NamespaceName)>,
) -> ServiceView {
    let mut parts: Vec<Part<'_>> = sources
        .iter()
        .filter_map(|(id, namespace)| {
            let key = ServiceKey { namespace: namespace.clone(), name: label.clone() };
            let cluster_name = &world.clusters.get(id)?.name;
            Some(Part { cluster: *id, cluster_name, record: world.service(*id, &key)?, key })
        })
        .collect();
    parts.sort_by(|a, b| {
        (a.record.created_s, a.cluster, &a.key).cmp(&(b.record.created_s, b.cluster, &b.key))
    });

    let mut view = Builder { gns, label, view: ServiceView::default() };
    let like_cluster =
        members.iter().filter_map(|id| world.clusters.get(id)).find(|c| c.name.as_str() == label.as_str());
    let has_pods = view.pods(&parts, like_cluster.map(|cluster| &cluster.name));
    view.everywhere(&parts, has_pods);
    view.by_cluster(&parts, has_pods);
    view.view.conflicts.sort();
    view.view.conflicts.dedup();
    view.view
}

struct Builder<'a> {
    gns: &'a GlobalNamespace,
    label: &'a DnsLabel,
    view: ServiceView,
}

impl Builder<'_> {
    fn conflict(&mut self, port: Option<u16>, winner: Option<Source>, loser: Option<Source>, reason: Reason) {
        let (gns, service) = (self.gns.name.clone(), Some(self.label.clone()));
        self.view.conflicts.push(Conflict { gns, service, port, winner, loser, reason });
    }

    fn add(&mut self, labels: &[&DnsLabel], body: NameBody) {
        match self.gns.domain.child(labels) {
            Ok(name) => {
                self.view.names.insert(name, body);
            }
            Err(_) => {
                let text = labels.iter().map(|label| label.as_str()).collect::<Vec<_>>().join(".");
                self.conflict(None, None, None, Reason::TooLong(text));
            }
        }
    }

    /// `<service>.<domain>`.
    fn everywhere(&mut self, parts: &[Part<'_>], has_pods: bool) {
        let Some(oldest) = parts.first() else { return };
        let merged = Merged::new(parts);
        for (port, winner, loser, reason) in merged.conflicts {
            self.conflict(Some(port), Some(winner), Some(loser), reason);
        }
        let others = parts.iter().filter(|part| part.record.headless != oldest.record.headless);
        for other in others {
            self.conflict(None, Some(oldest.source()), Some(other.source()), Reason::Headless);
        }
        let mut targets = BTreeMap::new();
        for (part, ports) in parts.iter().zip(&merged.accepted) {
            target(&mut targets, part, ports, Ends::of(part.record));
        }
        let headless = oldest.record.headless && has_pods;
        let kind = NameKind::Service;
        self.add(&[self.label], NameBody { kind, pod: None, headless, ports: merged.ports, targets });
    }

    /// `<service>.<cluster>.<domain>`. Only that cluster's own services take part, so that a port which lost to
    /// another cluster's is still reached by this name.
    fn by_cluster(&mut self, parts: &[Part<'_>], has_pods: bool) {
        let clusters: BTreeSet<_> = parts.iter().map(|part| part.cluster).collect();
        for cluster in clusters {
            let own: Vec<_> = parts.iter().filter(|part| part.cluster == cluster).cloned().collect();
            let (Some(oldest), merged) = (own.first(), Merged::new(&own)) else { continue };
            let mut targets = BTreeMap::new();
            for (part, ports) in own.iter().zip(&merged.accepted) {
                target(&mut targets, part, ports, Ends::of(part.record));
            }
            let headless = oldest.record.headless && has_pods;
            // A cluster's name and a label have the same rules.
            let Ok(name) = DnsLabel::parse(oldest.cluster_name.as_str()) else { continue };
            let kind = NameKind::ServiceInCluster;
            self.add(
                &[self.label, &name],
                NameBody { kind, pod: None, headless, ports: merged.ports, targets },
            );
        }
    }

    /// `<pod>.<service>.<domain>`. Returns whether there are any.
    ///
    /// `<pod>.<service>` and `<service>.<cluster>` could be one name. The rule looks at names of clusters only, not
    /// at whether the other name is there at this time: a name must not change its meaning when a service comes.
    fn pods(&mut self, parts: &[Part<'_>], like_cluster: Option<&ClusterName>) -> bool {
        let headless: Vec<_> = parts
            .iter()
            .filter(|part| part.record.headless && !part.record.pods.is_empty())
            .cloned()
            .collect();
        if let Some(cluster) = like_cluster {
            for part in &headless {
                self.conflict(None, None, Some(part.source()), Reason::PodNames(cluster.clone()));
            }
            return false;
        }
        let pods: BTreeSet<&DnsLabel> = headless.iter().flat_map(|part| part.record.pods.keys()).collect();
        for pod in &pods {
            let own: Vec<_> =
                headless.iter().filter(|part| part.record.pods.contains_key(*pod)).cloned().collect();
            let merged = Merged::new(&own);
            let mut targets = BTreeMap::new();
            for (part, ports) in own.iter().zip(&merged.accepted) {
                let record = &part.record.pods[*pod];
                let (ready, tunnelled) = (u32::from(record.ready), u32::from(record.tunnelled));
                target(&mut targets, part, ports, Ends { ready, total: 1, tunnelled });
            }
            let (kind, headless, ports) = (NameKind::Pod, false, merged.ports);
            self.add(
                &[pod, self.label],
                NameBody { kind, pod: Some((*pod).clone()), headless, ports, targets },
            );
        }
        !pods.is_empty()
    }
}

/// What is known of a service's endpoints, or of a pod.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) ready: u32,
    pub(crate) total: u32,
    /// Behind a sidecar: of the ready ones; of all, where none is ready.
    pub(crate) tunnelled: u32,
}

impl Ends {
    pub(crate) fn of(record: &ServiceRecord) -> Self {
        Self { ready: record.ready, total: record.total, tunnelled: record.tunnelled }
    }

    /// Endpoints that are not ready for a moment keep their callers' demand: it must not fall away just when somebody
    /// else could answer in their place.
    fn end_to_end(self) -> EndToEnd {
        let of = if self.ready > 0 { self.ready } else { self.total };
        match self.tunnelled {
            0 => EndToEnd::None,
            tunnelled if of > 0 && tunnelled >= of => EndToEnd::All,
            _ => EndToEnd::Some,
        }
    }
}

/// Adds a service to its cluster's target.
pub(crate) fn target(
    targets: &mut BTreeMap<ClusterId, TargetBody>,
    part: &Part<'_>,
    ports: &BTreeSet<u16>,
    ends: Ends,
) {
    if ports.is_empty() && !part.record.ports.is_empty() {
        return; // it lost every port; it serves nothing under this name
    }
    let (ready, end_to_end) = (ends.ready, ends.end_to_end());
    let accounts = part.record.accounts.iter().map(|account| (part.key.namespace.clone(), account.clone()));
    let services = BTreeSet::from([part.key.clone()]);
    let one = TargetBody { services, ports: ports.clone(), ready, end_to_end, accounts: accounts.collect() };
    match targets.entry(part.cluster) {
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(one);
        }
        std::collections::btree_map::Entry::Occupied(mut place) => {
            let all = place.get_mut();
            all.end_to_end = match (all.ready, ready) {
                (1.., 0) => all.end_to_end,
                (0, 1..) => one.end_to_end,
                _ if all.end_to_end == one.end_to_end => all.end_to_end,
                _ => EndToEnd::Some,
            };
            all.services.extend(one.services);
            all.ports.extend(one.ports);
            all.ready = all.ready.saturating_add(ready);
            all.accounts.extend(one.accounts);
        }
    }
}

/// The ports of several services, oldest first.
struct Merged {
    ports: Vec<PortSpec>,
    /// For each part, the numbers that it serves.
    accepted: Vec<BTreeSet<u16>>,
    conflicts: Vec<(u16, Source, Source, Reason)>,
}

impl Merged {
    fn new(parts: &[Part<'_>]) -> Self {
        let mut ports: BTreeMap<u16, (PortSpec, usize)> = BTreeMap::new();
        let mut names: BTreeMap<&DnsLabel, (u16, usize)> = BTreeMap::new();
        let (mut accepted, mut conflicts) = (Vec::new(), Vec::new());
        for (at, part) in parts.iter().enumerate() {
            let mut mine = BTreeSet::new();
            let wanted: BTreeSet<&PortSpec> = part.record.ports.iter().collect();
            for port in wanted {
                let mut lost = |to: usize, reason| {
                    conflicts.push((port.port, parts[to].source(), part.source(), reason));
                };
                let by_name = port.name.as_ref().and_then(|name| Some((name, *names.get(name)?)));
                if let Some((name, (number, winner))) = by_name
                    && number != port.port
                {
                    lost(winner, Reason::PortName(name.clone()));
                    continue;
                }
                match ports.get_mut(&port.port) {
                    None => {
                        ports.insert(port.port, (port.clone(), at));
                    }
                    Some((first, winner)) => {
                        if first.protocol != port.protocol {
                            lost(*winner, Reason::Protocol);
                            continue;
                        }
                        match (&first.app_protocol, &port.app_protocol) {
                            (Some(a), Some(b)) if a != b => {
                                lost(*winner, Reason::AppProtocol);
                                continue;
                            }
                            // Who does not say agrees with who does.
                            (None, Some(said)) => first.app_protocol = Some(said.clone()),
                            _ => {}
                        }
                        if mine.contains(&port.port) {
                            continue; // listed twice
                        }
                    }
                }
                // The name that stands for a number is the oldest one's; only that can be asked for.
                if let Some((spec, _)) = ports.get(&port.port)
                    && spec.name == port.name
                    && let Some(name) = &port.name
                {
                    names.entry(name).or_insert((port.port, at));
                }
                mine.insert(port.port);
            }
            accepted.push(mine);
        }
        Self { ports: ports.into_values().map(|(port, _)| port).collect(), accepted, conflicts }
    }
}
