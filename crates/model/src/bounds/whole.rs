//! How much a cluster may say in all: each cluster that may call it has to hold what it says.

use super::size;
use crate::{
    inventory::{Inventory, NamespaceRecord, ServiceKey, ServiceRecord},
    name::{DnsLabel, NamespaceName},
};
use std::collections::{BTreeMap, BTreeSet};

/// Services of a cluster.
pub const SERVICES: usize = 20_000;
/// Namespaces of a cluster.
pub const NAMESPACES: usize = 20_000;
/// Pods with names of their own, of all its services together.
pub const POD_NAMES: usize = 20_000;
/// What it says of its services, in bytes of JSON (see [`ServiceRecord::weight`]).
pub const SERVICES_SIZE: usize = 16 << 20;
/// The same of its namespaces.
pub const NAMESPACES_SIZE: usize = 8 << 20;

/// What an inventory left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Namespaces.
    pub namespaces: usize,
    /// Services.
    pub services: usize,
    /// Names of pods, of the services that are in it.
    pub pods: usize,
    /// One of the services that are not in it, or not whole.
    pub example: Option<ServiceKey>,
}

impl Inventory {
    /// Leaves out what is too much. The oldest services stay, so that a new one puts none out that was there before; and namespaces with
    /// services go before those without.
    pub fn fit(&mut self) -> LeftOut {
        let mut left = LeftOut::default();
        if excess(&self.namespaces, &self.services).is_none() {
            return left;
        }
        let mut by_age: Vec<_> = std::mem::take(&mut self.services).into_iter().collect();
        by_age.sort_by_key(|(_, record)| record.created_s);
        let (mut pods, mut room) = (POD_NAMES, SERVICES_SIZE);
        for (key, mut record) in by_age {
            let many = record.pods.len();
            while record.pods.len() > pods {
                record.pods.pop_last();
            }
            let weight = record.weight(&key);
            let stays = self.services.len() < SERVICES && weight <= room;
            if !stays || record.pods.len() < many {
                left.example.get_or_insert_with(|| key.clone());
            }
            if !stays {
                left.services += 1;
                continue;
            }
            left.pods += many - record.pods.len();
            pods -= record.pods.len();
            room -= weight;
            self.services.insert(key, record);
        }
        let used: BTreeSet<NamespaceName> = self.services.keys().map(|key| key.namespace.clone()).collect();
        let mut spaces: Vec<_> = std::mem::take(&mut self.namespaces).into_iter().collect();
        spaces.sort_by_key(|(name, _)| !used.contains(name));
        let mut room = NAMESPACES_SIZE;
        for (name, record) in spaces {
            let weight = record.weight(&name);
            if self.namespaces.len() >= NAMESPACES || weight > room {
                left.namespaces += 1;
                continue;
            }
            room -= weight;
            self.namespaces.insert(name, record);
        }
        left
    }
}

/// What of an inventory, or of a change of one, is too much, and how much there may be.
#[must_use]
pub fn excess(
    namespaces: &BTreeMap<NamespaceName, NamespaceRecord>,
    services: &BTreeMap<ServiceKey, ServiceRecord>,
) -> Option<(&'static str, usize)> {
    let pods: usize = services.values().map(|record| record.pods.len()).sum();
    let of_services: usize = services.iter().map(|(key, record)| record.weight(key)).sum();
    let of_namespaces: usize = namespaces.iter().map(|(name, record)| record.weight(name)).sum();
    [
        (namespaces.len(), "namespaces", NAMESPACES),
        (services.len(), "services", SERVICES),
        (pods, "names of pods", POD_NAMES),
        (of_services, "bytes of services", SERVICES_SIZE),
        (of_namespaces, "bytes of namespaces", NAMESPACES_SIZE),
    ]
    .into_iter()
    .find(|(many, _, most)| many > most)
    .map(|(_, what, most)| (what, most))
}

impl NamespaceRecord {
    /// How long it is as JSON, with its name; never less.
    #[must_use]
    pub fn weight(&self, name: &NamespaceName) -> usize {
        64 + name.as_str().len() + labels(&self.labels)
    }
}

impl ServiceRecord {
    /// How long it is as JSON, with its key; never less. Worked out at each change for all services, so it is not written for that.
    #[must_use]
    pub fn weight(&self, key: &ServiceKey) -> usize {
        let of_port = |name: &Option<DnsLabel>, app_protocol: &Option<String>| {
            80 + name.as_ref().map_or(0, |name| name.as_str().len()) + maybe(app_protocol.as_ref())
        };
        let export = self.export.as_ref().map_or(0, |export| {
            let traits = &export.traits;
            400 + traits.ports.iter().map(|port| of_port(&port.name, &port.app_protocol)).sum::<usize>()
                + maybe(traits.internal_traffic_policy.as_ref())
                + maybe(traits.traffic_distribution.as_ref())
                + labels(&export.labels)
                + labels(&export.annotations)
        });
        220 + key.namespace.as_str().len()
            + key.name.as_str().len()
            + self.ports.iter().map(|port| of_port(&port.name, &port.app_protocol)).sum::<usize>()
            + self.accounts.iter().map(|account| account.as_str().len() + 3).sum::<usize>()
            + self.pods.keys().map(|pod| pod.as_str().len() + 40).sum::<usize>()
            + export
    }
}

fn labels(labels: &crate::intent::Labels) -> usize {
    let escaped: usize = labels.iter().map(|(name, value)| escapes(name) + escapes(value)).sum();
    size(labels) + escaped + 6 * labels.len()
}

fn maybe(text: Option<&String>) -> usize {
    text.map_or(0, |text| text.len() + escapes(text))
}

/// How much longer a text is as JSON.
fn escapes(text: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.bytes().map(more).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bounds::tests::record, inventory::PodRecord};

    fn key(n: usize) -> ServiceKey {
        ServiceKey::try_from(format!("n{}/s{n}", n % 7)).unwrap()
    }

    fn inventory(services: impl IntoIterator<Item = (usize, ServiceRecord)>) -> Inventory {
        let services = services.into_iter().map(|(n, record)| (key(n), record)).collect();
        Inventory { services, ..Inventory::default() }
    }

    fn plain(created_s: i64, pods: usize) -> ServiceRecord {
        let pod = |n: usize| (format!("p{n}").parse().unwrap(), PodRecord { ready: true, tunnelled: false });
        let mut record =
            ServiceRecord { created_s, export: None, pods: (0..pods).map(pod).collect(), ..record(0) };
        record.headless = false;
        record
    }

    #[test]
    fn a_weight_is_no_less_than_the_json() {
        for mut record in [record(0), record(1), record(200), plain(i64::MIN, 3)] {
            (record.ready, record.total, record.tunnelled) = (u32::MAX, u32::MAX, u32::MAX);
            if let Some(export) = &mut record.export {
                export.created_s = i64::MIN;
                export.annotations.insert("note".to_owned(), "\"\\\u{1}\n\tä".repeat(100));
            }
            let json = serde_json::to_vec(&BTreeMap::from([(key(1), &record)])).unwrap().len();
            let weight = record.weight(&key(1));
            assert!(weight >= json && weight < 2 * json + 400, "{weight} for {json}");
        }
        let labels = [("a\"".to_owned(), "b\n".to_owned()), ("c".to_owned(), String::new())].into();
        let space = NamespaceRecord { labels, imports: true };
        let name: NamespaceName = "shop".parse().unwrap();
        let json = serde_json::to_vec(&BTreeMap::from([(&name, &space)])).unwrap().len();
        assert!(space.weight(&name) >= json);
    }

    #[test]
    fn what_fits_is_not_touched() {
        let mut all = inventory((0..SERVICES).map(|n| (n, plain(0, 1))));
        let before = all.clone();
        assert_eq!((excess(&all.namespaces, &all.services), all.fit()), (None, LeftOut::default()));
        assert_eq!(all, before);
    }

    #[test]
    fn the_newest_services_are_left_out() {
        let age = |n: usize| i64::try_from(n % 100).unwrap();
        let mut all = inventory((0..SERVICES + 100).map(|n| (n, plain(age(n), 0))));
        assert_eq!(excess(&all.namespaces, &all.services), Some(("services", SERVICES)));
        let left = all.fit();
        assert_eq!((left.services, left.pods, left.namespaces), (100, 0, 0));
        assert_eq!(excess(&all.namespaces, &all.services), None);
        let newest = all.services.values().filter(|record| record.created_s == 99).count();
        assert_eq!(newest, SERVICES / 100 + 1 - 100, "only those");
        // another one that is newer changes nothing of that
        let before = all.clone();
        all.services.insert(ServiceKey::try_from("a/a".to_owned()).unwrap(), plain(1000, 0));
        assert_eq!(all.fit().example.unwrap().to_string(), "a/a");
        assert_eq!(all, before);
    }

    #[test]
    fn names_of_pods_are_left_out_and_their_services_stay() {
        let mut all = inventory((0..5).map(|n| (n, plain(i64::try_from(n).unwrap(), 5_000))));
        assert_eq!(excess(&all.namespaces, &all.services), Some(("names of pods", POD_NAMES)));
        let left = all.fit();
        assert_eq!((left.services, left.pods, left.example), (0, 5_000, Some(key(4))));
        assert!(all.services.len() == 5 && all.services[&key(4)].pods.is_empty());
    }

    #[test]
    fn bytes_are_bounded() {
        let mut large = record(2_000);
        large.fit();
        large.pods.clear();
        let mut all = inventory((0..1_000).map(|n| (n, large.clone())));
        assert_eq!(excess(&all.namespaces, &all.services), Some(("bytes of services", SERVICES_SIZE)));
        let left = all.fit();
        assert!(left.services > 0 && all.services.len() > 10, "{left:?}");
        assert!(serde_json::to_vec(&all).unwrap().len() < SERVICES_SIZE);
    }

    #[test]
    fn namespaces_with_services_stay() {
        let labels: crate::intent::Labels = [("l".to_owned(), "v".repeat(60))].into();
        let space = |n: usize| {
            let record = NamespaceRecord { labels: labels.clone(), imports: false };
            (format!("a{n}").parse().unwrap(), record)
        };
        let mut all = inventory([(0, plain(0, 0))]);
        all.namespaces = (0..NAMESPACES + 10).map(space).collect();
        all.namespaces.insert("n0".parse().unwrap(), NamespaceRecord::default());
        assert_eq!(excess(&all.namespaces, &all.services), Some(("namespaces", NAMESPACES)));
        assert_eq!(all.fit().namespaces, 11);
        assert!(all.namespaces.contains_key("n0") && all.namespaces.len() == NAMESPACES);
        for record in all.namespaces.values_mut() {
            record.labels.insert("long".to_owned(), "v".repeat(1000));
        }
        assert_eq!(excess(&all.namespaces, &all.services), Some(("bytes of namespaces", NAMESPACES_SIZE)));
        assert!(all.fit().namespaces > 0 && all.namespaces.contains_key("n0"));
        assert_eq!(excess(&all.namespaces, &all.services), None);
    }
}
