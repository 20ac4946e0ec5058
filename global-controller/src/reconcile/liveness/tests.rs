//! Which acknowledgements are looked at again. That what is stored is mended by them, the tests beside the driver show.

use super::*;
use crate::{metrics::Agents, store::organization::OrganizationRow};
use std::str::FromStr as _;
use tombolo_runtime::metrics::Metrics;
use tombolo_testkit::{build, clock, postgres::Database, wait};

const G: fn(u64) -> Generation = Generation::new;

struct Bench {
    liveness: Arc<Liveness>,
    org: OrgId,
    cluster: ClusterId,
}

/// What one replica knows.
fn replica() -> Arc<Liveness> {
    let lag = Agents::new(&Metrics::new("test")).lag_seconds;
    Liveness::new(Uuid::now_v7(), Arc::new(clock::manual()), lag)
}

impl Bench {
    fn new() -> Self {
        Self { liveness: replica(), org: OrgId::new(Uuid::now_v7()), cluster: ClusterId::new(Uuid::now_v7()) }
    }

    fn published(&self, generation: u64) {
        self.liveness.published(self.org, self.cluster, G(generation), self.liveness.now());
    }

    /// An acknowledgement. Whether it is written, and whether it is a reason to look.
    fn applied(&self, generation: u64, refused: Option<&str>) -> (bool, bool) {
        self.liveness.applied(self.org, self.cluster, G(generation), refused.map(str::to_owned));
        let mut state = self.liveness.lock();
        let written = std::mem::take(&mut state.progress).values().any(|progress| progress.applied.is_some());
        (written, std::mem::take(&mut state.unlooked))
    }

    /// What the cluster said, where that may be more than is stored.
    fn ahead(&self) -> Option<u64> {
        let ahead = self.liveness.lock().ahead();
        assert!(ahead.len() < 2, "once for each cluster: {ahead:?}");
        ahead.first().map(|said| said.generation.get())
    }
}

#[test]
fn a_number_without_news_is_a_reason_to_look_and_not_to_write() {
    let bench = Bench::new();
    let hold = bench.liveness.open(bench.org, bench.cluster);
    let beside = bench.liveness.open(bench.org, bench.cluster);
    bench.published(5);
    assert_eq!(bench.applied(5, None), (true, false));
    assert_eq!(bench.ahead(), None, "all that it said is noted");
    assert_eq!(bench.applied(7, None), (false, true));
    assert_eq!(bench.ahead(), Some(7));
    assert_eq!(bench.applied(7, None), (false, false), "it says the same once more");
    assert_eq!(bench.ahead(), Some(7), "and another replica may write what it published later");
    // 7 is what that one published
    let said = Said { org: bench.org, cluster: bench.cluster, generation: G(7) };
    bench.liveness.noted(&[said]);
    assert_eq!(bench.ahead(), None);
    // what is news here is written as ever
    bench.published(8);
    assert_eq!(bench.applied(9, None), (true, false));
    assert_eq!(bench.ahead(), None);
    assert_eq!(bench.applied(10, None), (false, true));
    drop(hold);
    assert_eq!(bench.ahead(), Some(10), "it has another feed here");
    drop(beside);
    assert_eq!(bench.ahead(), None, "who feeds it looks");
}

#[test]
fn who_refuses_is_not_ahead() {
    let bench = Bench::new();
    let _hold = bench.liveness.open(bench.org, bench.cluster);
    bench.published(5);
    assert_eq!(bench.applied(5, None), (true, false));
    assert_eq!(bench.applied(8, None), (false, true));
    bench.published(9);
    // it started again on what it had kept, and does not take what is new
    assert_eq!(bench.applied(6, Some("no")), (true, false));
    assert_eq!(bench.ahead(), None);
    assert_eq!(bench.applied(9, None), (true, false));
    assert_eq!(bench.ahead(), None);
}

#[test]
fn what_could_not_be_written_is_looked_at_again() {
    let bench = Bench::new();
    let _hold = bench.liveness.open(bench.org, bench.cluster);
    assert!(!bench.liveness.lock().unlooked);
    bench.liveness.put_back(BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    assert!(bench.liveness.lock().unlooked);
}

#[test]
fn who_is_not_fed_here_for_long_is_forgotten() {
    let bench = Bench::new();
    let follows = || bench.liveness.lock().follows.contains_key(&(bench.org, bench.cluster));
    let start = Instant::now();
    let sweep = |minutes: u64| bench.liveness.lock().sweep(start + Duration::from_secs(minutes * 60));
    let hold = bench.liveness.open(bench.org, bench.cluster);
    bench.published(5);
    bench.applied(5, None);
    for minutes in [0, 60] {
        sweep(minutes);
        assert!(follows(), "it is fed");
    }
    drop(hold);
    sweep(61);
    // it comes back for a moment, and all is remembered
    let hold = bench.liveness.open(bench.org, bench.cluster);
    sweep(75);
    drop(hold);
    sweep(76);
    sweep(90);
    assert!(follows(), "14 minutes");
    assert_eq!(bench.applied(5, None), (false, false));
    sweep(91);
    assert!(!follows(), "it was revoked, or is fed elsewhere");
    // nothing is wrong where it comes back
    let _hold = bench.liveness.open(bench.org, bench.cluster);
    assert_eq!(bench.applied(5, None), (true, false));
}

/// A database with an organization and so many clusters, in the order of their ids; each has a status.
async fn stored(count: u128) -> (Database, Store, OrgId, Vec<ClusterId>) {
    let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
    let options = sqlx::postgres::PgConnectOptions::from_str(database.url()).unwrap();
    let store = Store::open(options, 8).await.unwrap();
    let org = OrganizationRow {
        id: OrgId::new(Uuid::now_v7()),
        name: build::name("acme"),
        trust_domain: build::name("acme.tombolo.internal"),
        generation: G(1),
        created_at: DateTime::UNIX_EPOCH,
    };
    let mut tx = store.begin().await.unwrap();
    tx.insert_organization(&org).await.unwrap();
    let clusters: Vec<_> = (1..=count).map(|n| ClusterId::new(Uuid::from_u128(n))).collect();
    for cluster in &clusters {
        sqlx::query(
            "INSERT INTO clusters (org_id, id, name, created_at, updated_at) VALUES ($1, $2, $2::text, now(), now())",
        )
        .bind(org.id.as_uuid())
        .bind(cluster.as_uuid())
        .execute(tx.conn())
        .await
        .unwrap();
    }
    tx.lock_statuses(&clusters.iter().map(|cluster| (org.id, *cluster)).collect()).await.unwrap();
    tx.commit().await.unwrap();
    (database, store, org.id, clusters)
}

/// Each writes of a cluster, whose feed ended, what the other one writes in its second pass. Both wait in the middle, so that they stand
/// as close as two replicas ever come.
#[tokio::test]
async fn two_replicas_that_write_the_same_clusters_do_not_wait_for_each_other() {
    const SOON: Duration = Duration::from_secs(30);
    let (database, store, org, clusters) = stored(3).await;
    let [held, one, two] = clusters[..] else { unreachable!("three") };
    let mut gate = store.begin().await.unwrap();
    gate.lock_statuses(&[(org, held)].into()).await.unwrap();
    let write = async |liveness: &Liveness| {
        // it said just now that it lives
        liveness.write(&store, &mut Some(Instant::now())).await
    };
    let replicas = [(replica(), one, two), (replica(), two, one)];
    for (liveness, closes, publishes) in &replicas {
        drop(liveness.open(org, *closes));
        for cluster in [held, *publishes] {
            liveness.published(org, cluster, G(2), liveness.now());
        }
    }
    let waiting = || async {
        let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        database.sql(waits)
    };
    let open_gate = async {
        wait::until("both wait", SOON, waiting, |count| count == "2").await;
        gate.commit().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(write(&replicas[0].0), write(&replicas[1].0), open_gate);
    first.unwrap();
    second.unwrap();
    let written = "select count(*) from cluster_status where published_generation = 2";
    assert_eq!(database.sql(written), "3");
}

#[tokio::test]
async fn a_silent_replica_is_forgotten_with_its_feeds_and_one_that_comes_back_is_not_waited_for() {
    let (database, store, org, clusters) = stored(2).await;
    let [here, there, back] = [replica(), replica(), replica()];
    let holds = [there.open(org, clusters[0]), back.open(org, clusters[1])];
    for liveness in [&there, &back] {
        liveness.write(&store, &mut None).await.unwrap();
    }
    // a minute later
    let later = here.now() + TimeDelta::minutes(1);
    let mut returns = store.begin().await.unwrap();
    assert!(!returns.replica_lives(back.replica, later).await.unwrap(), "it is known");
    let mut forgets = store.begin().await.unwrap();
    let silent = forgets.lock_silent(later - SILENT).await.unwrap();
    assert_eq!(silent, [there.replica]);
    assert_eq!(forgets.fed_by(&silent).await.unwrap(), [(org, clusters[0])].into());
    forgets.forget_replicas(&silent).await.unwrap();
    forgets.commit().await.unwrap();
    returns.commit().await.unwrap();
    assert_eq!(database.sql("select id from replicas"), back.replica.to_string());
    assert_eq!(database.sql("select cluster_id from feeds"), clusters[1].to_string());
    let seen = "select cluster_id from cluster_status where last_seen_at is not null";
    assert_eq!(database.sql(seen), clusters[0].to_string());
    drop(holds);
}
