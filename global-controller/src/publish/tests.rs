//! What an organization in this replica looks at anew, and whom it wakes.

use super::{FeedGuard, org::Org};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};
use tombolo_compile::{Change, World};
use tombolo_model::{
    Generation, GlobalName, Locality,
    id::{ClusterId, OrgId},
    intent::{Cluster, Organization},
    inventory::{Inventory, NamespaceRecord},
    snapshot::{CaFingerprint, ClusterResource, Vip},
};
use tombolo_mtls::{Root, Validity};
use tombolo_testkit::build::{self, Service, name};
use tombolo_wire::message::FeedLine;
use uuid::Uuid;

fn id(n: u128) -> ClusterId {
    ClusterId::new(Uuid::from_u128(n))
}

fn cluster(n: u8) -> Cluster {
    Cluster {
        id: id(n.into()),
        name: name(&format!("cluster-{n}")),
        labels: BTreeMap::new(),
        locality: Locality::default(),
        intermediates: [CaFingerprint::new([n; 32])].into(),
        ingress: std::collections::BTreeSet::new(),
        install: None,
        trial: None,
    }
}

/// An organization with two clusters, the second of which serves `catalog`.
fn org() -> Org {
    let trust_domain = name("acme.internal");
    let validity = Validity {
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33),
    };
    let root = Root::create(&trust_domain, validity).unwrap();
    let organization = Organization { id: OrgId::new(Uuid::from_u128(9)), name: name("acme"), trust_domain };
    let mut world = World::new(organization);
    world.roots = vec![root.cert_pem().to_owned()];
    world.clusters = [1, 2].map(|n| (id(n.into()), cluster(n))).into();
    let gns = build::gns(1, "acme", "acme.example.com", vec![build::everywhere("default")]);
    world.gns = [(gns.id, gns)].into();
    world.inventories = [(id(2), catalog(1))].into();
    Org::new(world, Generation::new(1)).unwrap()
}

fn catalog(ready: u32) -> Inventory {
    Inventory {
        namespaces: [(name("default"), NamespaceRecord::default())].into(),
        services: [(build::service_key("default/catalog"), Service::new(&[80]).endpoints(ready, 9).build())]
            .into(),
    }
}

fn vips(names: impl IntoIterator<Item = GlobalName>) -> Change {
    let vip =
        |n: usize| Vip { v4: [240, 0, 0, n as u8].into(), v6: [0xfd00, 0, 0, 0, 0, 0, 0, n as u16].into() };
    Change::Vips(names.into_iter().enumerate().map(|(n, name)| (name, Some(vip(n + 1)))).collect())
}

#[test]
fn feeds_are_woken_where_others_stand_and_not_by_each_generation() {
    let org = org();
    let mut states = org.watch();
    states.borrow_and_update();
    org.apply(vec![Change::Inventory(id(2), catalog(2))], Generation::new(2)).unwrap();
    assert!(!states.has_changed().unwrap(), "who stands is the same");
    assert_eq!(org.state().generation, Generation::new(2), "and the newest is seen by who looks");
    org.apply(vec![Change::ClusterGone(id(2))], Generation::new(3)).unwrap();
    assert!(states.has_changed().unwrap());
    let state = org.state();
    assert_eq!(state.clusters.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["cluster-1"]);
    assert_eq!(state.bundle_spec.clusters.len(), 1);
}

#[test]
fn what_could_not_be_published_is_made_good_by_the_next_change() {
    let org = org();
    let none = org.apply(vec![Change::Roots(Vec::new()), Change::ClusterGone(id(2))], Generation::new(2));
    assert!(none.is_err(), "nobody could be believed");
    assert_eq!((org.generation(), org.state().clusters.len()), (Generation::new(1), 2));
    let roots = org.state().bundle_spec.roots.clone();
    let mut states = org.watch();
    states.borrow_and_update();
    org.apply(vec![Change::Roots(roots)], Generation::new(3)).unwrap();
    assert!(states.has_changed().unwrap());
    assert_eq!((org.generation(), org.state().clusters.len()), (Generation::new(3), 1));
}

/// The number of ready endpoints that a cluster is told of since a generation, of each name; none where it is told nothing.
fn told_since(feed: &FeedGuard, sent: Generation) -> Option<Vec<u32>> {
    match feed.since(sent)?.0 {
        FeedLine::Delta { upserts, .. } => Some(
            upserts
                .values()
                .filter_map(|resource| match resource {
                    ClusterResource::Name(name) => Some(name.targets.iter().map(|target| target.ready).sum()),
                    _ => None,
                })
                .collect(),
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_cluster_could_not_be_told_it_is_told_by_the_next_change() {
    let org = org();
    org.apply(vec![vips(org.settle().unwrap().needed)], Generation::new(2)).unwrap();
    let feed = org.channel(id(1)).unwrap().attach().unwrap();
    let roots = org.state().bundle_spec.roots.clone();
    let none = vec![Change::Roots(Vec::new()), Change::Inventory(id(2), catalog(2))];
    assert!(org.apply(none, Generation::new(3)).is_err(), "nobody could be believed");
    assert_eq!(told_since(&feed, Generation::new(2)), None);
    let told = org.apply(vec![Change::Roots(roots)], Generation::new(4)).unwrap();
    assert_eq!(told, [id(1)]);
    assert_eq!(told_since(&feed, Generation::new(2)), Some(vec![2, 2]), "the roots are as they were");
}

#[test]
fn a_cluster_that_goes_is_told_nothing_and_keeps_what_it_has() {
    let org = org();
    org.apply(vec![vips(org.settle().unwrap().needed)], Generation::new(2)).unwrap();
    let feed = org.channel(id(2)).unwrap().attach().unwrap();
    let changes = vec![Change::Inventory(id(2), catalog(2)), Change::ClusterGone(id(2))];
    assert!(org.apply(changes, Generation::new(3)).unwrap().is_empty());
    assert_eq!(told_since(&feed, Generation::new(2)), None);
}

#[test]
fn names_are_settled_once() {
    let org = org();
    let settle = org.settle().unwrap();
    let names: Vec<&str> = settle.needed.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["catalog.acme.example.com", "catalog.cluster-2.acme.example.com"]);
    assert_eq!(org.settle(), Some(settle.clone()), "nobody gave them any yet");
    org.apply(vec![vips(settle.needed.clone())], Generation::new(2)).unwrap();
    assert_eq!(org.settle(), None);
    org.apply(vec![Change::Inventory(id(2), catalog(3))], Generation::new(3)).unwrap();
    assert_eq!(org.settle(), None, "another number of endpoints is no other name");
    org.apply(vec![Change::Inventory(id(2), Inventory::default())], Generation::new(4)).unwrap();
    let over = org.settle().unwrap();
    assert_eq!((over.generation, over.released, over.needed.len()), (Generation::new(4), settle.needed, 0));
}
