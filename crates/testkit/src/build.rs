//! Builders of model types: what a test does not care for has a value that makes sense.

use std::{fmt::Debug, str::FromStr};
use tombolo_model::{
    ClusterName, Locality, NamespaceName,
    intent::{GlobalNamespace, MappingRule, Selector},
    inventory::{Inventory, NamespaceRecord, PodRecord, PortSpec, Protocol, ServiceKey, ServiceRecord},
    snapshot::EndpointSpec,
};

/// Reads a name, an identity, an address: anything that has a parser.
///
/// # Panics
/// When the text is none.
pub fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

/// `namespace/name`.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn service_key(text: &str) -> ServiceKey {
    ServiceKey::try_from(text.to_owned()).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// A TCP port without a name.
#[must_use]
pub fn tcp(port: u16) -> PortSpec {
    PortSpec { port, protocol: Protocol::Tcp, name: None, app_protocol: None }
}

/// A region and a zone.
#[must_use]
pub fn locality(region: &str, zone: &str) -> Locality {
    Locality { region: Some(region.to_owned()), zone: Some(zone.to_owned()) }
}

/// A ready endpoint without a sidecar.
///
/// # Panics
/// When `address` is no `ip:port`.
#[must_use]
pub fn endpoint(address: &str) -> EndpointSpec {
    EndpointSpec { address: name(address), ready: true, tunnel: None, leaving: false, identity: None }
}

/// A service with one ready endpoint, and the account `default`.
#[derive(Clone, Debug)]
pub struct Service(ServiceRecord);

impl Service {
    /// A service with these TCP ports.
    #[must_use]
    pub fn new(ports: &[u16]) -> Self {
        Self(ServiceRecord {
            created_s: 1_700_000_000,
            ports: ports.iter().copied().map(tcp).collect::<Vec<_>>().into(),
            headless: false,
            ready: 1,
            total: 1,
            tunnelled: 0,
            accounts: [name("default")].into(),
            pods: std::collections::BTreeMap::new(),
            export: None,
        })
    }
    /// Made at this time, in seconds since 1970.
    #[must_use]
    pub fn created(mut self, seconds: i64) -> Self {
        self.0.created_s = seconds;
        self
    }
    /// With so many endpoints ready, of so many.
    #[must_use]
    pub fn endpoints(mut self, ready: u32, total: u32) -> Self {
        (self.0.ready, self.0.total) = (ready, total);
        self
    }
    /// With so many of the ready endpoints behind a sidecar.
    #[must_use]
    pub fn tunnelled(mut self, tunnelled: u32) -> Self {
        self.0.tunnelled = tunnelled;
        self
    }
    /// Served by this service account alone.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        self.0.accounts = [name(account)].into();
        self
    }
    /// Headless, with these pods, all ready.
    #[must_use]
    pub fn headless(mut self, pods: &[&str]) -> Self {
        self.0.headless = true;
        self.0.pods =
            pods.iter().map(|pod| (name(pod), PodRecord { ready: true, tunnelled: false })).collect();
        self
    }
    /// The record.
    #[must_use]
    pub fn build(self) -> ServiceRecord {
        self.0
    }
}

/// An inventory: each service under `namespace/name`, its namespace without labels.
///
/// # Panics
/// When a key is none.
#[must_use]
pub fn inventory(services: impl IntoIterator<Item = (&'static str, Service)>) -> Inventory {
    let mut inventory = Inventory::default();
    for (key, service) in services {
        let key = service_key(key);
        let record = NamespaceRecord::default();
        inventory.namespaces.entry(key.namespace.clone()).or_insert(record);
        inventory.services.insert(key, service.build());
    }
    inventory
}

/// The rule "this namespace, in every cluster".
///
/// # Panics
/// When `namespace` is no name.
#[must_use]
pub fn everywhere(namespace: &str) -> MappingRule {
    let cluster: Selector<ClusterName> = Selector::Labels(std::collections::BTreeMap::new());
    let namespace: Selector<NamespaceName> = Selector::Name(name(namespace));
    MappingRule { cluster, namespace }
}

/// A global namespace. `order` makes its id: the lower is the older.
///
/// # Panics
/// When these are no names.
#[must_use]
pub fn gns(order: u8, gns: &str, domain: &str, rules: Vec<MappingRule>) -> GlobalNamespace {
    let id = format!("01900000-0000-7000-8000-0000000000{order:02x}");
    GlobalNamespace { id: name(&id), name: name(gns), domain: name(domain), rules, capture: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds() {
        let inventory = inventory([("default/catalog", Service::new(&[8082]).endpoints(1, 2))]);
        assert_eq!(inventory.services[&service_key("default/catalog")].total, 2);
        assert!(inventory.namespaces.contains_key(&name::<NamespaceName>("default")));
        assert!(gns(1, "a", "a.b", vec![everywhere("default")]).id < gns(2, "b", "b.c", vec![]).id);
    }
}
