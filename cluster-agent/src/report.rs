//! The inventory, on its way up: whole once, then what changed. The first change goes at once; while an update is
//! under way, changes gather for the next one.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tombolo_feed::{Backoff, RequestError, Requests};
use tombolo_model::inventory::Inventory;
use tombolo_runtime::telemetry::chain;
use tombolo_wire::message::{InventoryAck, InventoryUpdate};

const PATH: &str = "/agent/v1/inventory";

/// What the controller is known to have.
#[derive(Debug)]
pub struct Reporter {
    epoch: String,
    sequence: u64,
    stored: Option<Arc<Inventory>>,
}

impl Reporter {
    /// A reporter of a new epoch: the controller is known to have nothing of it.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self { epoch, sequence: 0, stored: None }
    }

    /// What to send so that the controller has `now`; nothing where it has that.
    #[must_use]
    pub fn update(&self, now: &Inventory) -> Option<InventoryUpdate> {
        let empty = Inventory::default();
        let before = self.stored.as_deref();
        let whole = before.is_none();
        let old = before.unwrap_or(&empty);
        let update = InventoryUpdate {
            epoch: self.epoch.clone(),
            sequence: self.sequence + 1,
            whole,
            namespaces: news(&old.namespaces, &now.namespaces),
            services: news(&old.services, &now.services),
            removed_namespaces: old
                .namespaces
                .keys()
                .filter(|key| !now.namespaces.contains_key(*key))
                .cloned()
                .collect(),
            removed_services: old
                .services
                .keys()
                .filter(|key| !now.services.contains_key(*key))
                .cloned()
                .collect(),
        };
        let nothing = update.namespaces.is_empty()
            && update.services.is_empty()
            && update.removed_namespaces.is_empty()
            && update.removed_services.is_empty();
        (whole || !nothing).then_some(update)
    }

    /// The controller stored the update that led to `now`.
    pub fn stored(&mut self, now: Arc<Inventory>) {
        self.sequence += 1;
        self.stored = Some(now);
    }

    /// The controller does not have what the update was a change of: the next one is whole.
    pub fn unknown(&mut self) {
        self.sequence += 1;
        self.stored = None;
    }

    /// Reports for as long as it is polled.
    pub async fn run(mut self, requests: Requests, mut inventory: watch::Receiver<Option<Arc<Inventory>>>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut rng = StdRng::from_os_rng();
        loop {
            let now = inventory.borrow_and_update().clone();
            let update = now.as_ref().and_then(|now| self.update(now));
            let (Some(now), Some(update)) = (now, update) else {
                if inventory.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match requests.post::<_, InventoryAck>(PATH, &update).await {
                Ok(_) => {
                    tracing::debug!(
                        inventory.sequence = update.sequence,
                        inventory.whole = update.whole,
                        "the inventory is stored"
                    );
                    backoff.reset();
                    self.stored(now);
                }
                Err(error) if is_conflict(&error) => {
                    // Another replica's or an older state, or an answer that was lost on its way to us.
                    tracing::info!(
                        inventory.sequence = update.sequence,
                        inventory.whole = update.whole,
                        "the controller does not have what this follows; sending all"
                    );
                    self.unknown();
                    if update.whole {
                        tokio::time::sleep(backoff.next(&mut rng)).await;
                    }
                }
                Err(error) => {
                    let wait = backoff.next(&mut rng);
                    tracing::warn!(
                        error = chain(&error),
                        retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                        "the inventory could not be reported; trying again"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

fn is_conflict(error: &RequestError) -> bool {
    error.status().is_some_and(|status| status == http::StatusCode::CONFLICT)
}

fn news<K: Ord + Clone, V: PartialEq + Clone>(
    old: &std::collections::BTreeMap<K, V>,
    new: &std::collections::BTreeMap<K, V>,
) -> std::collections::BTreeMap<K, V> {
    let differs = |(key, value): &(&K, &V)| old.get(*key) != Some(*value);
    new.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A name for this process's count, never used before.
#[must_use]
pub fn new_epoch(rng: &mut impl Rng) -> String {
    format!("{:032x}", rng.random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::inventory::{NamespaceRecord, ServiceKey, ServiceRecord};

    fn inventory(services: &[(&str, u32)]) -> Arc<Inventory> {
        let record = |ready| ServiceRecord {
            created_s: 0,
            ports: vec![],
            headless: false,
            ready,
            total: 2,
            tunnelled: 0,
            accounts: Default::default(),
            pods: Default::default(),
        };
        let services = services
            .iter()
            .map(|(name, ready)| (ServiceKey::try_from(format!("default/{name}")).unwrap(), record(*ready)));
        let namespaces = [("default".parse().unwrap(), NamespaceRecord { labels: Default::default() })];
        Arc::new(Inventory { namespaces: namespaces.into(), services: services.collect() })
    }

    #[test]
    fn whole_then_changes() {
        let mut reporter = Reporter::new("e".into());
        let first = inventory(&[("a", 1), ("b", 1)]);
        let update = reporter.update(&first).unwrap();
        assert!(update.whole && update.sequence == 1 && update.services.len() == 2);
        reporter.stored(Arc::clone(&first));
        assert_eq!(reporter.update(&first), None);
        let second = inventory(&[("a", 2), ("c", 1)]);
        let update = reporter.update(&second).unwrap();
        assert!(!update.whole && update.sequence == 2 && update.namespaces.is_empty());
        let names = |keys: Vec<&ServiceKey>| keys.iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(update.services.keys().collect()), ["a", "c"]);
        assert_eq!(names(update.removed_services.iter().collect()), ["b"]);
        reporter.unknown();
        let update = reporter.update(&second).unwrap();
        assert!(update.whole && update.sequence == 3 && update.removed_services.is_empty());
    }

    #[test]
    fn an_empty_cluster_is_reported_once() {
        let mut reporter = Reporter::new("e".into());
        let empty = Arc::new(Inventory::default());
        assert!(reporter.update(&empty).unwrap().whole);
        reporter.stored(Arc::clone(&empty));
        assert_eq!(reporter.update(&empty), None);
    }
}
