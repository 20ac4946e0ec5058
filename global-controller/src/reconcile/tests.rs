//! A reader that follows the change log holds what a reader holds that reads everything.

use super::{
    Commits, Driver, Liveness,
    read::{Read, read},
};
use crate::{
    ca::Vault,
    metrics::{Agents, Reconciled},
    publish::{FeedGuard, View},
    store::{
        Change, Store, Tx, change::STATUS, gns::GnsRow, intermediate::Keep, organization::OrganizationRow,
    },
    vips::Pools,
};
use chrono::{DateTime, Utc};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::postgres::PgListener;
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};
use tombolo_compile::World;
use tombolo_model::{
    ClusterName, Generation, Locality, SpiffeId,
    id::{ClusterId, GnsId, OrgId},
    intent::CaptureMode,
    inventory::ServiceKey,
};
use tombolo_mtls::PrivateKey;
use tombolo_runtime::{clock::Clock, drain, metrics::Metrics, task};
use tombolo_testkit::{build, clock, postgres::Database, wait};
use tombolo_wire::message::FeedLine;
use uuid::Uuid;

const CLUSTERS: usize = 3;
const SERVICES: [&str; 4] = ["default/cart", "default/users", "shop/cart", "shop/orders"];

/// A replica of the controller.
fn replica(store: Store) -> Driver {
    let clock: Arc<dyn Clock> = Arc::new(clock::manual());
    let metrics = Metrics::new("test");
    let lag = Agents::new(&metrics).lag_seconds;
    Driver {
        commits: Commits::default(),
        store,
        view: View::new(),
        liveness: Liveness::new(Uuid::now_v7(), Arc::clone(&clock), lag),
        pools: Pools::new("240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap())
            .unwrap(),
        clock,
        metrics: Reconciled::new(&metrics),
    }
}

struct Bench {
    driver: Driver,
    org: OrganizationRow,
    clusters: Vec<(ClusterId, ClusterName)>,
    gns: Option<GnsId>,
    vault: Vault,
    rng: StdRng,
    /// What was reported last.
    last: Option<(ClusterId, ServiceKey)>,
    _files: tempfile::TempDir,
    _database: Database,
}

impl Bench {
    async fn new(seed: u64) -> Self {
        let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
        let options = sqlx::postgres::PgConnectOptions::from_str(database.url()).unwrap();
        let driver = replica(Store::open(options, 8).await.unwrap());
        let files = tempfile::tempdir().unwrap();
        let vault = Vault::from_file(&files.path().join("ca.key"), true).unwrap();
        let org = OrganizationRow {
            id: OrgId::new(Uuid::now_v7()),
            name: build::name("acme"),
            trust_domain: build::name("acme.tombolo.internal"),
            generation: Generation::new(1),
            created_at: driver.clock.now().into(),
        };
        let mut bench = Self {
            driver,
            org,
            clusters: Vec::new(),
            gns: None,
            vault,
            rng: StdRng::seed_from_u64(seed),
            last: None,
            _files: files,
            _database: database,
        };
        bench.found().await;
        bench
    }

    fn now(&self) -> DateTime<Utc> {
        self.driver.clock.now().into()
    }

    async fn found(&mut self) {
        let (now, org) = (self.now(), self.org.id);
        let mut tx = self.driver.store.begin().await.unwrap();
        tx.insert_organization(&self.org).await.unwrap();
        self.vault
            .create_root(&mut tx, org, &self.org.trust_domain, (Generation::new(1), now))
            .await
            .unwrap();
        for i in 0..CLUSTERS {
            let (id, name) = (ClusterId::new(Uuid::now_v7()), format!("cluster-{i}"));
            sqlx::query(
                "INSERT INTO clusters (org_id, id, name, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)",
            )
            .bind(org.as_uuid())
            .bind(id.as_uuid())
            .bind(&name)
            .bind(now)
            .execute(tx.conn())
            .await
            .unwrap();
            tx.changed(org, Change::Cluster(id));
            self.clusters.push((id, build::name(&name)));
        }
        tx.commit().await.unwrap();
    }

    /// Something happens.
    async fn step(&mut self) -> String {
        let (now, org) = (self.now(), self.org.id);
        let (id, name) = self.clusters[self.rng.random_range(0..CLUSTERS)].clone();
        let mut tx = self.driver.store.begin().await.unwrap();
        tx.lock_org(org).await.unwrap();
        let what = match self.rng.random_range(0..9) {
            0 | 1 => {
                self.join(&mut tx, id, &name).await;
                format!("join {name}")
            }
            2 => format!("revoke {name} {}", tx.revoke_cluster(org, id, now).await.unwrap()),
            3 => {
                let address = format!("192.0.2.{}:1", self.rng.random_range(1..5));
                tx.set_ingress(org, id, &BTreeSet::from([address.clone()])).await.unwrap();
                format!("ingress {name} {address}")
            }
            4 | 5 => {
                let key: ServiceKey = build::service_key(SERVICES[self.rng.random_range(0..SERVICES.len())]);
                // what changes twice in a row is what endpoints do that come up
                let again = self.last.take().filter(|_| self.rng.random_bool(0.5));
                let (id, key) = again.unwrap_or((id, key));
                self.last = Some((id, key.clone()));
                let ready = self.rng.random_range(0..3);
                let record = build::Service::new(&[80]).endpoints(ready, 3).build();
                tx.upsert_services(org, id, &[(key.clone(), record)].into(), now).await.unwrap();
                let labels = [("step".to_owned(), self.rng.random_range(0..3).to_string())].into();
                let record = tombolo_model::inventory::NamespaceRecord { labels, ..Default::default() };
                tx.upsert_namespaces(org, id, &[(key.namespace.clone(), record)].into()).await.unwrap();
                format!("report {id} {key} {ready}")
            }
            6 => {
                let keys = [SERVICES[self.rng.random_range(0..SERVICES.len())].to_owned()];
                tx.remove_services(org, id, &keys, self.rng.random_bool(0.3)).await.unwrap();
                format!("remove {name} {keys:?}")
            }
            7 => self.domain(&mut tx).await,
            _ => {
                // a reader that is further behind than the log reads everything
                tx.prune_changes(1).await.unwrap();
                tx.changed(org, Change::Audit);
                "prune".to_owned()
            }
        };
        tx.commit().await.unwrap();
        what
    }

    async fn join(&mut self, tx: &mut Tx, id: ClusterId, name: &ClusterName) {
        let (now, org) = (self.now(), self.org.id);
        tx.joined(org, id, (&Locality::default(), &Locality::default()), now).await.unwrap();
        let spiffe = SpiffeId::cluster(&self.org.trust_domain, name);
        let csr = PrivateKey::generate().unwrap().csr(&spiffe).unwrap();
        let owner = (org, &self.org.trust_domain);
        self.vault.sign_intermediate(tx, owner, (id, name), &csr, (Keep::Overlap, now)).await.unwrap();
    }

    async fn domain(&mut self, tx: &mut Tx) -> String {
        let (now, org) = (self.now(), self.org.id);
        if let Some(id) = self.gns.take() {
            tx.delete_gns(org, id).await.unwrap();
            tx.changed(org, Change::Gns(id));
            return "no domain".to_owned();
        }
        let id = GnsId::new(Uuid::now_v7());
        let namespace = if self.rng.random_bool(0.5) { "default" } else { "shop" };
        let row = GnsRow {
            id,
            name: build::name("acme"),
            domain: build::name("acme.example.com"),
            rules: vec![build::everywhere(namespace)],
            capture: self.rng.random_bool(0.5).then_some(CaptureMode::Sidecar),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        tx.insert_gns(org, &row).await.unwrap();
        tx.changed(org, Change::Gns(id));
        self.gns = Some(id);
        format!("domain over {namespace}")
    }

    /// What is held, and what is stored.
    async fn worlds(&self) -> (World, World) {
        let org = self.org.id;
        let held = self.driver.view.with(org, |compiled, _| compiled.world().clone()).unwrap();
        let mut tx = self.driver.store.begin_snapshot().await.unwrap();
        match read(&mut tx, org, None, &self.driver.pools).await.unwrap() {
            Read::Whole(stored, _) => (tidy(held), tidy(stored)),
            _ => panic!("the organization is there"),
        }
    }
}

/// What clusters are told, and who stands, is what follows from the world held when it is looked at from the beginning. The view got there
/// change by change.
fn told_is_what_follows(view: &View, org: OrgId, feeds: &mut BTreeMap<ClusterId, FeedGuard>) {
    let (world, generation) =
        view.with(org, |compiled, generation| (compiled.world().clone(), generation)).unwrap();
    feeds.retain(|id, _| world.clusters.contains_key(id));
    for id in world.clusters.keys() {
        // one that comes later is told by its feed alone
        let feed = feeds.entry(*id).or_insert_with(|| view.attach(org, *id).unwrap());
        let (lines, at) = feed.open(None);
        let [FeedLine::Snapshot { resources, .. }] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((resources, at), (&tombolo_compile::snapshot(&world, *id), generation));
    }
    let state = view.state(org).unwrap();
    let clusters: BTreeMap<_, _> = world.clusters.values().map(|c| (c.name.clone(), c.id)).collect();
    let joined = world.clusters.values().filter(|cluster| !cluster.intermediates.is_empty());
    let prints: BTreeMap<_, _> = joined.map(|c| (c.name.clone(), c.intermediates.clone())).collect();
    assert_eq!((state.generation, &*state.clusters), (generation, &clusters));
    assert_eq!((&state.bundle_spec.roots, &state.bundle_spec.clusters), (&world.roots, &prints));
    assert_eq!(view.settle(org), None, "the pass settled everything");
}

/// A cluster that reported nothing may have an empty inventory, or none.
fn tidy(mut world: World) -> World {
    world.inventories.retain(|_, found| !found.namespaces.is_empty() || !found.services.is_empty());
    world
}

#[tokio::test]
async fn following_is_reading_everything() {
    for seed in [1, 2] {
        let mut bench = Bench::new(seed).await;
        let (mut done, mut feeds) = (Vec::new(), BTreeMap::new());
        for _ in 0..60 {
            // several changes may come at once, of the same object too
            for _ in 0..bench.rng.random_range(1..6) {
                done.push(bench.step().await);
            }
            bench.driver.first().await.unwrap();
            let (held, stored) = bench.worlds().await;
            assert_eq!(held, stored, "seed {seed}, after {done:#?}");
            let wanted = tombolo_compile::names_needed(&held);
            let had: BTreeSet<_> = held.vips.keys().cloned().collect();
            assert_eq!(had, wanted, "seed {seed}, after {done:#?}");
            told_is_what_follows(&bench.driver.view, bench.org.id, &mut feeds);
        }
        assert!(done.iter().any(|what| what == "prune"));
    }
}

#[tokio::test]
async fn what_changed_twice_since_the_last_look_is_there() {
    let mut bench = Bench::new(1).await;
    let org = bench.org.id;
    let (id, name) = bench.clusters[0].clone();
    let mut tx = bench.driver.store.begin().await.unwrap();
    bench.join(&mut tx, id, &name).await;
    bench.domain(&mut tx).await;
    tx.commit().await.unwrap();
    bench.driver.first().await.unwrap();
    let key: ServiceKey = build::service_key("default/cart");
    for ready in [0, 1] {
        let mut tx = bench.driver.store.begin().await.unwrap();
        let record = build::Service::new(&[80]).endpoints(ready, 1).build();
        tx.upsert_services(org, id, &[(key.clone(), record)].into(), bench.now()).await.unwrap();
        let labels = [("step".to_owned(), ready.to_string())].into();
        let record = tombolo_model::inventory::NamespaceRecord { labels, ..Default::default() };
        tx.upsert_namespaces(org, id, &[(key.namespace.clone(), record)].into()).await.unwrap();
        tx.commit().await.unwrap();
    }
    bench.driver.first().await.unwrap();
    let (held, stored) = bench.worlds().await;
    let found = &held.inventories[&id];
    assert_eq!(found.services[&key].ready, 1, "{found:?}");
    assert_eq!(found.namespaces[&key.namespace].labels["step"], "1");
    assert_eq!(held, stored);
}

/// Of the news of one commit and the number of the next one, one replica makes two generations, the other one. Who is told by the first
/// has all that the second published.
#[tokio::test]
async fn who_has_all_is_not_behind_for_what_another_replica_counted() {
    const SOON: Duration = Duration::from_secs(30);
    let mut bench = Bench::new(1).await;
    let (org, store) = (bench.org.id, bench.driver.store.clone());
    let ((id, name), (peer, peer_name)) = (bench.clusters[0].clone(), bench.clusters[1].clone());
    let mut tx = store.begin().await.unwrap();
    bench.join(&mut tx, id, &name).await;
    tx.commit().await.unwrap();
    let there = replica(store.clone());
    bench.driver.first().await.unwrap();
    there.first().await.unwrap();
    let (fed, was_fed) = (bench.driver.view.attach(org, id).unwrap(), there.view.attach(org, id).unwrap());

    let mut tx = store.begin().await.unwrap();
    bench.join(&mut tx, peer, &peer_name).await;
    tx.commit().await.unwrap();
    let here = &bench.driver;
    let _open = here.liveness.open(org, id);
    here.first().await.unwrap();
    let mut tx = store.begin().await.unwrap();
    tx.lock_org(org).await.unwrap();
    tx.changed(org, Change::Audit);
    tx.commit().await.unwrap();
    here.first().await.unwrap();
    there.first().await.unwrap();
    let (first, second) = (fed.changed_at(), was_fed.changed_at());
    assert!(first < second && here.view.generations()[&org] == second, "{first}, {second}");

    let (drain, watch) = drain::channel();
    for one in [here, &there] {
        task::spawn("liveness", Arc::clone(&one.liveness).run(store.clone(), watch.clone()));
    }
    drop(watch);
    let stored = || async {
        let found = store.begin().await.unwrap().cluster_report(org, id).await.unwrap();
        found.map(|found| (found.applied, found.published))
    };
    here.liveness.applied(org, id, first, None);
    wait::until("both are written", SOON, stored, |found| *found == Some((first, second))).await;
    let mut followers = PgListener::connect_with(store.pool()).await.unwrap();
    followers.listen(STATUS).await.unwrap();
    // as the agent answers the next word that the controller lives
    here.liveness.applied(org, id, second, None);
    wait::until("it is not behind", SOON, stored, |found| *found == Some((second, second))).await;
    let told = tokio::time::timeout(SOON, followers.recv()).await.unwrap().unwrap();
    assert_eq!(told.payload(), org.to_string(), "who follows hears of it");
    drop((fed, was_fed));
    drain.drain(Duration::ZERO).await;
}
