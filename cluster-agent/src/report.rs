//! The inventory, on its way up: whole once, then what changed. The first change goes at once; while an update is
//! under way, changes gather for the next one.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
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
    /// Sent, and not known to be stored or not. Under its number nothing else may be sent: the controller takes a
    /// number that it has for a repetition.
    open: Option<(Arc<InventoryUpdate>, Arc<Inventory>)>,
    /// Whether to ask whether the controller still has it, though nothing changed.
    ask: bool,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// The controller does not have what it follows.
    Conflict,
    /// It is not stored, and would not be the next time.
    Refused,
    /// Nobody knows.
    Lost,
}

impl Reporter {
    /// A reporter of a new epoch: the controller is known to have nothing of it.
    #[must_use]
    pub fn new(epoch: String) -> Self {
        Self { epoch, sequence: 0, stored: None, open: None, ask: false }
    }

    /// What to send so that the controller comes to have `now`; nothing where it has that.
    pub fn next(&mut self, now: &Arc<Inventory>) -> Option<Arc<InventoryUpdate>> {
        if self.open.is_none() {
            self.open = self.update(now).map(|update| (Arc::new(update), Arc::clone(now)));
        }
        self.open.as_ref().map(|(update, _)| Arc::clone(update))
    }

    /// The connection is another one: the controller may have lost what it had, as after its database was restored from
    /// a backup. A change of nothing finds out.
    pub const fn ask(&mut self) {
        self.ask = true;
    }

    /// What became of it.
    pub fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Lost => {}
            Outcome::Refused => self.open = None,
            Outcome::Stored => {
                self.ask = false;
                self.sequence += 1;
                self.stored = self.open.take().map(|(_, inventory)| inventory);
            }
            Outcome::Conflict => {
                self.ask = false;
                self.sequence += 1;
                self.stored = None;
                self.open = None;
            }
        }
    }

    fn update(&self, now: &Inventory) -> Option<InventoryUpdate> {
        let empty = Inventory::default();
        let whole = self.stored.is_none();
        let old = self.stored.as_deref().unwrap_or(&empty);
        let update = InventoryUpdate {
            epoch: self.epoch.clone(),
            sequence: self.sequence + 1,
            whole,
            namespaces: news(&old.namespaces, &now.namespaces),
            services: news(&old.services, &now.services),
            removed_namespaces: gone(&old.namespaces, &now.namespaces),
            removed_services: gone(&old.services, &now.services),
        };
        let nothing = update.namespaces.is_empty()
            && update.services.is_empty()
            && update.removed_namespaces.is_empty()
            && update.removed_services.is_empty();
        (whole || self.ask || !nothing).then_some(update)
    }

    /// Reports for as long as it is polled.
    pub async fn run(mut self, requests: Requests, mut inventory: watch::Receiver<Option<Arc<Inventory>>>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut rng = StdRng::from_os_rng();
        let mut links = requests.clone();
        loop {
            let now = inventory.borrow_and_update().clone();
            let Some(update) = now.as_ref().and_then(|now| self.next(now)) else {
                tokio::select! {
                    changed = inventory.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    () = links.reconnected() => self.ask(),
                }
                continue;
            };
            let answer = requests.post::<_, InventoryAck>(PATH, &*update).await;
            let outcome = answer.as_ref().map_or_else(outcome_of, |_| Outcome::Stored);
            self.outcome(outcome);
            let (sequence, whole) = (update.sequence, update.whole);
            let Err(error) = answer else {
                tracing::debug!(
                    inventory.sequence = sequence,
                    inventory.whole = whole,
                    "the inventory is stored"
                );
                backoff.reset();
                continue;
            };
            if outcome == Outcome::Conflict && !whole {
                // As after the controller's database was restored from a backup.
                tracing::info!(
                    inventory.sequence = sequence,
                    "the controller does not have what this changes; sending all"
                );
                continue;
            }
            let wait = error.wait(backoff.next(&mut rng));
            tracing::warn!(
                error = chain(&error),
                inventory.sequence = sequence,
                retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "the inventory could not be reported; trying again"
            );
            // Who was not reached is asked at once where the link is back; who said when to come is asked then.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = links.reconnected(), if error.status().is_none() => self.ask(),
            }
        }
    }
}

fn outcome_of(error: &RequestError) -> Outcome {
    match error.status() {
        // no time or no room for it, this time; an earlier one of the same number may be stored all the same
        _ if error.retry() => Outcome::Lost,
        Some(http::StatusCode::CONFLICT) => Outcome::Conflict,
        Some(status) if status.is_client_error() => Outcome::Refused,
        _ => Outcome::Lost,
    }
}

fn news<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let differs = |(key, value): &(&K, &V)| old.get(*key) != Some(*value);
    new.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn gone<K: Ord + Clone, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
    old.keys().filter(|key| !new.contains_key(*key)).cloned().collect()
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
            ports: Default::default(),
            headless: false,
            ready,
            total: 2,
            tunnelled: 0,
            accounts: Default::default(),
            pods: Default::default(),
            export: None,
        };
        let services = services
            .iter()
            .map(|(name, ready)| (ServiceKey::try_from(format!("default/{name}")).unwrap(), record(*ready)));
        let namespaces = [("default".parse().unwrap(), NamespaceRecord::default())];
        Arc::new(Inventory { namespaces: namespaces.into(), services: services.collect() })
    }

    #[test]
    fn whole_then_changes() {
        let mut reporter = Reporter::new("e".into());
        let first = inventory(&[("a", 1), ("b", 1)]);
        let update = reporter.next(&first).unwrap();
        assert!(update.whole && update.sequence == 1 && update.services.len() == 2);
        reporter.outcome(Outcome::Stored);
        assert_eq!(reporter.next(&first), None);
        let second = inventory(&[("a", 2), ("c", 1)]);
        let update = reporter.next(&second).unwrap();
        assert!(!update.whole && update.sequence == 2 && update.namespaces.is_empty());
        let names = |keys: Vec<&ServiceKey>| keys.iter().map(|key| key.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(update.services.keys().collect()), ["a", "c"]);
        assert_eq!(names(update.removed_services.iter().collect()), ["b"]);
        reporter.outcome(Outcome::Conflict);
        let update = reporter.next(&second).unwrap();
        assert!(update.whole && update.sequence == 3 && update.removed_services.is_empty());
    }

    #[test]
    fn a_new_connection_is_asked_what_it_has() {
        let mut reporter = Reporter::new("e".into());
        let all = inventory(&[("a", 1)]);
        reporter.next(&all).unwrap();
        reporter.outcome(Outcome::Stored);
        reporter.ask();
        let update = reporter.next(&all).unwrap();
        assert!(!update.whole && update.sequence == 2 && update.services.is_empty());
        reporter.outcome(Outcome::Stored);
        assert_eq!(reporter.next(&all), None, "once is enough");
        reporter.ask();
        reporter.next(&all).unwrap();
        reporter.outcome(Outcome::Conflict);
        assert!(reporter.next(&all).unwrap().whole, "it lost what it had");
    }

    #[test]
    fn a_lost_update_is_repeated_as_it_was() {
        let mut reporter = Reporter::new("e".into());
        let (first, second) = (inventory(&[("a", 1)]), inventory(&[("a", 2)]));
        let sent = reporter.next(&first).unwrap();
        reporter.outcome(Outcome::Lost);
        assert_eq!(reporter.next(&second), Some(sent), "the number may be stored with the first content");
        reporter.outcome(Outcome::Stored);
        let update = reporter.next(&second).unwrap();
        assert!(!update.whole && update.sequence == 2 && update.services.len() == 1);
        // Refused for what is in it: what is right now may be better, under the same number.
        reporter.outcome(Outcome::Refused);
        let third = inventory(&[]);
        let update = reporter.next(&third).unwrap();
        assert!(update.sequence == 2 && update.services.is_empty() && update.removed_services.len() == 1);
    }

    #[test]
    fn what_had_no_room_is_sent_again_as_it_was() {
        let refused = |status: u16| RequestError::Refused {
            status: http::StatusCode::from_u16(status).unwrap(),
            problem: Box::default(),
            retry_after: None,
        };
        for (status, outcome) in [
            // it may be stored: by this request, or by one before that nobody had an answer to
            (408, Outcome::Lost),
            (429, Outcome::Lost),
            (503, Outcome::Lost),
            (409, Outcome::Conflict),
            (413, Outcome::Refused),
            (422, Outcome::Refused),
        ] {
            assert_eq!(outcome_of(&refused(status)), outcome, "{status}");
        }
    }

    #[test]
    fn an_empty_cluster_is_reported_once() {
        let mut reporter = Reporter::new("e".into());
        let empty = Arc::new(Inventory::default());
        assert!(reporter.next(&empty).unwrap().whole);
        reporter.outcome(Outcome::Stored);
        assert_eq!(reporter.next(&empty), None);
    }
}
