//! Names for people who look at some of them: what is not looked at is not worked out.

use super::Incremental;
use crate::{
    conflict::Conflict,
    derive::Owner,
    merge::{NameBody, ServiceView},
    render,
    set::CALLED,
    world::World,
};
use std::{cmp::Reverse, collections::BinaryHeap, ops::Bound};
use tombolo_model::{
    DnsLabel, Domain, GlobalName,
    id::ClusterId,
    intent::{Cluster, GlobalNamespace},
    mcs::ExportConflict,
    snapshot::{ClusterResource, NameKind, NameSpec},
};

/// A name, and what it is of.
pub struct Listed<'a> {
    world: &'a World,
    name: &'a GlobalName,
    body: &'a NameBody,
    of: Of<'a>,
    /// One of those who are told it: how near its targets are decides in which order they stand, and nothing else.
    told: &'a Cluster,
}

enum Of<'a> {
    Gns(&'a GlobalNamespace, &'a [Conflict]),
    Set(&'a [ExportConflict]),
}

/// Which names are wanted; all, where nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Of this global namespace (or of the cluster set, by what it is called).
    pub gns: Option<&'a str>,
    /// Served by this cluster.
    pub cluster: Option<ClusterId>,
}

impl<'a> Listed<'a> {
    /// The global namespace; none for the cluster set.
    #[must_use]
    pub const fn gns(&self) -> Option<&'a DnsLabel> {
        match self.of {
            Of::Gns(gns, _) => Some(&gns.name),
            Of::Set(_) => None,
        }
    }

    /// What could not be given as it was asked for, of the service that it is a name of.
    #[must_use]
    pub const fn conflicts(&self) -> &'a [Conflict] {
        match self.of {
            Of::Gns(_, conflicts) => conflicts,
            Of::Set(_) => &[],
        }
    }

    /// In what the exports of a service of the set differ.
    #[must_use]
    pub const fn export_conflicts(&self) -> &'a [ExportConflict] {
        match self.of {
            Of::Gns(..) => &[],
            Of::Set(conflicts) => conflicts,
        }
    }

    /// As one of those is told it; nothing for a name that has no addresses yet.
    #[must_use]
    pub fn spec(&self) -> Option<NameSpec> {
        let set = Domain::cluster_set();
        let domain = match self.of {
            Of::Gns(gns, _) => &gns.domain,
            Of::Set(_) => &set,
        };
        match render::name(self.world, domain, self.told, self.name, self.body)? {
            ClusterResource::Name(name) => Some(NameSpec::clone(&name)),
            _ => None,
        }
    }
}

impl Incremental {
    /// The names after this text in their order, of those that are wanted. Where a global namespace or a cluster is asked for, only the names
    /// of that one's global namespaces are looked at.
    pub fn listed<'a>(
        &'a self,
        wanted: &Wanted<'a>,
        after: Option<&'a str>,
    ) -> Box<dyn Iterator<Item = Listed<'a>> + 'a> {
        let from: (Bound<&str>, Bound<&str>) =
            (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        if wanted.gns.is_none() && wanted.cluster.is_none() {
            let names = self.derived.owners.range::<str, _>(from);
            return Box::new(names.filter_map(|(name, owner)| self.listing(name, owner)));
        }
        let served = |body: &NameBody| wanted.cluster.is_none_or(|id| body.targets.contains_key(&id));
        let of_gns = self.derived.gns.iter().filter(|(id, state)| {
            let called = self.world.gns.get(id).map(|gns| gns.name.as_str());
            wanted.gns.is_none_or(|name| called == Some(name))
                && wanted.cluster.is_none_or(|id| state.serving.contains_key(&id))
        });
        let of_gns = of_gns.flat_map(|(_, state)| state.services.values()).map(|view| &view.names);
        let set = wanted.gns.is_none_or(|name| name == CALLED).then_some(&self.derived.set.services);
        let of_set = set.into_iter().flatten().map(|(_, view)| &view.names);
        let names: Vec<Reverse<&GlobalName>> = of_gns
            .chain(of_set)
            .flatten()
            .filter(|(name, body)| after.is_none_or(|after| name.as_str() > after) && served(body))
            .map(|(name, _)| Reverse(name))
            .collect();
        // a page is a few of many: only what is taken is put into order
        let mut names = BinaryHeap::from(names);
        let smallest = std::iter::from_fn(move || names.pop());
        Box::new(smallest.filter_map(|Reverse(name)| self.listing(name, self.derived.owners.get(name)?)))
    }

    /// A name that has this text.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Listed<'_>> {
        let (name, owner) = self.derived.owners.get_key_value(name)?;
        self.listing(name, owner)
    }

    fn listing<'a>(&'a self, name: &'a GlobalName, owner: &'a Owner) -> Option<Listed<'a>> {
        let world = &self.world;
        match owner {
            Owner::Gns(id, label) => {
                let (gns, state) = (world.gns.get(id)?, self.derived.gns.get(id)?);
                let ServiceView { names, conflicts } = state.services.get(label)?;
                let told = world.clusters.get(state.members.first()?)?;
                Some(Listed { world, name, body: names.get(name)?, of: Of::Gns(gns, conflicts), told })
            }
            Owner::Set(key) => {
                let (set, view) = (&self.derived.set, self.derived.set.services.get(key)?);
                let body = view.names.get(name)?;
                // the name of a service in one cluster is not in DNS
                if body.kind == NameKind::ServiceInCluster {
                    return None;
                }
                let told = world.clusters.get(set.sources.get(key)?.first()?)?;
                let conflicts = view.import.as_ref().map_or(&[][..], |import| &import.conflicts);
                Some(Listed { world, name, body, of: Of::Set(conflicts), told })
            }
        }
    }
}
