//! What one receiver is told.

use crate::{capture::captures, derive::Derived, merge::NameBody, set, world::World};
use std::collections::BTreeMap;
use tombolo_model::{
    DnsLabel, Domain, GlobalName, NamespaceName, Proximity,
    id::{ClusterId, GnsId},
    intent::Cluster,
    inventory::ServiceKey,
    snapshot::{
        ClusterResource, DomainSpec, NameSpec, PeerSpec, Resource, ResourceKey, Resources, SelfSpec,
        TargetSpec, TrustBundleSpec,
    },
};

/// Everything for one receiver; whom to believe is the same for all.
pub(crate) fn whole(
    world: &World,
    derived: &Derived,
    bundle: &ClusterResource,
    id: ClusterId,
) -> Resources<ClusterResource> {
    let Some(receiver) = world.clusters.get(&id) else { return BTreeMap::new() };
    let mut all = vec![itself(world, receiver), bundle.clone()];
    all.extend(install(receiver));
    all.extend(trial(receiver));
    all.extend(
        captures(world, &derived.active(), id)
            .into_values()
            .map(|capture| ClusterResource::Capture(capture.into())),
    );
    all.extend(derived.peers(id).into_iter().filter_map(|other| peer(world, receiver, other)));
    for (gns, state) in derived.gns.iter().filter(|(_, state)| state.members.contains(&id)) {
        all.extend(domain(world, derived, *gns));
        let Some(gns) = world.gns.get(gns) else { continue };
        for (text, body) in state.services.values().flat_map(|view| &view.names) {
            all.extend(name(world, &gns.domain, receiver, text, body));
        }
    }
    if derived.set.members.contains(&id) {
        all.push(set_domain(world, derived));
    }
    for (key, view) in derived.set.services.iter().filter(|(key, _)| world.imports(id, &key.namespace)) {
        all.extend(import(derived, key));
        for (text, body) in &view.names {
            all.extend(name(world, &Domain::cluster_set(), receiver, text, body));
        }
    }
    all.into_iter().map(|resource| (resource.key(), resource)).collect()
}

pub(crate) fn itself(world: &World, receiver: &Cluster) -> ClusterResource {
    ClusterResource::Itself(
        SelfSpec {
            cluster: receiver.name.clone(),
            trust_domain: world.organization.trust_domain.clone(),
            locality: receiver.locality.clone(),
        }
        .into(),
    )
}

pub(crate) fn bundle(world: &World) -> ClusterResource {
    let joined = world.clusters.values().filter(|cluster| !cluster.intermediates.is_empty());
    ClusterResource::Bundle(
        TrustBundleSpec {
            trust_domain: world.organization.trust_domain.clone(),
            roots: world.roots.clone(),
            clusters: joined.map(|cluster| (cluster.name.clone(), cluster.intermediates.clone())).collect(),
        }
        .into(),
    )
}

/// Nothing where nobody said what is to be installed.
pub(crate) fn install(receiver: &Cluster) -> Option<ClusterResource> {
    receiver.install.as_deref().cloned().map(|order| ClusterResource::Install(order.into()))
}

/// Nothing while nobody tries anything.
pub(crate) fn trial(receiver: &Cluster) -> Option<ClusterResource> {
    receiver.trial.as_deref().cloned().map(|trial| ClusterResource::Trial(trial.into()))
}

pub(crate) fn capture_key(namespace: &NamespaceName) -> ResourceKey {
    ResourceKey::new("capture", namespace.as_str())
}

pub(crate) fn trial_key() -> ResourceKey {
    ResourceKey::new("trial", "")
}

pub(crate) fn install_key() -> ResourceKey {
    ResourceKey::new("install", "")
}

fn proximity(receiver: &Cluster, other: &Cluster) -> Proximity {
    if receiver.id == other.id { Proximity::Cluster } else { receiver.locality.proximity(&other.locality) }
}

pub(crate) fn peer(world: &World, receiver: &Cluster, id: ClusterId) -> Option<ClusterResource> {
    let other = world.clusters.get(&id)?;
    Some(ClusterResource::Peer(
        PeerSpec {
            cluster: other.name.clone(),
            proximity: proximity(receiver, other),
            ingress: other.ingress.clone(),
        }
        .into(),
    ))
}

pub(crate) fn domain(world: &World, derived: &Derived, id: GnsId) -> Option<ClusterResource> {
    let (gns, state) = (world.gns.get(&id)?, derived.gns.get(&id)?);
    let members = state.members.iter().filter_map(|id| world.clusters.get(id));
    Some(ClusterResource::Domain(
        DomainSpec {
            domain: gns.domain.clone(),
            gns: gns.name.clone(),
            members: members.map(|cluster| cluster.name.clone()).collect(),
        }
        .into(),
    ))
}

/// The domain of the cluster set.
pub(crate) fn set_domain(world: &World, derived: &Derived) -> ClusterResource {
    let members = derived.set.members.iter().filter_map(|id| world.clusters.get(id));
    ClusterResource::Domain(
        DomainSpec {
            domain: Domain::cluster_set(),
            gns: DnsLabel::parse(set::CALLED).expect("a constant name"),
            members: members.map(|cluster| cluster.name.clone()).collect(),
        }
        .into(),
    )
}

/// A service of the cluster set.
pub(crate) fn import(derived: &Derived, key: &ServiceKey) -> Option<ClusterResource> {
    derived.set.services.get(key)?.import.clone().map(|import| ClusterResource::Import(import.into()))
}

pub(crate) fn import_key(key: &ServiceKey) -> ResourceKey {
    ResourceKey::new("import", &key.to_string())
}

/// Nothing for a name that has no addresses yet.
pub(crate) fn name(
    world: &World,
    domain: &Domain,
    receiver: &Cluster,
    name: &GlobalName,
    body: &NameBody,
) -> Option<ClusterResource> {
    let vip = *world.vips.get(name)?;
    let mut targets: Vec<TargetSpec> = body
        .targets
        .iter()
        .filter_map(|(id, target)| {
            let cluster = world.clusters.get(id)?;
            Some(TargetSpec {
                cluster: cluster.name.clone(),
                proximity: proximity(receiver, cluster),
                services: (&target.services).into(),
                ports: (&target.ports).into(),
                ready: target.ready,
                end_to_end: target.end_to_end,
                accounts: (&target.accounts).into(),
            })
        })
        .collect();
    targets.sort_by(|a, b| (a.proximity, &a.cluster).cmp(&(b.proximity, &b.cluster)));
    Some(ClusterResource::Name(
        NameSpec {
            name: name.clone(),
            domain: domain.clone(),
            kind: body.kind,
            pod: body.pod.clone(),
            vip,
            headless: body.headless,
            ports: body.ports.clone().into(),
            targets,
        }
        .into(),
    ))
}

pub(crate) fn name_key(name: &GlobalName) -> ResourceKey {
    ResourceKey::of_name("name", name)
}
