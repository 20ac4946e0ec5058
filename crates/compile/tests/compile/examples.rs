//! Worlds written by hand, and what follows from them.

use crate::common::{
    allocate, cluster, cluster_id, empty, gns, key, label, labels, name, port, put, service,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_compile::{
    Change, ClusterChange, Flaw, Incremental, Reason, Severity, World, check, conflicts, diff, names_needed,
    snapshot, text,
};
use tombolo_model::{
    AccountName, NamespaceName,
    intent::{CaptureMode, Selector},
    inventory::{PodRecord, PortSpec, Protocol, ServiceRecord},
    snapshot::{CaptureSpec, ClusterResource, NameSpec, ResourceKey},
};

/// The shop: two clusters, one domain, the catalog in the second.
fn shop() -> World {
    let mut world = empty();
    for n in 1..=2 {
        world.clusters.insert(cluster_id(n), cluster(n));
    }
    let acme = gns(1, "acme.example.com");
    world.gns.insert(acme.id, acme);
    put(&mut world, 1, key("default", "shopping"), service(10, vec![port(8081)]));
    let accounts = [AccountName::parse("catalog").unwrap()].into();
    let http = PortSpec { name: Some(label("http")), app_protocol: Some("http".into()), ..port(8082) };
    put(&mut world, 2, key("default", "catalog"), ServiceRecord { accounts, ..service(20, vec![http]) });
    let pods = BTreeMap::from([
        (label("users-0"), PodRecord { ready: true, tunnelled: true }),
        (label("users-1"), PodRecord { ready: false, tunnelled: false }),
    ]);
    let users = ServiceRecord { headless: true, pods, total: 2, ..service(30, vec![port(5432)]) };
    put(&mut world, 2, key("default", "users"), users);
    put(&mut world, 2, key("internal", "hidden"), service(30, vec![port(1)]));
    allocate(&mut world);
    world
}

fn spec(world: &World, receiver: u8, wanted: &str) -> NameSpec {
    match snapshot(world, cluster_id(receiver)).get(&ResourceKey::new("name", wanted)) {
        Some(ClusterResource::Name(spec)) => NameSpec::clone(spec),
        other => panic!("{wanted}: {other:?}"),
    }
}

#[test]
fn the_shop_as_the_first_cluster_sees_it() {
    insta::assert_snapshot!(text(&snapshot(&shop(), cluster_id(1))));
}

#[test]
fn a_difference_for_people() {
    let old = shop();
    let mut new = old.clone();
    put(&mut new, 1, key("default", "catalog"), service(40, vec![port(8082), port(9090)]));
    new.inventories.get_mut(&cluster_id(2)).unwrap().services.remove(&key("default", "users"));
    allocate(&mut new);
    insta::assert_snapshot!(diff(&snapshot(&old, cluster_id(1)), &snapshot(&new, cluster_id(1))));
}

#[test]
fn the_older_wins_a_port() {
    let mut world = shop();
    let udp = PortSpec { protocol: Protocol::Udp, ..port(53) };
    let grpc = PortSpec { app_protocol: Some("grpc".into()), ..port(8082) };
    let other_http = PortSpec { name: Some(label("http")), ..port(80) };
    put(&mut world, 1, key("default", "catalog"), service(50, vec![port(53), grpc, other_http, port(7)]));
    put(&mut world, 2, key("default", "other"), service(50, vec![port(53)]));
    put(&mut world, 1, key("default", "other"), service(50, vec![udp.clone(), port(53)]));
    allocate(&mut world);

    let catalog = spec(&world, 1, "catalog.acme.example.com");
    assert_eq!(catalog.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [7, 53, 8082]);
    assert_eq!(*catalog.targets[0].ports, [7, 53], "what the own cluster keeps");
    assert_eq!(*catalog.targets[1].ports, [8082]);
    // By the cluster's own name nothing is in its way.
    let own = spec(&world, 2, "catalog.cluster-1.acme.example.com");
    assert_eq!(own.ports.iter().map(|p| p.port).collect::<Vec<_>>(), [7, 53, 80, 8082]);
    // Equal age: the smaller cluster id. One service with both transports: TCP, which is carried.
    assert_eq!(spec(&world, 2, "other.acme.example.com").ports.as_slice(), [port(53)]);

    let found = conflicts(&world);
    let of = |service: &str| -> Vec<_> {
        let all = found.iter().filter(|c| c.service == Some(label(service)));
        all.map(|c| (c.port.unwrap(), c.reason.clone())).collect()
    };
    assert_eq!(of("catalog"), [(80, Reason::PortName(label("http"))), (8082, Reason::AppProtocol)]);
    assert_eq!(of("other"), [(53, Reason::Protocol)]);
    assert_eq!(
        found[0].to_string(),
        "port 80 of cluster-1/default/catalog is left out: cluster-2/default/catalog, which is older, has another port \
         called http"
    );
}

#[test]
fn one_service_over_clusters_and_namespaces() {
    let mut world = shop();
    for gns in world.gns.values_mut() {
        gns.rules[0].namespace = Selector::Labels(labels(&[]));
    }
    put(
        &mut world,
        2,
        key("blue", "catalog"),
        ServiceRecord { ready: 3, tunnelled: 0, ..service(5, vec![port(8082)]) },
    );
    put(
        &mut world,
        1,
        key("default", "catalog"),
        ServiceRecord { ready: 2, tunnelled: 2, ..service(6, vec![port(8082)]) },
    );
    allocate(&mut world);
    let catalog = spec(&world, 1, "catalog.acme.example.com");
    let seen: Vec<_> = catalog
        .targets
        .iter()
        .map(|t| (t.cluster.as_str(), t.ready, t.services.len(), t.end_to_end))
        .collect();
    use tombolo_model::snapshot::EndToEnd::{All, Some};
    assert_eq!(seen, [("cluster-1", 2, 1, All), ("cluster-2", 4, 2, Some)]);
    assert!(names_needed(&world).contains(&name("hidden.acme.example.com")));
}

#[test]
fn endpoints_that_are_not_ready_keep_the_demand_for_tls_end_to_end() {
    use tombolo_model::snapshot::EndToEnd::{All, None, Some};
    for (ready, total, tunnelled, expected) in [
        (2, 2, 2, All),
        (1, 2, 1, All),
        (0, 2, 2, All),
        (0, 2, 1, Some),
        (0, 2, 0, None),
        (0, 0, 0, None),
        (2, 2, 1, Some),
    ] {
        let mut world = shop();
        let record = ServiceRecord { ready, total, tunnelled, ..service(5, vec![port(8082)]) };
        put(&mut world, 2, key("default", "catalog"), record);
        allocate(&mut world);
        let targets = spec(&world, 1, "catalog.acme.example.com").targets;
        assert_eq!(targets.len(), 1);
        assert_eq!(
            (targets[0].ready, targets[0].end_to_end),
            (ready, expected),
            "{tunnelled} of {ready} of {total}"
        );
    }
}

#[test]
fn a_service_called_like_a_cluster_has_no_pod_names() {
    let mut world = shop();
    let pods = BTreeMap::from([(label("shopping"), PodRecord { ready: true, tunnelled: true })]);
    put(
        &mut world,
        2,
        key("default", "cluster-1"),
        ServiceRecord { headless: true, pods, ..service(1, vec![port(1)]) },
    );
    allocate(&mut world);
    let both = spec(&world, 1, "shopping.cluster-1.acme.example.com");
    assert_eq!(both.kind, tombolo_model::snapshot::NameKind::ServiceInCluster);
    let like = spec(&world, 1, "cluster-1.acme.example.com");
    assert!(!like.headless, "without pods' names its own address is the answer");
    let found = conflicts(&world);
    assert!(
        matches!(found[..], [tombolo_compile::Conflict { reason: Reason::PodNames(_), .. }]),
        "{found:?}"
    );
    assert!(found[0].to_string().contains("rename the service"));
}

#[test]
fn a_pods_name_becomes_a_services_name_in_a_cluster() {
    // Labels that sort on both sides of "cluster-1": whichever service is looked at first, the name has one owner.
    for other in ["catalog", "zebra"] {
        let mut world = shop();
        world.clusters.remove(&cluster_id(1));
        let pods = BTreeMap::from([(label(other), PodRecord { ready: true, tunnelled: true })]);
        let like = ServiceRecord { headless: true, pods, ..service(1, vec![port(1)]) };
        put(&mut world, 2, key("default", "cluster-1"), like);
        put(&mut world, 1, key("default", other), service(1, vec![port(1)]));
        let mut all = Incremental::new(world);
        let name = name(&format!("{other}.cluster-1.acme.example.com"));
        assert!(all.names().any(|n| *n == name), "of the pod");
        all.apply(Change::Cluster(cluster(1)));
        assert_eq!(all.names().cloned().collect::<BTreeSet<_>>(), names_needed(all.world()));
        all.apply(Change::ClusterGone(cluster_id(1)));
        assert_eq!(all.names().cloned().collect::<BTreeSet<_>>(), names_needed(all.world()));
        assert!(all.names().any(|n| *n == name), "of the pod again");
    }
}

#[test]
fn names_too_long_are_reported() {
    let mut world = shop();
    let domain = ["a".repeat(60), "b".repeat(60), "c".repeat(50), "example.com".into()].join(".");
    let long = gns(2, &domain);
    world.gns.insert(long.id, long);
    put(&mut world, 1, key("default", &"s".repeat(60)), service(1, vec![port(1)]));
    allocate(&mut world);
    let found = conflicts(&world);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(matches!(&found[0].reason, Reason::TooLong(text) if text.ends_with(".cluster-1")));
    assert!(check(&snapshot(&world, cluster_id(1))).iter().all(|f| f.severity() < Severity::Fatal));
}

#[test]
fn the_younger_of_two_overlapping_domains_is_not_in_force() {
    let mut world = shop();
    let inner = gns(2, "eu.acme.example.com");
    world.gns.insert(inner.id, inner);
    let found = conflicts(&world);
    assert!(matches!(&found[..], [one] if matches!(one.reason, Reason::Overlap(_))));
    assert!(names_needed(&world).iter().all(|name| !name.as_str().ends_with("eu.acme.example.com")));
}

#[test]
fn a_revoked_cluster_serves_nothing_and_learns_nothing() {
    let mut all = Incremental::new(shop());
    let mut revoked = cluster(2);
    revoked.intermediates.clear();
    let affected = all.apply(Change::Cluster(revoked));
    assert!(matches!(affected.clusters[&cluster_id(2)], ClusterChange::Whole(_)));
    assert_eq!(all.snapshot(cluster_id(2)).len(), 2, "itself and the bundle");
    let ClusterChange::Parts { upserts, removes } = &affected.clusters[&cluster_id(1)] else { panic!() };
    assert!(removes.contains(&ResourceKey::new("peer", "cluster-2")));
    assert!(removes.contains(&ResourceKey::new("name", "catalog.acme.example.com")));
    let ClusterResource::Bundle(bundle) = &upserts[&ResourceKey::new("bundle", "")] else { panic!() };
    assert_eq!(bundle.clusters.keys().map(|c| c.as_str()).collect::<Vec<_>>(), ["cluster-1"]);
}

#[test]
fn an_endpoint_flap_touches_two_names_of_the_members() {
    let mut world = shop();
    let mut outside = cluster(3);
    outside.labels = labels(&[("env", "dev")]);
    world.clusters.insert(cluster_id(3), outside);
    for gns in world.gns.values_mut() {
        gns.rules = ["cluster-1", "cluster-2"]
            .map(|name| tombolo_model::intent::MappingRule {
                cluster: Selector::Name(tombolo_model::ClusterName::parse(name).unwrap()),
                namespace: Selector::Labels(labels(&[])),
            })
            .to_vec();
    }
    allocate(&mut world);
    let mut all = Incremental::new(world);
    let mut record = all.world().inventories[&cluster_id(2)].services[&key("default", "catalog")].clone();
    record.ready = 0;
    let affected = all.apply(Change::Inventoried {
        cluster: cluster_id(2),
        namespaces: BTreeMap::new(),
        services: BTreeMap::from([(key("default", "catalog"), Some(record))]),
    });
    assert_eq!(affected.clusters.len(), 2, "nothing for the cluster that does not import it");
    for change in affected.clusters.values() {
        let ClusterChange::Parts { upserts, removes } = change else { panic!() };
        assert_eq!((upserts.len(), removes.len()), (2, 0));
    }
}

#[test]
fn the_second_opinion_finds_what_is_wrong() {
    let good = snapshot(&shop(), cluster_id(1));
    assert_eq!(check(&good), []);
    let broken = |change: &dyn Fn(&mut NameSpec)| {
        let mut all = good.clone();
        let at = ResourceKey::new("name", "catalog.acme.example.com");
        if let Some(ClusterResource::Name(spec)) = all.get_mut(&at) {
            change(spec);
        }
        check(&all).into_iter().map(|f| f.flaw).collect::<Vec<_>>()
    };
    let shopping = name("shopping.acme.example.com");
    let vip = spec(&shop(), 1, shopping.as_str()).vip;
    assert!(broken(&|s| s.vip = vip).contains(&Flaw::SharedVip(name("catalog.acme.example.com"))));
    assert!(broken(&|s| s.ports.push(port(8082))).contains(&Flaw::Port(8082)));
    assert!(broken(&|s| s.targets.push(s.targets[0].clone())).contains(&Flaw::Order));
    let far = cluster(9).name;
    let flaws = broken(&|s| s.targets[0].cluster = far.clone());
    for flaw in
        [Flaw::ForeignTarget(far.clone()), Flaw::UntrustedTarget(far.clone()), Flaw::NoPeer(far.clone())]
    {
        assert!(flaws.contains(&flaw), "{flaws:?}");
    }
    for (gone, flaw) in [("self", Flaw::NoSelf), ("bundle", Flaw::NoBundle)] {
        let mut all = good.clone();
        all.remove(&ResourceKey::new(gone, ""));
        assert_eq!(check(&all)[0].flaw, flaw);
    }
    let mut all = good.clone();
    all.remove(&ResourceKey::new("domain", "acme.example.com"));
    assert!(check(&all).iter().any(|f| f.flaw == Flaw::OutsideDomain));
}

#[test]
fn global_namespaces_choose_capture_modes() {
    let mut world = shop();
    let mode = |world: &World, namespace: &str| {
        let key = ResourceKey::new("capture", namespace);
        match snapshot(world, cluster_id(1)).remove(&key) {
            Some(ClusterResource::Capture(capture)) => Some(CaptureSpec::clone(&capture)),
            _ => None,
        }
    };
    let choose = |world: &mut World, n: u8, domain: &str, namespace: &str, capture: Option<CaptureMode>| {
        let mut gns = gns(n, domain);
        gns.rules[0].namespace = Selector::Name(NamespaceName::parse(namespace).unwrap());
        gns.capture = capture;
        world.gns.insert(gns.id, gns);
    };
    assert_eq!(mode(&world, "default"), None, "nobody said");
    choose(&mut world, 1, "acme.example.com", "default", Some(CaptureMode::Sidecar));
    choose(&mut world, 2, "zoo.example.com", "default", Some(CaptureMode::Node));
    choose(&mut world, 3, "bank.example.com", "default", Some(CaptureMode::Sidecar));
    choose(&mut world, 4, "quiet.example.com", "default", None);
    let wanted = CaptureSpec {
        namespace: NamespaceName::parse("default").unwrap(),
        mode: CaptureMode::Sidecar,
        gns: label("acme"),
        against: BTreeMap::from([(label("zoo"), CaptureMode::Node)]),
    };
    assert_eq!(
        mode(&world, "default"),
        Some(wanted),
        "the first by name, though the last to come may be older"
    );
    choose(&mut world, 2, "zoo.example.com", "later", Some(CaptureMode::Node));
    assert_eq!(
        mode(&world, "later").map(|capture| capture.mode),
        Some(CaptureMode::Node),
        "before it is there"
    );
    assert_eq!(mode(&world, "internal"), None);
    // What is told must be of a global namespace that the cluster has a part in.
    let mut told = snapshot(&world, cluster_id(1));
    told.remove(&ResourceKey::new("domain", "zoo.example.com"));
    let flaws: Vec<_> = check(&told).into_iter().map(|finding| finding.flaw).collect();
    assert_eq!(flaws, [Flaw::OtherGns(label("zoo"))]);
    // A change tells the cluster the new mode.
    let mut all = Incremental::new(world);
    let mut zoo = all.world().gns[&crate::common::gns_id(2)].clone();
    zoo.capture = Some(CaptureMode::Sidecar);
    let affected = all.apply(Change::Gns(zoo));
    assert_eq!(affected.clusters.len(), 2, "both are members");
    assert_eq!(mode(all.world(), "later").map(|capture| capture.mode), Some(CaptureMode::Sidecar));
}
