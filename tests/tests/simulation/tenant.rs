//! An organization: what its people ask for.

use crate::{database::Database, dice::Dice, wall::MARKS};
use std::collections::BTreeSet;
use tombolo_compile::World;
use tombolo_model::{
    Locality,
    id::{ClusterId, GnsId, OrgId},
    intent::{Cluster, GlobalNamespace, Labels, MappingRule, Organization, Selector},
    snapshot::CaFingerprint,
};
use tombolo_testkit::build;
use uuid::Uuid;

/// Both have clusters of these names.
pub(crate) const CLUSTERS: [&str; 3] = ["one", "two", "three"];
/// And domains; two of them overlap.
const DOMAINS: [&str; 4] = ["shop.example.com", "eu.shop.example.com", "pay.example.com", "example.org"];
/// Any root that can be read: nobody shakes hands here.
const ROOT: &str = include_str!("root.pem");

pub(crate) struct Tenant {
    pub(crate) index: usize,
    pub(crate) database: Database,
    made: u64,
}

pub(crate) fn cluster_id(tenant: usize, cluster: usize) -> ClusterId {
    ClusterId::new(Uuid::from_u128(u128::try_from(16 * (tenant + 1) + cluster).unwrap()))
}

impl Tenant {
    pub(crate) fn new(index: usize) -> Self {
        let mark = MARKS[index];
        let mut world = World::new(Organization {
            id: OrgId::new(Uuid::from_u128(u128::try_from(index + 1).unwrap())),
            name: build::name(mark),
            trust_domain: build::name(&format!("{mark}.internal")),
        });
        world.roots = vec![ROOT.to_owned()];
        for (at, name) in CLUSTERS.iter().enumerate() {
            let id = cluster_id(index, at);
            let cluster = Cluster {
                id,
                name: build::name(name),
                labels: Labels::new(),
                locality: zone(at / 2),
                intermediates: [intermediate(index, at, 0)].into(),
                ingress: BTreeSet::new(),
                install: None,
                trial: None,
            };
            world.clusters.insert(id, cluster);
        }
        Self { index, database: Database::new(world), made: 0 }
    }

    /// Somebody asks for something; what.
    pub(crate) fn change(&mut self, dice: &mut Dice) -> String {
        let some: Vec<GnsId> = self.database.world().gns.keys().copied().collect();
        match dice.below(10) {
            0..=3 => {
                self.made += 1;
                let domain = dice.pick(&DOMAINS);
                let gns = GlobalNamespace {
                    id: GnsId::new(Uuid::from_u128(1000 + u128::from(self.made))),
                    name: build::name(&format!("{}-{}", MARKS[self.index], self.made)),
                    domain: build::name(domain),
                    rules: rules(dice),
                    capture: None,
                };
                let what = format!("{domain} is made");
                // the true database takes no second one of a domain
                self.database.write(|world| {
                    if !world.gns.values().any(|old| old.domain == gns.domain) {
                        world.gns.insert(gns.id, gns);
                    }
                });
                what
            }
            4 | 5 if !some.is_empty() => {
                let id = dice.pick(&some);
                self.database.write(|world| drop(world.gns.remove(&id)));
                format!("domain {id} is deleted")
            }
            6 | 7 if !some.is_empty() => {
                let (id, rules) = (dice.pick(&some), rules(dice));
                self.database.write(|world| {
                    world.gns.entry(id).and_modify(|gns| gns.rules = rules);
                });
                format!("domain {id} gets other rules")
            }
            8 => {
                let (id, locality) =
                    (cluster_id(self.index, dice.below(CLUSTERS.len())), zone(dice.below(2)));
                let what = format!("cluster {id} is in {:?}", locality.zone);
                self.database.write(|world| {
                    world.clusters.entry(id).and_modify(|cluster| cluster.locality = locality);
                });
                what
            }
            _ => {
                let id = cluster_id(self.index, dice.below(CLUSTERS.len()));
                let labels: Labels = match dice.below(2) {
                    0 => Labels::new(),
                    _ => [("kind".to_owned(), "prod".to_owned())].into(),
                };
                self.database.write(|world| {
                    world.clusters.entry(id).and_modify(|cluster| cluster.labels = labels);
                });
                format!("cluster {id} gets other labels")
            }
        }
    }
}

/// Two of three clusters begin in the first.
fn zone(at: usize) -> Locality {
    Locality { region: Some("eu".to_owned()), zone: Some(format!("eu-{at}")) }
}

/// The intermediate of a cluster in its `nth` membership.
pub(crate) fn intermediate(tenant: usize, cluster: usize, nth: usize) -> CaFingerprint {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip([tenant, cluster, nth]) {
        *byte = u8::try_from(value).unwrap();
    }
    CaFingerprint::new(bytes)
}

fn rules(dice: &mut Dice) -> Vec<MappingRule> {
    let rule = |dice: &mut Dice| MappingRule {
        cluster: match dice.below(4) {
            0 => Selector::Labels([("kind".to_owned(), "prod".to_owned())].into()),
            1 => Selector::Name(build::name(dice.pick(&CLUSTERS))),
            _ => Selector::Labels(Labels::new()),
        },
        namespace: match dice.below(3) {
            0 => Selector::Name(build::name("default")),
            1 => Selector::Name(build::name("shop")),
            _ => Selector::Labels(Labels::new()),
        },
    };
    (0..=dice.below(2)).map(|_| rule(dice)).collect()
}
