//! Reads an organization's world: whole, or the rows that changed since a generation.

use crate::{
    store::{self, Change, Tx, world::Rows},
    vips::Pools,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_compile::World;
use tombolo_model::{
    Generation, GlobalName,
    id::{ClusterId, OrgId},
    intent::Organization,
    inventory::Inventory,
    snapshot::Vip,
};
use uuid::Uuid;

/// What was read.
pub(super) enum Read {
    /// The organization is no more.
    Gone,
    /// Nothing is newer than what is held.
    Current,
    /// What is held is not of this database: it was restored from a backup.
    Unknown,
    /// Everything.
    Whole(World, Stamp),
    /// What changed since the generation held.
    Parts(Vec<tombolo_compile::Change>, Stamp),
}

/// A generation, and the commit that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) generation: Generation,
    pub(super) commit: Uuid,
}

/// Reads an organization in a transaction that sees one state. `held` is the generation held, and its clusters.
pub(super) async fn read(
    tx: &mut Tx,
    org: OrgId,
    held: Option<(Stamp, &BTreeSet<ClusterId>)>,
    pools: &Pools,
) -> Result<Read, store::Error> {
    let Some((organization, generation, commit)) = tx.world_org(org).await? else { return Ok(Read::Gone) };
    let now = Stamp { generation, commit };
    let Some((since, clusters)) = held else { return whole(tx, organization, now, pools).await };
    if since == now {
        return Ok(Read::Current);
    }
    if since.generation >= generation {
        return Ok(Read::Unknown);
    }
    // numbers alone say nothing: after a restoration they are given to other commits
    if !tx.led_to(org, since.generation, since.commit).await? {
        return whole(tx, organization, now, pools).await;
    }
    match tx.changes_between(org, since.generation, generation).await? {
        None => whole(tx, organization, now, pools).await,
        Some(changes) => Ok(Read::Parts(parts(tx, organization, changes, clusters, pools).await?, now)),
    }
}

async fn whole(
    tx: &mut Tx,
    organization: Organization,
    now: Stamp,
    pools: &Pools,
) -> Result<Read, store::Error> {
    let org = organization.id;
    let mut world = World::new(organization);
    world.roots = tx.root_certificates(org).await?;
    world.clusters = tx.world_clusters(org, None).await?.into_iter().map(|c| (c.id, c)).collect();
    world.gns = tx.world_gns(org, None).await?.into_iter().map(|gns| (gns.id, gns)).collect();
    for ((cluster, name), record) in tx.world_namespaces(org, None).await? {
        world.inventories.entry(cluster).or_default().namespaces.insert(name, record);
    }
    for ((cluster, key), record) in tx.world_services(org, None).await? {
        world.inventories.entry(cluster).or_default().services.insert(key, record);
    }
    // what a cluster that was taken out reported before counts no more
    world.inventories.retain(|cluster, _| world.clusters.contains_key(cluster));
    world.vips = vips(tx.vips(org, None).await?, pools);
    Ok(Read::Whole(world, now))
}

/// Indexes as addresses. One outside the pools has none: it was allocated from larger pools than there are now.
fn vips(indexes: BTreeMap<GlobalName, u64>, pools: &Pools) -> BTreeMap<GlobalName, Vip> {
    indexes.into_iter().filter_map(|(name, index)| Some((name, pools.vip(index)?))).collect()
}

/// What changed, sorted by what is read to know it. Each once, however often it changed since: the second time, its
/// record would be taken already, and what is not found counts as gone.
#[derive(Default)]
struct Wanted {
    clusters: BTreeSet<Uuid>,
    gns: BTreeSet<Uuid>,
    inventories: BTreeSet<Uuid>,
    namespaces: BTreeSet<(Uuid, tombolo_model::NamespaceName)>,
    services: BTreeSet<(Uuid, tombolo_model::inventory::ServiceKey)>,
    vips: BTreeSet<GlobalName>,
    roots: bool,
}

impl Wanted {
    fn sort(changes: Vec<Change>, held: &BTreeSet<ClusterId>) -> Self {
        let mut wanted = Self::default();
        for change in changes {
            match change {
                Change::Cluster(id) => {
                    wanted.clusters.insert(id.as_uuid());
                    if !held.contains(&id) {
                        // new here, or back: what it reported was not read
                        wanted.inventories.insert(id.as_uuid());
                    }
                }
                Change::Gns(id) => {
                    wanted.gns.insert(id.as_uuid());
                }
                Change::Namespace(cluster, name) => {
                    wanted.namespaces.insert((cluster.as_uuid(), name));
                }
                Change::Service(cluster, key) => {
                    wanted.services.insert((cluster.as_uuid(), key));
                }
                Change::Inventory(id) => {
                    wanted.inventories.insert(id.as_uuid());
                }
                Change::Vip(name) => {
                    wanted.vips.insert(name);
                }
                Change::Roots => wanted.roots = true,
                // whoever reads a line of `Whole` reads everything
                Change::Audit | Change::Whole => {}
            }
        }
        // read whole anyway
        wanted.namespaces.retain(|(cluster, _)| !wanted.inventories.contains(cluster));
        wanted.services.retain(|(cluster, _)| !wanted.inventories.contains(cluster));
        wanted
    }
}

async fn parts(
    tx: &mut Tx,
    organization: Organization,
    changes: Vec<Change>,
    held: &BTreeSet<ClusterId>,
    pools: &Pools,
) -> Result<Vec<tombolo_compile::Change>, store::Error> {
    use tombolo_compile::Change as C;
    let org = organization.id;
    let wanted = Wanted::sort(changes, held);
    let mut out = vec![C::Organization(organization)];
    if wanted.roots {
        out.push(C::Roots(tx.root_certificates(org).await?));
    }
    let mut standing = held.clone();
    if !wanted.clusters.is_empty() {
        let ids: Vec<Uuid> = wanted.clusters.iter().copied().collect();
        let mut found: BTreeMap<Uuid, _> =
            tx.world_clusters(org, Some(&ids)).await?.into_iter().map(|c| (c.id.as_uuid(), c)).collect();
        for id in ids {
            match found.remove(&id) {
                Some(cluster) => {
                    standing.insert(cluster.id);
                    out.push(C::Cluster(cluster));
                }
                None => {
                    standing.remove(&ClusterId::new(id));
                    out.push(C::ClusterGone(ClusterId::new(id)));
                    out.push(C::Inventory(ClusterId::new(id), Inventory::default()));
                }
            }
        }
    }
    if !wanted.gns.is_empty() {
        let ids: Vec<Uuid> = wanted.gns.iter().copied().collect();
        let found = tx.world_gns(org, Some(&ids)).await?;
        let gone = ids.iter().filter(|id| !found.iter().any(|gns| gns.id.as_uuid() == **id));
        out.extend(gone.map(|id| C::GnsGone((*id).into())));
        out.extend(found.into_iter().map(C::Gns));
    }
    out.extend(inventories(tx, org, &wanted, &standing).await?);
    if !wanted.vips.is_empty() {
        let names: Vec<String> = wanted.vips.iter().map(ToString::to_string).collect();
        let mut found = vips(tx.vips(org, Some(&names)).await?, pools);
        let now = wanted.vips.into_iter().map(|name| {
            let vip = found.remove(&name);
            (name, vip)
        });
        out.push(C::Vips(now.collect()));
    }
    Ok(out)
}

async fn inventories(
    tx: &mut Tx,
    org: OrgId,
    wanted: &Wanted,
    standing: &BTreeSet<ClusterId>,
) -> Result<Vec<tombolo_compile::Change>, store::Error> {
    use tombolo_compile::Change as C;
    let mut out = Vec::new();
    let whole: Vec<Uuid> =
        wanted.inventories.iter().copied().filter(|id| standing.contains(&ClusterId::new(*id))).collect();
    if !whole.is_empty() {
        let mut found: BTreeMap<ClusterId, Inventory> =
            whole.iter().map(|id| (ClusterId::new(*id), Inventory::default())).collect();
        for ((cluster, name), record) in tx.world_namespaces(org, Some(Rows::Clusters(&whole))).await? {
            found.entry(cluster).or_default().namespaces.insert(name, record);
        }
        for ((cluster, key), record) in tx.world_services(org, Some(Rows::Clusters(&whole))).await? {
            found.entry(cluster).or_default().services.insert(key, record);
        }
        out.extend(found.into_iter().map(|(cluster, inventory)| C::Inventory(cluster, inventory)));
    }
    let (clusters, names): (Vec<Uuid>, Vec<String>) =
        wanted.namespaces.iter().map(|(cluster, name)| (*cluster, name.to_string())).unzip();
    let mut namespaces = match clusters.is_empty() {
        true => BTreeMap::new(),
        false => tx.world_namespaces(org, Some(Rows::Named(&clusters, &names))).await?,
    };
    let (clusters, keys): (Vec<Uuid>, Vec<String>) =
        wanted.services.iter().map(|(cluster, key)| (*cluster, key.to_string())).unzip();
    let mut services = match clusters.is_empty() {
        true => BTreeMap::new(),
        false => tx.world_services(org, Some(Rows::Named(&clusters, &keys))).await?,
    };
    let mut changed: BTreeMap<ClusterId, (BTreeMap<_, _>, BTreeMap<_, _>)> = BTreeMap::new();
    for (cluster, name) in &wanted.namespaces {
        let cluster = ClusterId::new(*cluster);
        let record = namespaces.remove(&(cluster, name.clone()));
        changed.entry(cluster).or_default().0.insert(name.clone(), record);
    }
    for (cluster, key) in &wanted.services {
        let cluster = ClusterId::new(*cluster);
        let record = services.remove(&(cluster, key.clone()));
        changed.entry(cluster).or_default().1.insert(key.clone(), record);
    }
    changed.retain(|cluster, _| standing.contains(cluster));
    out.extend(changed.into_iter().map(|(cluster, (namespaces, services))| C::Inventoried {
        cluster,
        namespaces,
        services,
    }));
    Ok(out)
}
