//! The cluster set, by hand.

use crate::common::{
    allocate, cluster, cluster_id, empty, exported, exported_port, importing, key, label, labels, port, put,
    service,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_compile::{Change, ClusterChange, Incremental, World, check, names_needed, snapshot, text};
use tombolo_model::{
    ClusterName,
    inventory::{PodRecord, ServiceRecord},
    mcs::{ConflictReason, ImportKind, ImportSpec, SessionAffinity, Transport},
    snapshot::{ClusterResource, NameSpec, ResourceKey},
};

/// Three clusters; the namespace `shop` in the first two. The first exports `catalog`, the second has it too.
fn world() -> World {
    let mut world = empty();
    for n in 1..=3 {
        world.clusters.insert(cluster_id(n), cluster(n));
        importing(&mut world, n, "other");
    }
    importing(&mut world, 1, "shop");
    importing(&mut world, 2, "shop");
    put(&mut world, 1, key("shop", "catalog"), exported(service(5, vec![port(80)]), 100));
    put(&mut world, 2, key("shop", "catalog"), service(1, vec![port(80)]));
    allocate(&mut world);
    world
}

fn import(world: &World, receiver: u8) -> Option<ImportSpec> {
    match snapshot(world, cluster_id(receiver)).remove(&ResourceKey::new("import", "shop/catalog")) {
        Some(ClusterResource::Import(import)) => Some(ImportSpec::clone(&import)),
        _ => None,
    }
}

fn named(world: &World, receiver: u8, name: &str) -> Option<NameSpec> {
    let name = format!("{name}shop.svc.clusterset.local");
    match snapshot(world, cluster_id(receiver)).remove(&ResourceKey::new("name", &name)) {
        Some(ClusterResource::Name(name)) => Some(NameSpec::clone(&name)),
        _ => None,
    }
}

/// Changes the record of the catalog in a cluster.
fn change(world: &mut World, cluster: u8, change: impl FnOnce(&mut ServiceRecord)) {
    let services = &mut world.inventories.get_mut(&cluster_id(cluster)).unwrap().services;
    change(services.get_mut(&key("shop", "catalog")).unwrap());
    allocate(world);
}

fn reasons(world: &World) -> Vec<ConflictReason> {
    import(world, 1).unwrap().conflicts.into_iter().map(|conflict| conflict.reason).collect()
}

#[test]
fn as_the_importer_sees_it() {
    insta::assert_snapshot!(text(&snapshot(&world(), cluster_id(2))));
}

#[test]
fn only_who_exports_serves_and_only_who_has_the_namespace_imports() {
    let world = world();
    let spec = import(&world, 2).unwrap();
    assert_eq!(spec.clusters, BTreeSet::from([ClusterName::parse("cluster-1").unwrap()]));
    assert_eq!(import(&world, 1), Some(spec), "the exporter imports it too");
    assert_eq!(import(&world, 3), None);
    let name = named(&world, 2, "catalog.").unwrap();
    assert_eq!(name.targets.iter().map(|target| target.cluster.as_str()).collect::<Vec<_>>(), ["cluster-1"]);
    assert!(check(&snapshot(&world, cluster_id(2))).is_empty());
    // Nobody exports it: nothing stands for it any more.
    let mut none = world;
    change(&mut none, 1, |record| record.export = None);
    assert_eq!((import(&none, 1), named(&none, 2, "catalog.")), (None, None));
    assert!(names_needed(&none).is_empty());
}

#[test]
fn the_oldest_export_decides_and_everybody_hears() {
    let mut world = world();
    assert_eq!(reasons(&world), []);
    change(&mut world, 2, |record| {
        *record = exported(record.clone(), 200);
        let export = record.export.as_mut().unwrap();
        export.traits.ports = vec![exported_port("sctp", 142, Transport::Sctp)];
        export.traits.affinity = SessionAffinity::ClientIp(10);
        export.traits.internal_traffic_policy = Some("Local".into());
        export.traits.traffic_distribution = Some("PreferClose".into());
        export.labels = labels(&[("a", "b")]);
        export.annotations = labels(&[("c", "d")]);
        record.headless = true;
    });
    use ConflictReason::{
        Annotations, InternalTrafficPolicy, Labels, Port, SessionAffinity as Affinity, TrafficDistribution,
        Type,
    };
    assert_eq!(
        reasons(&world),
        [Port, Type, Affinity, Labels, Annotations, InternalTrafficPolicy, TrafficDistribution]
    );
    let one = import(&world, 1).unwrap();
    assert_eq!(
        one.conflicts[1].message,
        "Conflicting type. Using \"ClusterSetIP\" from the oldest export, of cluster-1; 1/2 clusters disagree"
    );
    assert_eq!(Some(&one), import(&world, 2).as_ref());
    assert_eq!(
        (one.kind, one.traits.affinity, one.labels.len()),
        (ImportKind::ClusterSetIp, SessionAffinity::None, 0)
    );
    assert_eq!(one.traits.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 142]);
    // The older one goes: the other's word stands, and nobody is against it.
    change(&mut world, 1, |record| record.export = None);
    let left = import(&world, 1).unwrap();
    assert_eq!(
        (left.kind, left.labels, left.conflicts),
        (ImportKind::Headless, labels(&[("a", "b")]), vec![])
    );
}

#[test]
fn each_cluster_has_a_name_of_its_own_for_its_slice() {
    let mut world = world();
    change(&mut world, 2, |record| *record = exported(record.clone(), 200));
    let two = named(&world, 1, "cluster-2.catalog.").unwrap();
    assert_eq!(two.targets.iter().map(|target| target.cluster.as_str()).collect::<Vec<_>>(), ["cluster-2"]);
    assert_eq!(named(&world, 1, "catalog.").unwrap().targets.len(), 2);
}

#[test]
fn pods_of_a_headless_service_are_named_by_cluster() {
    let mut world = world();
    for n in 1..=2 {
        change(&mut world, n, |record| {
            *record = exported(record.clone(), 100);
            record.headless = true;
            record.pods =
                BTreeMap::from([(label("catalog-0"), PodRecord { ready: n == 1, tunnelled: false })]);
        });
    }
    let ready = |name: &str| named(&world, 1, name).unwrap().targets[0].ready;
    assert_eq!((ready("catalog-0.cluster-1.catalog."), ready("catalog-0.cluster-2.catalog.")), (1, 0));
    assert!(named(&world, 1, "catalog.").unwrap().headless);
    assert_eq!(named(&world, 1, "cluster-1.catalog."), None, "the form is reserved, and nothing needs it");
}

/// A namespace that comes brings what is exported in it; one that goes takes it along; a cluster that is revoked takes its exports.
#[test]
fn namespaces_and_clusters_come_and_go() {
    let mut all = Incremental::new(world());
    let mut tell = |change| {
        let affected = all.apply(change);
        let told = affected.clusters.into_iter().map(|(id, change)| {
            let kinds = match change {
                ClusterChange::Whole(_) => "whole".to_owned(),
                ClusterChange::Gone => "gone".to_owned(),
                ClusterChange::Parts { upserts, removes } => {
                    let keys =
                        |keys: Vec<&ResourceKey>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
                    format!("+{:?} -{:?}", keys(upserts.keys().collect()), keys(removes.iter().collect()))
                }
            };
            (id, kinds)
        });
        let mut told: BTreeMap<_, _> = told.collect();
        (told.remove(&cluster_id(1)), told.remove(&cluster_id(3)))
    };
    let space = |imports| Change::Inventoried {
        cluster: cluster_id(3),
        namespaces: [(
            key("shop", "x").namespace,
            Some(tombolo_model::inventory::NamespaceRecord { imports, ..Default::default() }),
        )]
        .into(),
        services: BTreeMap::new(),
    };
    let all_of_it = "[\"import/shop/catalog\", \"name/catalog.shop.svc.clusterset.local\", \"name/cluster-1.catalog.shop.svc.clusterset.local\"]";
    assert_eq!(tell(space(true)), (None, Some(format!("+{all_of_it} -[]"))));
    assert_eq!(tell(space(false)), (None, Some(format!("+[] -{all_of_it}"))));
    assert_eq!(tell(space(true)).1, Some(format!("+{all_of_it} -[]")));
    let mut revoked = cluster(1);
    revoked.intermediates.clear();
    let (one, three) = tell(Change::Cluster(revoked));
    assert_eq!(one.as_deref(), Some("whole"));
    let three = three.unwrap();
    assert!(three.contains(&format!("-{}", all_of_it.trim_end_matches(']'))), "{three}");
}
