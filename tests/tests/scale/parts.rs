//! What things are called, and where they are: by number.

use std::{net::Ipv4Addr, time::Duration};
use tombolo_model::{
    ClusterName, Locality,
    inventory::{Inventory, NamespaceRecord, ServiceKey, ServiceRecord},
    snapshot::ResourceKey,
};
use tombolo_testkit::build::{Service, name, service_key};
use tombolo_tests::scale::Shape;

/// What is awaited comes within this, on a machine that does other things, too.
pub(crate) const SOON: Duration = Duration::from_secs(120);

pub(crate) fn cluster(number: usize) -> ClusterName {
    name(&format!("c{number:05}"))
}

pub(crate) fn group(number: usize) -> String {
    format!("g{number:04}")
}

pub(crate) fn domain(group: usize) -> String {
    format!("{}.scale.example.com", self::group(group))
}

pub(crate) fn service(number: usize) -> ServiceKey {
    service_key(&format!("shop/service-{number}"))
}

/// The name of a service of a group, in any cluster.
pub(crate) fn key(group: usize, service: usize) -> ResourceKey {
    ResourceKey::new("name", &format!("service-{service}.{}", domain(group)))
}

/// The address that a cluster's agent comes from.
pub(crate) fn source(cluster: usize) -> Ipv4Addr {
    let [_, high, low] = u24(cluster);
    Ipv4Addr::new(127, 99, high, low)
}

/// Where peers would reach a cluster.
pub(crate) fn ingress(cluster: usize) -> String {
    let [_, high, low] = u24(cluster);
    format!("10.7.{high}.{low}:15443")
}

fn u24(number: usize) -> [u8; 3] {
    // 0 and 255 mean more than one machine in some networks
    let number = number + 1;
    [(number >> 16) as u8, (number >> 8) as u8, number as u8]
}

/// A group has clusters in three regions.
pub(crate) fn locality(cluster: usize) -> Locality {
    let region = format!("region-{}", cluster % 3);
    Locality { zone: Some(format!("{region}-a")), region: Some(region) }
}

/// What a cluster serves.
pub(crate) fn inventory(shape: &Shape, cluster: usize) -> Inventory {
    let services = shape.served(cluster).into_iter().map(|number| (service(number), record(shape, number)));
    let namespaces = [(name("shop"), NamespaceRecord::default())];
    Inventory { namespaces: namespaces.into(), services: services.collect() }
}

fn record(shape: &Shape, number: usize) -> ServiceRecord {
    let ends = shape.at_each();
    Service::new(&[8080]).endpoints(ends, ends).tunnelled(ends).account(&format!("account-{number}")).build()
}
