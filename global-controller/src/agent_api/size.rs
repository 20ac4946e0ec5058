//! How much a cluster has told in all, as far as it is known without counting: to count is to read all that it told, and most changes are of
//! one record. What was counted once, and all that came on top, is never less than what there is.

use super::inventory::within;
use crate::store::inventory::InventorySize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};
use tombolo_model::id::{ClusterId, OrgId};
use tombolo_wire::message::InventoryUpdate;

/// Clusters that are remembered at a time.
const CLUSTERS: usize = 100_000;

/// What is known of one cluster at an update.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AtMost {
    epoch: String,
    sequence: u64,
    size: InventorySize,
    /// Whether names of pods were counted, too.
    pods: bool,
}

/// What is known of all of them.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<(OrgId, ClusterId), AtMost>>);

/// What an update brings, at most. As it is stored it is not twice as long.
fn brings(update: &InventoryUpdate) -> InventorySize {
    let count = |many: usize| i64::try_from(many).unwrap_or(i64::MAX);
    let pods = update.services.values().map(|record| record.pods.len()).sum();
    // what cannot be measured is taken for too much, and counted
    let bytes = serde_json::to_vec(update).map_or(usize::MAX, |text| text.len().saturating_mul(2));
    InventorySize {
        namespaces: count(update.namespaces.len()),
        services: count(update.services.len()),
        pods: count(pods),
        bytes: count(bytes),
    }
}

impl AtMost {
    /// What there is at most after an update; nothing where that is not known.
    fn after(&self, update: &InventoryUpdate) -> Option<Self> {
        let more = brings(update);
        let follows = self.epoch == update.epoch && self.sequence + 1 == update.sequence;
        if !follows || (more.pods > 0 && !self.pods) {
            return None;
        }
        let size = InventorySize {
            namespaces: self.size.namespaces.saturating_add(more.namespaces),
            services: self.size.services.saturating_add(more.services),
            pods: self.size.pods.saturating_add(more.pods),
            bytes: self.size.bytes.saturating_add(more.bytes),
        };
        Some(Self { sequence: update.sequence, size, ..self.clone() })
    }
}

/// What is to be remembered once an update is stored.
#[derive(Debug)]
pub(super) struct Known(AtMost);

impl Sizes {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(OrgId, ClusterId), AtMost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a change is in bounds for certain; nothing where it must be counted.
    pub(super) fn fits(&self, cluster: (OrgId, ClusterId), update: &InventoryUpdate) -> Option<Known> {
        let after = self.lock().get(&cluster)?.after(update)?;
        within(after.size).ok().map(|()| Known(after))
    }

    /// A change was counted with all that there is.
    pub(super) fn counted(update: &InventoryUpdate, size: InventorySize, pods: bool) -> Known {
        Known(AtMost { epoch: update.epoch.clone(), sequence: update.sequence, size, pods })
    }

    /// What a whole update makes of it.
    pub(super) fn whole(update: &InventoryUpdate) -> Known {
        Self::counted(update, brings(update), true)
    }

    /// The update is stored.
    pub(super) fn stored(&self, cluster: (OrgId, ClusterId), known: Known) {
        let mut all = self.lock();
        if all.len() >= CLUSTERS && !all.contains_key(&cluster) {
            all.clear();
        }
        all.insert(cluster, known.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::bounds::whole::SERVICES;
    use tombolo_testkit::build::{Service, service_key};
    use uuid::Uuid;

    fn update(sequence: u64, pods: &[&str]) -> InventoryUpdate {
        let record = Service::new(&[80]).headless(pods).build();
        InventoryUpdate {
            epoch: "a".to_owned(),
            sequence,
            whole: false,
            namespaces: Default::default(),
            services: [(service_key("default/a"), record)].into(),
            removed_namespaces: Default::default(),
            removed_services: Default::default(),
        }
    }

    fn one() -> (OrgId, ClusterId) {
        (OrgId::new(Uuid::from_u128(1)), ClusterId::new(Uuid::from_u128(2)))
    }

    #[test]
    fn what_follows_what_was_counted_is_not_counted() {
        let sizes = Sizes::default();
        assert!(sizes.fits(one(), &update(1, &[])).is_none(), "nothing is known");
        sizes.stored(one(), Sizes::counted(&update(1, &[]), InventorySize::default(), false));
        let known = sizes.fits(one(), &update(2, &[])).unwrap();
        assert!(known.0.size.services == 1 && known.0.size.bytes > 100, "{known:?}");
        assert!(sizes.fits(one(), &update(3, &[])).is_none(), "the second was not stored here");
        sizes.stored(one(), known);
        assert!(sizes.fits(one(), &update(3, &[])).is_some());
        assert!(sizes.fits(one(), &update(3, &["pod"])).is_none(), "pods were never counted");
        let other = InventoryUpdate { epoch: "b".to_owned(), ..update(3, &[]) };
        assert!(sizes.fits(one(), &other).is_none(), "another process of the agent");
    }

    #[test]
    fn what_was_known_of_another_state_is_forgotten() {
        let sizes = Sizes::default();
        // the first state of this number was small, and then another epoch had its turn
        sizes.stored(one(), Sizes::counted(&update(10, &[]), InventorySize::default(), true));
        let names: Vec<String> = (0..SERVICES).map(|n| format!("default/s{n}")).collect();
        let services = names.iter().map(|name| (service_key(name), Service::new(&[80]).build())).collect();
        let whole = InventoryUpdate { whole: true, services, ..update(10, &[]) };
        sizes.stored(one(), Sizes::whole(&whole));
        assert!(sizes.fits(one(), &update(11, &[])).is_none(), "it has to be counted");
    }

    #[test]
    fn what_may_be_too_much_is_counted() {
        let sizes = Sizes::default();
        let most = i64::try_from(SERVICES).unwrap();
        let size = InventorySize { services: most - 1, ..InventorySize::default() };
        sizes.stored(one(), Sizes::counted(&update(1, &["pod"]), size, true));
        let known = sizes.fits(one(), &update(2, &["pod"])).unwrap();
        assert_eq!((known.0.size.services, known.0.size.pods), (most, 1));
        sizes.stored(one(), known);
        assert!(sizes.fits(one(), &update(3, &[])).is_none());
    }
}
