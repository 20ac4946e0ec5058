//! Worlds for the tests: small ones by hand, and random ones of few names so that things collide.

use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};
use tombolo_compile::{Change, Incremental, World};
use tombolo_model::{
    AccountName, ClusterName, DnsLabel, Domain, GlobalName, Locality, NamespaceName, OrgName, TrustDomain,
    id::{ClusterId, GnsId, OrgId},
    install::{InstallOrder, Trial},
    intent::{CaptureMode, Cluster, GlobalNamespace, Labels, MappingRule, Organization, Selector},
    inventory::{Inventory, NamespaceRecord, PodRecord, PortSpec, Protocol, ServiceKey, ServiceRecord},
    mcs::{ExportRecord, ExportedPort, SessionAffinity, Traits, Transport},
    snapshot::{CaFingerprint, Vip},
};
use uuid::Uuid;

pub(crate) fn cluster_id(n: u8) -> ClusterId {
    ClusterId::new(Uuid::from_u128(u128::from(n)))
}

pub(crate) fn gns_id(n: u8) -> GnsId {
    GnsId::new(Uuid::from_u128(100 + u128::from(n)))
}

pub(crate) fn label(text: &str) -> DnsLabel {
    DnsLabel::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> GlobalName {
    GlobalName::parse(text).unwrap()
}

pub(crate) fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: NamespaceName::parse(namespace).unwrap(), name: label(name) }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn empty() -> World {
    let mut world = World::new(Organization {
        id: OrgId::new(Uuid::from_u128(1)),
        name: OrgName::parse("acme").unwrap(),
        trust_domain: TrustDomain::parse("acme.tombolo.internal").unwrap(),
    });
    world.roots = vec!["-----BEGIN CERTIFICATE-----".to_owned()];
    world
}

pub(crate) fn cluster(n: u8) -> Cluster {
    Cluster {
        id: cluster_id(n),
        name: ClusterName::parse(&format!("cluster-{n}")).unwrap(),
        labels: Labels::new(),
        locality: Locality { region: Some("eu".to_owned()), zone: Some(format!("eu-{n}")) },
        intermediates: BTreeSet::from([CaFingerprint::new([n; 32])]),
        ingress: BTreeSet::from([format!("192.0.2.{n}:15443")]),
        install: None,
        trial: None,
    }
}

pub(crate) fn gns(n: u8, domain: &str) -> GlobalNamespace {
    GlobalNamespace {
        id: gns_id(n),
        name: label(domain.split('.').next().unwrap()),
        domain: Domain::parse(domain).unwrap(),
        rules: vec![MappingRule {
            cluster: Selector::Labels(Labels::new()),
            namespace: Selector::Name(NamespaceName::parse("default").unwrap()),
        }],
        capture: None,
    }
}

pub(crate) fn port(number: u16) -> PortSpec {
    PortSpec { port: number, protocol: Protocol::Tcp, name: None, app_protocol: None }
}

pub(crate) fn service(created_s: i64, ports: Vec<PortSpec>) -> ServiceRecord {
    ServiceRecord {
        created_s,
        ports: ports.into(),
        headless: false,
        ready: 1,
        total: 1,
        tunnelled: 1,
        accounts: [AccountName::parse("default").unwrap()].into(),
        pods: BTreeMap::new(),
        export: None,
    }
}

pub(crate) fn exported_port(name: &str, port: u16, protocol: Transport) -> ExportedPort {
    ExportedPort { name: Some(label(name)), port, protocol, app_protocol: None }
}

/// The service, exported at a time.
pub(crate) fn exported(record: ServiceRecord, created_s: i64) -> ServiceRecord {
    let transport = |port: &PortSpec| match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let exported = |port: &PortSpec| ExportedPort {
        name: port.name.clone(),
        port: port.port,
        protocol: transport(port),
        app_protocol: port.app_protocol.clone(),
    };
    let ports = record.ports.iter().map(exported).collect();
    let export = ExportRecord {
        created_s,
        traits: Traits { ports, ..Traits::default() },
        labels: Labels::new(),
        annotations: Labels::new(),
    };
    ServiceRecord { export: Some(export.into()), ..record }
}

/// The namespace of a cluster, in which its agent makes ServiceImports.
pub(crate) fn importing(world: &mut World, cluster: u8, namespace: &str) {
    let inventory = world.inventories.entry(cluster_id(cluster)).or_default();
    inventory.namespaces.entry(NamespaceName::parse(namespace).unwrap()).or_default().imports = true;
}

pub(crate) fn put(world: &mut World, cluster: u8, at: ServiceKey, record: ServiceRecord) {
    let inventory = world.inventories.entry(cluster_id(cluster)).or_default();
    inventory.namespaces.entry(at.namespace.clone()).or_default();
    inventory.services.insert(at, record);
}

pub(crate) fn vip(index: u32) -> Vip {
    let v4 = Ipv4Addr::from(0xf000_0000 + index);
    Vip { v4, v6: Ipv6Addr::from((0xfd74_6f6d_6265_6c6f_u128 << 64) + u128::from(index)) }
}

/// Gives every name that wants one an address, as the controller does.
pub(crate) fn allocate(world: &mut World) {
    let mut next = world.vips.values().map(|vip| u32::from(vip.v4) - 0xf000_0000).max().unwrap_or(0) + 1;
    for name in tombolo_compile::names_needed(world) {
        world.vips.entry(name).or_insert_with(|| {
            next += 1;
            vip(next - 1)
        });
    }
}

/// What one change of a random sequence does; the runner knows the state.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Change(Change),
    /// One thing of a cluster is different, and all else is as it was.
    Tweak(u8, Tweak),
    /// Give addresses to the names that asked for them so far.
    Allocate,
    /// Take the addresses of names that are no more.
    Release,
}

/// One thing of a cluster.
#[derive(Clone, Debug)]
pub(crate) enum Tweak {
    Ingress(u8),
    Zone(u8),
    Labels(Labels),
    /// Zero: revoked.
    Prints(u8),
    Name,
    /// Zero: nobody said.
    Install(u8),
    /// Zero: nobody tries anything.
    Trial(u8),
}

impl Tweak {
    pub(crate) fn of(self, mut cluster: Cluster) -> Change {
        match self {
            Self::Ingress(port) => cluster.ingress = BTreeSet::from([format!("192.0.2.9:{port}")]),
            Self::Zone(zone) => cluster.locality.zone = Some(format!("eu-{zone}")),
            Self::Labels(labels) => cluster.labels = labels,
            Self::Prints(prints) => {
                cluster.intermediates = (0..prints).map(|print| CaFingerprint::new([print; 32])).collect();
            }
            Self::Install(0) => cluster.install = None,
            Self::Install(revision) => {
                cluster.install = Some(Box::new(InstallOrder::Removed { revision: u64::from(revision) }));
            }
            Self::Trial(0) => cluster.trial = None,
            Self::Trial(number) => {
                let spec = r#"{"version":"1","registry":"r"}"#;
                let spec = serde_json::from_str(spec).unwrap();
                cluster.trial = Some(Box::new(Trial { number: number.into(), spec }));
            }
            // names are one in an organization
            Self::Name => cluster.name = ClusterName::parse(&format!("was-{}", cluster.id)).unwrap(),
        }
        Change::Cluster(cluster)
    }
}

fn some_tweak() -> impl Strategy<Value = Tweak> {
    prop_oneof![
        3 => (0u8..3).prop_map(Tweak::Ingress),
        3 => (0u8..3).prop_map(Tweak::Zone),
        2 => some_labels().prop_map(Tweak::Labels),
        2 => (0u8..3).prop_map(Tweak::Prints),
        1 => Just(Tweak::Name),
        2 => (0u8..3).prop_map(Tweak::Install),
        2 => (0u8..3).prop_map(Tweak::Trial),
    ]
}

const NAMESPACES: [&str; 3] = ["default", "web", "data"];
const SERVICES: [&str; 5] = ["catalog", "cart", "db", "cluster-1", "cluster-2"];
const DOMAINS: [&str; 4] =
    ["acme.example.com", "beta.example.com", "eu.acme.example.com", "cluster-1.beta.example.com"];

fn some_labels() -> impl Strategy<Value = Labels> {
    prop::option::of(prop::sample::select(vec!["prod", "dev"]))
        .prop_map(|env| env.map(|env| labels(&[("env", env)])).unwrap_or_default())
}

fn some_namespace() -> impl Strategy<Value = NamespaceName> {
    prop::sample::select(&NAMESPACES[..]).prop_map(|name| NamespaceName::parse(name).unwrap())
}

fn some_cluster() -> impl Strategy<Value = Cluster> {
    (1u8..5, some_labels(), 0u8..3, 0u8..4, 0u8..3, 0u8..12).prop_map(
        |(n, labels, zone, prints, ports, called)| {
            let mut cluster = cluster(n);
            if called == 0 {
                cluster.name = ClusterName::parse(&format!("renamed-{n}")).unwrap();
            }
            cluster.labels = labels;
            cluster.locality.zone = Some(format!("eu-{zone}"));
            cluster.intermediates =
                (1..prints).map(|print| CaFingerprint::new([n * 16 + print; 32])).collect();
            cluster.ingress = (0..ports).map(|port| format!("192.0.2.{n}:{port}")).collect();
            cluster
        },
    )
}

fn some_gns() -> impl Strategy<Value = GlobalNamespace> {
    let rule = (
        prop_oneof![
            (1u8..5).prop_map(|n| Selector::Name(cluster(n).name)),
            some_labels().prop_map(Selector::Labels)
        ],
        prop_oneof![some_namespace().prop_map(Selector::Name), some_labels().prop_map(Selector::Labels)],
    );
    let rules =
        prop::collection::vec(rule.prop_map(|(cluster, namespace)| MappingRule { cluster, namespace }), 0..3);
    let modes = vec![None, Some(CaptureMode::Sidecar), Some(CaptureMode::Node)];
    (0u8..4, prop::sample::select(&DOMAINS[..]), rules, prop::sample::select(modes)).prop_map(
        |(n, domain, rules, capture)| {
            let mut gns = gns(n, domain);
            (gns.rules, gns.capture) = (rules, capture);
            gns
        },
    )
}

fn some_port() -> impl Strategy<Value = PortSpec> {
    (
        80u16..83,
        prop::sample::select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp]),
        prop::option::of(prop::sample::select(vec!["http", "db"])),
        prop::option::of(prop::sample::select(vec!["http", "grpc"])),
    )
        .prop_map(|(port, protocol, name, app)| PortSpec {
            port,
            protocol,
            name: name.map(label),
            app_protocol: app.map(str::to_owned),
        })
}

fn some_key() -> impl Strategy<Value = ServiceKey> {
    (some_namespace(), prop::sample::select(&SERVICES[..])).prop_map(|(ns, name)| key(ns.as_str(), name))
}

fn some_service() -> impl Strategy<Value = ServiceRecord> {
    let pods = prop::collection::btree_map(
        prop::sample::select(vec!["db-0", "db-1", "catalog"]).prop_map(label),
        (any::<bool>(), any::<bool>()).prop_map(|(ready, tunnelled)| PodRecord { ready, tunnelled }),
        0..3,
    );
    let export = prop::option::of(some_export());
    (0i64..4, prop::collection::vec(some_port(), 0..4), any::<bool>(), 0u32..3, 0u32..3, pods, export)
        .prop_map(|(created_s, ports, headless, ready, tunnelled, pods, export)| {
            let tunnelled = tunnelled.min(ready);
            let export = export.map(Box::new);
            ServiceRecord { headless, ready, tunnelled, pods, export, ..service(created_s, ports) }
        })
}

/// The ports are its own, whatever the Service has: what is reported may be odd, and must lead to no contradiction.
fn some_export() -> impl Strategy<Value = ExportRecord> {
    let transports = vec![Transport::Tcp, Transport::Udp, Transport::Sctp];
    let port = (
        prop::option::of(prop::sample::select(vec!["http", "db"])),
        80u16..83,
        prop::sample::select(transports),
    );
    let port = port.prop_map(|(name, port, protocol)| ExportedPort {
        name: name.map(label),
        port,
        protocol,
        app_protocol: None,
    });
    let affinity = prop_oneof![Just(SessionAffinity::None), (1u32..3).prop_map(SessionAffinity::ClientIp)];
    let text = || prop::option::of(prop::sample::select(vec!["Local".to_owned(), "Cluster".to_owned()]));
    (0i64..3, prop::collection::vec(port, 0..3), affinity, text(), text(), some_labels()).prop_map(
        |(created_s, ports, affinity, internal_traffic_policy, traffic_distribution, labels)| ExportRecord {
            created_s,
            traits: Traits { ports, affinity, internal_traffic_policy, traffic_distribution },
            annotations: labels.clone(),
            labels,
        },
    )
}

fn some_record() -> impl Strategy<Value = NamespaceRecord> {
    (some_labels(), any::<bool>()).prop_map(|(labels, imports)| NamespaceRecord { labels, imports })
}

fn some_inventory() -> impl Strategy<Value = Inventory> {
    let namespaces = prop::collection::btree_map(some_namespace(), some_record(), 0..3);
    let services = prop::collection::btree_map(some_key(), some_service(), 0..5);
    (namespaces, services).prop_map(|(namespaces, services)| Inventory { namespaces, services })
}

fn some_change() -> impl Strategy<Value = Change> {
    let namespaces = prop::collection::btree_map(some_namespace(), prop::option::of(some_record()), 0..2);
    let services = prop::collection::btree_map(some_key(), prop::option::weighted(0.8, some_service()), 0..4);
    prop_oneof![
        4 => some_cluster().prop_map(Change::Cluster),
        1 => (1u8..5).prop_map(|n| Change::ClusterGone(cluster_id(n))),
        3 => some_gns().prop_map(Change::Gns),
        1 => (0u8..4).prop_map(|n| Change::GnsGone(gns_id(n))),
        3 => (1u8..5, some_inventory()).prop_map(|(n, all)| Change::Inventory(cluster_id(n), all)),
        6 => (1u8..5, namespaces, services)
            .prop_map(|(n, namespaces, services)| Change::Inventoried { cluster: cluster_id(n), namespaces, services }),
        1 => Just(Change::Roots(vec!["another".to_owned()])),
        1 => prop::sample::select(vec!["acme.tombolo.internal", "acme.internal"]).prop_map(|domain| {
            Change::Organization(Organization {
                trust_domain: TrustDomain::parse(domain).unwrap(),
                ..empty().organization
            })
        }),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => some_change().prop_map(Step::Change),
        4 => (1u8..5, some_tweak()).prop_map(|(n, tweak)| Step::Tweak(n, tweak)),
        3 => Just(Step::Allocate),
        1 => Just(Step::Release),
    ];
    prop::collection::vec(step, 1..25)
}

/// A world of random content, every name with its addresses. It begins with clusters that share a namespace, so that
/// what follows touches something.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    let begin = (prop::collection::vec(some_inventory(), 3), 0u8..4);
    (begin, prop::collection::vec(some_change(), 0..12)).prop_map(|((inventories, clusters), changes)| {
        let mut world = empty();
        let mut everything = gns(0, DOMAINS[0]);
        everything.rules[0].namespace = Selector::Labels(Labels::new());
        everything.capture = Some(CaptureMode::Sidecar);
        world.gns.insert(everything.id, everything);
        for (n, inventory) in (1..=clusters).zip(inventories) {
            world.clusters.insert(cluster_id(n), cluster(n));
            world.inventories.insert(cluster_id(n), inventory);
        }
        let mut all = Incremental::new(world);
        for change in changes {
            all.apply(change);
        }
        let mut world = all.world().clone();
        allocate(&mut world);
        world
    })
}
