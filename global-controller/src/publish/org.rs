//! One organization in this replica.

use super::channel::Channel;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use tombolo_compile::{Affected, Change, ClusterChange, Incremental, Severity, World};
use tombolo_model::{
    ClusterName, Generation, GlobalName, TrustDomain,
    id::{ClusterId, OrgId},
    snapshot::TrustBundleSpec,
};
use tombolo_mtls::{Peer, TrustBundle};

/// A channel that nobody was fed from for this long is forgotten; the next feed then begins with a snapshot.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// What a handshake or a request needs to know of an organization: small, and replaced whole.
#[derive(Debug)]
pub struct OrgState {
    /// Its id.
    pub id: OrgId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The generation of everything here.
    pub generation: Generation,
    /// Whom to believe.
    pub bundle: Arc<TrustBundle>,
    /// The same, as agents are told.
    pub bundle_spec: Arc<TrustBundleSpec>,
    /// Its clusters in good standing.
    pub clusters: Arc<BTreeMap<ClusterName, ClusterId>>,
}

impl OrgState {
    /// The cluster whose agent or gateway this is; `None` for one that is not, or no more, in good standing.
    #[must_use]
    pub fn stands(&self, peer: &Peer) -> Option<ClusterId> {
        let cluster = self.clusters.get(&peer.id.cluster)?;
        self.bundle.stands(peer).then_some(*cluster)
    }

    /// The same at another generation.
    fn at(&self, generation: Generation) -> Self {
        Self {
            id: self.id,
            trust_domain: self.trust_domain.clone(),
            generation,
            bundle: Arc::clone(&self.bundle),
            bundle_spec: Arc::clone(&self.bundle_spec),
            clusters: Arc::clone(&self.clusters),
        }
    }
}

/// What the database is to be told of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settle {
    /// The generation at which this was worked out.
    pub generation: Generation,
    /// Names that want virtual IPs.
    pub needed: BTreeSet<GlobalName>,
    /// Names that have virtual IPs, and are no more.
    pub released: BTreeSet<GlobalName>,
}

impl Settle {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needed.is_empty() && self.released.is_empty()
    }

    /// The names whose virtual IPs go, in a transaction that finds the organization at `now`: none where others wrote since
    /// this was worked out, for a name may be back.
    #[must_use]
    pub fn released_at(&self, now: Generation) -> Option<&BTreeSet<GlobalName>> {
        (now == self.generation).then_some(&self.released)
    }
}

struct Compiled {
    incremental: Incremental,
    generation: Generation,
    channels: BTreeMap<ClusterId, Arc<Channel>>,
    /// Names that may want virtual IPs, or may have ones and be no more.
    unsettled: BTreeSet<GlobalName>,
    /// Whether who is believed, or which clusters there are, may be otherwise than it was published last.
    standing: bool,
    /// Whether there was something that could not be published: what the channels hold is made anew then.
    missed: bool,
}

/// An organization: compiled, with the channels of its clusters.
pub(super) struct Org {
    compiled: RwLock<Compiled>,
    state: watch::Sender<Arc<OrgState>>,
}

impl Org {
    /// Compiles a world.
    ///
    /// # Errors
    /// As [`TrustBundle::from_spec`]: an organization without a usable root.
    pub(super) fn new(world: World, generation: Generation) -> Result<Self, tombolo_mtls::Error> {
        let incremental = Incremental::new(world);
        let state = state(&incremental, generation, None)?;
        let unsettled = incremental.names().chain(incremental.world().vips.keys()).cloned().collect();
        Ok(Self {
            compiled: RwLock::new(Compiled {
                incremental,
                generation,
                channels: BTreeMap::new(),
                unsettled,
                standing: false,
                missed: false,
            }),
            state: watch::Sender::new(Arc::new(state)),
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Compiled> {
        self.compiled.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation compiled.
    pub(super) fn generation(&self) -> Generation {
        self.read().generation
    }

    /// The state for handshakes and requests.
    pub(super) fn state(&self) -> Arc<OrgState> {
        Arc::clone(&self.state.borrow())
    }

    /// Tells of each new state in which others may stand; a newer generation alone is none.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<OrgState>> {
        self.state.subscribe()
    }

    /// Reads what was compiled. Do it quickly: the next generation waits.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Incremental, Generation) -> T) -> T {
        let compiled = self.read();
        read(&compiled.incremental, compiled.generation)
    }

    /// Takes the changes that lead to `generation`, and publishes what they mean for each cluster fed here. The clusters
    /// that have something new.
    ///
    /// # Errors
    /// As [`Org::new`]; what was published before stays.
    pub(super) fn apply(
        &self,
        changes: Vec<Change>,
        generation: Generation,
    ) -> Result<Vec<ClusterId>, tombolo_mtls::Error> {
        let mut compiled = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
        let affected: Vec<Affected> =
            changes.into_iter().map(|change| compiled.incremental.apply(change)).collect();
        self.publish(&mut compiled, affected, generation)
    }

    /// Takes a whole world, read anew.
    ///
    /// # Errors
    /// As [`Org::new`]; what was published before stays.
    pub(super) fn replace(
        &self,
        world: &World,
        generation: Generation,
    ) -> Result<Vec<ClusterId>, tombolo_mtls::Error> {
        let mut compiled = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
        let affected = compiled.incremental.replace(world);
        self.publish(&mut compiled, vec![affected], generation)
    }

    fn publish(
        &self,
        compiled: &mut Compiled,
        affected: Vec<Affected>,
        generation: Generation,
    ) -> Result<Vec<ClusterId>, tombolo_mtls::Error> {
        for one in &affected {
            compiled.unsettled.extend(one.needed.iter().chain(&one.released).cloned());
            compiled.standing |= one.standing;
        }
        let (standing, old) = (compiled.standing, self.state());
        let made = match standing {
            true => state(&compiled.incremental, generation, Some(&old)),
            // as nearly always: nothing of it is looked at, for it grows with the clusters
            false => Ok(old.at(generation)),
        };
        // what is taken into the world is not told again: whoever was to be told must not miss it
        let state = made.inspect_err(|_| compiled.missed = true)?;
        let missed = std::mem::take(&mut compiled.missed);
        compiled.standing = false;
        compiled.generation = generation;
        // one generation for each channel: changes that came together are told together
        let mut merged: BTreeMap<ClusterId, Vec<ClusterChange>> = BTreeMap::new();
        for (cluster, change) in affected.into_iter().flat_map(|batch| batch.clusters) {
            merged.entry(cluster).or_default().push(change);
        }
        let mut told = Vec::new();
        for (cluster, channel) in &compiled.channels {
            let change = match merged.remove(cluster) {
                // one that is gone goes on with what it has, whatever came before that
                _ if !compiled.incremental.world().clusters.contains_key(cluster) => None,
                _ if missed => Some(ClusterChange::Whole(compiled.incremental.snapshot(*cluster))),
                None => None,
                Some(mut changes) if changes.len() == 1 => changes.pop(),
                Some(_) => Some(ClusterChange::Whole(compiled.incremental.snapshot(*cluster))),
            };
            if channel.advance(generation, change) {
                told.push(*cluster);
            }
        }
        compiled
            .channels
            .retain(|_, channel| channel.idle_since().is_none_or(|since| since.elapsed() < IDLE));
        // each feed waits for its cluster to stand no more: nobody is woken where that is not possible
        self.state.send_if_modified(|held| {
            *held = Arc::new(state);
            standing
        });
        Ok(told)
    }

    /// The channel of a cluster; `None` where there is no such cluster in good standing, or what was compiled for it does
    /// not pass the check.
    pub(super) fn channel(&self, cluster: ClusterId) -> Option<Arc<Channel>> {
        if let Some(channel) = self.read().channels.get(&cluster) {
            return Some(Arc::clone(channel));
        }
        let mut compiled = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = compiled.channels.get(&cluster) {
            return Some(Arc::clone(channel));
        }
        compiled.incremental.world().clusters.get(&cluster)?;
        let resources = compiled.incremental.snapshot(cluster);
        for finding in tombolo_compile::check(&resources) {
            if finding.severity() == Severity::Fatal {
                tracing::error!(cluster.id = %cluster, %finding, "what was compiled contradicts itself; nothing is published");
                return None;
            }
            tracing::debug!(cluster.id = %cluster, %finding, "worth a look in what was compiled");
        }
        let channel = Channel::new(compiled.generation, resources);
        compiled.channels.insert(cluster, Arc::clone(&channel));
        Some(channel)
    }

    /// Everything held, for people who look for a fault.
    pub(super) fn dump(&self) -> serde_json::Value {
        let compiled = self.read();
        let world = compiled.incremental.world();
        let clusters = world.clusters.values().map(|cluster| {
            let channel = compiled.channels.get(&cluster.id);
            serde_json::json!({
                "name": cluster.name,
                "intermediates": cluster.intermediates,
                "ingress": cluster.ingress,
                "services": world.inventories.get(&cluster.id).map_or(0, |found| found.services.len()),
                "feeds": channel.map_or(0, |channel| channel.feeds()),
                "changed_at": channel.map(|channel| channel.changed_at()),
            })
        });
        serde_json::json!({
            "organization": world.organization.name,
            "generation": compiled.generation,
            "clusters": clusters.collect::<Vec<_>>(),
            "names": world.vips.len(),
            "conflicts": compiled.incremental.conflicts().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    /// What the database is to be told; `None` where everything is settled.
    pub(super) fn settle(&self) -> Option<Settle> {
        if self.read().unsettled.is_empty() {
            return None;
        }
        let mut compiled = self.compiled.write().unwrap_or_else(PoisonError::into_inner);
        let Compiled { incremental, generation, unsettled, .. } = &mut *compiled;
        let vips = &incremental.world().vips;
        let mut settle = Settle { generation: *generation, ..Settle::default() };
        unsettled.retain(|name| {
            let into = match (incremental.has_name(name), vips.contains_key(name)) {
                (true, false) => &mut settle.needed,
                (false, true) => &mut settle.released,
                _ => return false,
            };
            into.insert(name.clone())
        });
        Some(settle).filter(|settle| !settle.is_empty())
    }
}

/// The small state of what was compiled. The bundle is read anew only where it is another one.
fn state(
    incremental: &Incremental,
    generation: Generation,
    old: Option<&OrgState>,
) -> Result<OrgState, tombolo_mtls::Error> {
    let world = incremental.world();
    let spec = TrustBundleSpec {
        trust_domain: world.organization.trust_domain.clone(),
        roots: world.roots.clone(),
        clusters: world
            .clusters
            .values()
            .filter(|cluster| !cluster.intermediates.is_empty())
            .map(|cluster| (cluster.name.clone(), cluster.intermediates.clone()))
            .collect(),
    };
    let (bundle, bundle_spec) = match old {
        Some(old) if *old.bundle_spec == spec => (Arc::clone(&old.bundle), Arc::clone(&old.bundle_spec)),
        _ => (Arc::new(TrustBundle::from_spec(&spec)?), Arc::new(spec)),
    };
    let clusters: BTreeMap<ClusterName, ClusterId> =
        world.clusters.values().map(|cluster| (cluster.name.clone(), cluster.id)).collect();
    let clusters = match old {
        Some(old) if *old.clusters == clusters => Arc::clone(&old.clusters),
        _ => Arc::new(clusters),
    };
    Ok(OrgState {
        id: world.organization.id,
        trust_domain: world.organization.trust_domain.clone(),
        generation,
        bundle,
        bundle_spec,
        clusters,
    })
}
