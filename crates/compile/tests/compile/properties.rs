//! What holds for every world and every sequence of changes.

use crate::common::{Step, cluster_id, steps, vip, worlds};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_compile::{
    Affected, Change, ClusterChange, Incremental, Severity, Wanted, check, conflicts, diff, names_needed,
    snapshot, text,
};
use tombolo_model::{
    ClusterName, GlobalName,
    id::ClusterId,
    intent::{GlobalNamespace, MappingRule, Selector},
    inventory::{ServiceKey, ServiceRecord},
    mcs::{ImportKind, Traits},
    snapshot::{ClusterResource, NameKind, NameSpec, ResourceKey, Resources},
};

type Told = BTreeMap<ClusterId, Resources<ClusterResource>>;

/// What the receivers have after being told.
fn tell(told: &mut Told, affected: &Affected) {
    for (cluster, change) in &affected.clusters {
        match change {
            ClusterChange::Whole(all) => drop(told.insert(*cluster, all.clone())),
            ClusterChange::Parts { upserts, removes } => {
                let state = told.entry(*cluster).or_default();
                assert!(removes.iter().all(|key| !upserts.contains_key(key)), "both there and gone");
                state.retain(|key, _| !removes.contains(key));
                state.extend(upserts.clone());
            }
            ClusterChange::Gone => drop(told.remove(cluster)),
        }
    }
}

/// The clusters, and who of them is believed.
fn who_stands(all: &Incremental) -> impl PartialEq + use<> {
    let world = all.world();
    let clusters: Vec<_> =
        world.clusters.values().map(|c| (c.id, c.name.clone(), c.intermediates.clone())).collect();
    (world.organization.trust_domain.clone(), world.roots.clone(), clusters)
}

fn bytes(resources: &Resources<ClusterResource>) -> String {
    serde_json::to_string(resources).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_full(world in worlds(), steps in steps()) {
        let mut told: Told = world.clusters.keys().map(|id| (*id, snapshot(&world, *id))).collect();
        let names = names_needed(&world);
        let mut released: BTreeSet<_> = world.vips.keys().filter(|name| !names.contains(*name)).cloned().collect();
        let (mut needed, mut index) = (BTreeSet::new(), 1000);
        let mut all = Incremental::new(world);
        for step in steps {
            let change = match step {
                Step::Change(change) => change,
                Step::Tweak(n, tweak) => match all.world().clusters.get(&cluster_id(n)) {
                    Some(cluster) => tweak.of(cluster.clone()),
                    None => continue,
                },
                Step::Allocate => {
                    let names: BTreeSet<GlobalName> = std::mem::take(&mut needed);
                    Change::Vips(names.into_iter().map(|name| { index += 1; (name, Some(vip(index))) }).collect())
                }
                Step::Release => {
                    let names: BTreeSet<GlobalName> = std::mem::take(&mut released);
                    Change::Vips(names.into_iter().map(|name| (name, None)).collect())
                }
            };
            let stood = who_stands(&all);
            let affected = all.apply(change.clone());
            prop_assert!(affected.standing || stood == who_stands(&all), "others stand, and it is not said");
            prop_assert_eq!(all.apply(change), Affected::default(), "said twice");
            tell(&mut told, &affected);
            needed.extend(affected.needed);
            released.extend(affected.released);
            let names = names_needed(all.world());
            needed.retain(|name| names.contains(name));
            released.retain(|name| !names.contains(name));

            prop_assert_eq!(&all.names().cloned().collect::<BTreeSet<_>>(), &names);
            prop_assert_eq!(all.conflicts(), conflicts(all.world()));
            let waiting: BTreeSet<_> = names.iter().filter(|n| !all.world().vips.contains_key(*n)).cloned().collect();
            prop_assert_eq!(&needed, &waiting);
            let over: BTreeSet<_> = all.world().vips.keys().filter(|n| !names.contains(*n)).cloned().collect();
            prop_assert_eq!(&released, &over);
            prop_assert_eq!(told.keys().collect::<Vec<_>>(), all.world().clusters.keys().collect::<Vec<_>>());
            for (cluster, state) in &told {
                let full = snapshot(all.world(), *cluster);
                prop_assert_eq!(state, &full, "{}", diff(state, &full));
                prop_assert_eq!(bytes(&all.snapshot(*cluster)), bytes(&full));
            }
        }
    }

    #[test]
    fn replacing_the_world_equals_full(one in worlds(), two in worlds()) {
        let mut all = Incremental::new(one.clone());
        let mut told: Told = one.clusters.keys().map(|id| (*id, snapshot(&one, *id))).collect();
        let affected = all.replace(&two);
        tell(&mut told, &affected);
        prop_assert!(affected.needed.is_empty(), "every name of the second world has its addresses");
        prop_assert_eq!(told, two.clusters.keys().map(|id| (*id, snapshot(&two, *id))).collect::<Told>());
        prop_assert_eq!(all.replace(&two), Affected::default());
    }

    #[test]
    fn lists_have_what_snapshots_have(world in worlds()) {
        let all = Incremental::new(world);
        let world = all.world();
        let listed = |wanted: Wanted<'_>, after: Option<&str>| {
            all.listed(&wanted, after).filter_map(|listed| listed.spec()).collect::<Vec<NameSpec>>()
        };
        let whole = listed(Wanted::default(), None);
        prop_assert!(whole.is_sorted_by(|one, next| one.name < next.name));
        let mut told: BTreeMap<GlobalName, BTreeSet<ClusterName>> = BTreeMap::new();
        for id in world.clusters.keys() {
            for resource in all.snapshot(*id).into_values() {
                let ClusterResource::Name(name) = resource else { continue };
                let of_set = name.domain.as_str() == "clusterset.local";
                if !of_set || name.kind != NameKind::ServiceInCluster {
                    let targets = name.targets.iter().map(|target| target.cluster.clone());
                    told.entry(name.name.clone()).or_default().extend(targets);
                }
            }
        }
        let shown = |name: &NameSpec| (name.name.clone(), name.targets.iter().map(|t| t.cluster.clone()).collect());
        prop_assert_eq!(&whole.iter().map(shown).collect::<BTreeMap<_, _>>(), &told);
        for (at, name) in whole.iter().enumerate() {
            prop_assert_eq!(&listed(Wanted::default(), Some(name.name.as_str()))[..], &whole[at + 1..]);
            let found = all.named(name.name.as_str()).and_then(|listed| listed.spec());
            prop_assert_eq!(found.as_ref(), Some(name));
        }
        let of_gns = |gns: &str| {
            let of_it = all.listed(&Wanted::default(), None).filter(|l| l.gns().map_or("clusterset", |gns| gns.as_str()) == gns);
            of_it.filter_map(|listed| listed.spec()).collect::<Vec<_>>()
        };
        for gns in world.gns.values().map(|gns| gns.name.as_str()).chain(["clusterset", "nobody"]) {
            let (wanted, of_it) = (Wanted { gns: Some(gns), cluster: None }, of_gns(gns));
            prop_assert_eq!(&listed(wanted, None), &of_it);
            for (at, name) in of_it.iter().enumerate() {
                prop_assert_eq!(&listed(wanted, Some(name.name.as_str()))[..], &of_it[at + 1..]);
            }
        }
        for cluster in world.clusters.values() {
            let wanted = Wanted { gns: None, cluster: Some(cluster.id) };
            let served = whole.iter().filter(|name| name.targets.iter().any(|t| t.cluster == cluster.name));
            prop_assert_eq!(listed(wanted, None), served.cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_holds_for_every_snapshot(world in worlds()) {
        let names = names_needed(&world);
        let mut seen = BTreeSet::new();
        for (id, cluster) in &world.clusters {
            let all = snapshot(&world, *id);
            prop_assert_eq!(bytes(&all), bytes(&snapshot(&world.clone(), *id)), "equal input, equal bytes");
            let read: Resources<ClusterResource> = serde_json::from_str(&bytes(&all)).unwrap();
            prop_assert_eq!(&read, &all, "what is written can be read");
            let fatal: Vec<_> = check(&all).into_iter().filter(|f| f.severity() == Severity::Fatal).collect();
            prop_assert!(fatal.is_empty(), "{:?}\n{}", fatal, text(&all));
            for resource in all.values() {
                let (domain, members) = match resource {
                    ClusterResource::Name(spec) => {
                        seen.insert(spec.name.clone());
                        prop_assert_eq!(spec.vip, world.vips[&spec.name]);
                        (&spec.domain, None)
                    }
                    ClusterResource::Domain(spec) => (&spec.domain, Some(&spec.members)),
                    _ => continue,
                };
                if domain.is_cluster_set() {
                    prop_assert!(!cluster.intermediates.is_empty());
                    prop_assert!(world.inventories[id].namespaces.values().any(|record| record.imports));
                    prop_assert!(members.is_none_or(|members| members.contains(&cluster.name)));
                    continue;
                }
                // Nothing of a GNS reaches a cluster that no rule of it chooses, or that has not joined.
                let gns = world.gns.values().filter(|gns| gns.domain == *domain);
                let chosen = gns.flat_map(|gns| &gns.rules).any(|rule| rule.cluster.matches(&cluster.name, &cluster.labels));
                prop_assert!(chosen && !cluster.intermediates.is_empty());
                prop_assert!(members.is_none_or(|members| members.contains(&cluster.name)));
            }
        }
        // A name that exists is told to somebody: whoever serves it is a member.
        prop_assert_eq!(seen, names);
    }

    /// Looked at from each namespace: who may choose for it, and who of these does.
    #[test]
    fn the_first_gns_by_name_chooses_the_capture_mode(world in worlds()) {
        for (id, cluster) in &world.clusters {
            let told = snapshot(&world, *id);
            let domains: BTreeSet<_> = told.values().filter_map(|resource| match resource {
                ClusterResource::Domain(domain) => Some(&domain.domain),
                _ => None,
            }).collect();
            let none = BTreeMap::new();
            let reported = world.inventories.get(id).map_or(&none, |inventory| &inventory.namespaces);
            let named = world.gns.values().flat_map(|gns| &gns.rules).filter_map(|rule| match &rule.namespace {
                Selector::Name(name) => Some(name),
                Selector::Labels(_) => None,
            });
            for namespace in reported.keys().chain(named).collect::<BTreeSet<_>>() {
                let chooses = |rule: &MappingRule| rule.cluster.matches(&cluster.name, &cluster.labels) && match &rule.namespace {
                    Selector::Name(name) => name == namespace,
                    by_labels => reported.get(namespace).is_some_and(|record| by_labels.matches(namespace, &record.labels)),
                };
                // Of several with one domain the oldest has it.
                let has = |gns: &GlobalNamespace| !world.gns.values().any(|other| other.id < gns.id && other.domain == gns.domain);
                let choosing: BTreeMap<_, _> = world.gns.values()
                    .filter(|gns| domains.contains(&gns.domain) && has(gns) && gns.rules.iter().any(chooses))
                    .filter_map(|gns| Some((gns.name.clone(), gns.capture?)))
                    .collect();
                let found = match told.get(&ResourceKey::new("capture", namespace.as_str())) {
                    Some(ClusterResource::Capture(capture)) => Some(capture),
                    _ => None,
                };
                let first = choosing.iter().next();
                prop_assert_eq!(found.map(|capture| (&capture.gns, &capture.mode)), first);
                let Some((_, mode)) = first else { continue };
                let against: BTreeMap<_, _> = choosing.iter().filter(|(_, other)| *other != mode).map(|(gns, mode)| (gns.clone(), *mode)).collect();
                prop_assert_eq!(&found.unwrap().against, &against);
            }
        }
    }

    #[test]
    fn a_mapped_service_has_a_name(world in worlds()) {
        let overlaps = |domain| world.gns.values().filter(|other| other.domain.overlaps(domain)).count() > 1;
        for gns in world.gns.values().filter(|gns| !overlaps(&gns.domain)) {
            for (id, cluster) in world.clusters.iter().filter(|(_, cluster)| !cluster.intermediates.is_empty()) {
                let Some(inventory) = world.inventories.get(id) else { continue };
                for key in inventory.services.keys() {
                    let labels = inventory.namespaces.get(&key.namespace).map(|n| n.labels.clone()).unwrap_or_default();
                    let mapped = gns.rules.iter().any(|rule| {
                        rule.cluster.matches(&cluster.name, &cluster.labels) && rule.namespace.matches(&key.namespace, &labels)
                    });
                    if mapped {
                        let text = format!("name/{}.{}", key.name, gns.domain);
                        prop_assert!(snapshot(&world, *id).keys().any(|key| key.to_string() == text), "{}", text);
                    }
                }
            }
        }
    }

    /// The rules of KEP-1645, looked at from outside.
    #[test]
    fn what_is_exported_is_imported_where_its_namespace_is(world in worlds()) {
        let joined = |id: &ClusterId| world.clusters.get(id).is_some_and(|cluster| !cluster.intermediates.is_empty());
        let imports = |id: &ClusterId, namespace| {
            joined(id) && world.inventories.get(id).and_then(|i| i.namespaces.get(namespace)).is_some_and(|n| n.imports)
        };
        let mut exports: BTreeMap<&ServiceKey, Vec<(i64, ClusterId)>> = BTreeMap::new();
        for (id, inventory) in &world.inventories {
            for (key, record) in inventory.services.iter().filter(|(key, _)| imports(id, &key.namespace)) {
                if let Some(export) = &record.export {
                    exports.entry(key).or_default().push((export.created_s, *id));
                }
            }
        }
        for id in world.clusters.keys() {
            let told = snapshot(&world, *id);
            let imported: BTreeMap<_, _> = told.values().filter_map(|resource| match resource {
                ClusterResource::Import(import) => Some((&import.service, import)),
                _ => None,
            }).collect();
            let wanted: BTreeSet<_> = exports.keys().copied().filter(|key| imports(id, &key.namespace)).collect();
            prop_assert_eq!(imported.keys().copied().collect::<BTreeSet<_>>(), wanted);
            for (key, import) in imported {
                let mut sources = exports[key].clone();
                sources.sort();
                let names: BTreeSet<_> = sources.iter().map(|(_, id)| world.clusters[id].name.clone()).collect();
                prop_assert_eq!(&import.clusters, &names);
                let oldest = &world.inventories[&sources[0].1].services[key];
                let record = oldest.export.as_ref().unwrap();
                prop_assert_eq!(import.kind == ImportKind::Headless, oldest.headless);
                prop_assert_eq!((&import.labels, &import.annotations), (&record.labels, &record.annotations));
                prop_assert_eq!(import.traits.affinity, record.traits.affinity);
                // Whoever differs in anything that is merged makes a conflict, and alike exports make none.
                let all: Vec<_> = sources.iter().map(|(_, id)| &world.inventories[id].services[key]).collect();
                let said = |record: &&ServiceRecord| {
                    let export = record.export.as_ref().unwrap();
                    let mut ports = export.traits.ports.clone();
                    ports.sort();
                    ports.dedup();
                    let traits = Traits { ports, ..export.traits.clone() };
                    (record.headless, traits, export.labels.clone(), export.annotations.clone())
                };
                let differ = all.iter().any(|record| said(record) != said(&all[0]));
                prop_assert_eq!(differ, !import.conflicts.is_empty(), "{:?}", import.conflicts);
            }
        }
    }
}
