//! Nothing happens; then endpoints come and go.

use crate::{parts::SOON, world::World};
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tombolo_model::snapshot::ResourceKey;
use tombolo_testkit::wait::until;
use tombolo_tests::scale::{Measured, Options, changed, counted};

/// What the replica says of itself, however many clusters there are.
const OF_REPLICA: &str = "replicas";
/// PostgreSQL counts what was written a while after it was: a connection that then does nothing says so after ten seconds.
const COUNTED: Duration = Duration::from_secs(12);

struct Reading {
    at: Instant,
    controller: Duration,
    database: Duration,
    metrics: String,
}

impl Reading {
    async fn of(world: &World) -> Self {
        let metrics = world.site.metrics().await;
        Self {
            at: Instant::now(),
            controller: world.site.usage().cpu,
            database: world.site.database_cpu(),
            metrics,
        }
    }

    /// Cores of the controller and of the database since `before`.
    fn cores(&self, before: &Self) -> (f64, f64) {
        let passed = (self.at - before.at).as_secs_f64();
        let of = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / passed;
        (of(self.controller, before.controller), of(self.database, before.database))
    }

    /// By how much a metric of feeds rose since `before`, over these kinds of lines.
    fn rose(&self, before: &Self, metric: &str, kinds: &[&str]) -> f64 {
        let of = |page: &str| -> f64 {
            kinds.iter().map(|kind| counted(page, metric, &format!("kind=\"{kind}\""))).sum()
        };
        of(&self.metrics) - of(&before.metrics)
    }
}

const LINES: &str = "tombolo_controller_feed_lines_total";
const BYTES: &str = "tombolo_controller_feed_bytes_total";
const BEATS: [&str; 2] = ["heartbeat", "current"];
const NEWS: [&str; 2] = ["delta", "snapshot"];

/// Measures both.
pub(crate) async fn measure(world: &World, options: &Options) -> Measured {
    // what a moment ago was under way is over
    sleep(COUNTED).await;
    let (written, begin) = (world.site.writes(), Reading::of(world).await);
    // the time itself is what is looked at
    sleep(options.idle).await;
    let idle = Reading::of(world).await;
    sleep(COUNTED).await;
    let mut writes = changed(&written, &world.site.writes());
    let beats = idle.rose(&begin, LINES, &BEATS);
    let of_clusters: u64 =
        writes.iter().filter(|(table, _)| *table != OF_REPLICA).map(|(_, rows)| rows).sum();
    let writes_per_beat = of_clusters as f64 / beats.max(1.0);
    let (idle_cores, idle_database) = idle.cores(&begin);
    println!(
        "idle: controller {idle_cores:.3} cores, PostgreSQL {idle_database:.3}; {writes_per_beat:.3} rows written per heartbeat, of {beats}: {writes:?}"
    );
    writes.insert("(heartbeats)".to_owned(), beats as u64);

    world.changes.take();
    let before = Reading::of(world).await;
    let changes = flap(world, options).await;
    let look = || async { world.changes.open() };
    let waited = tokio::time::timeout(SOON, until("changes on their way", SOON * 2, look, |open| *open == 0));
    let lost = if waited.await.is_ok() { 0 } else { world.changes.give_up() };
    let after = Reading::of(world).await;
    let seen = world.changes.take();
    let (cores, database) = after.cores(&before);
    let measured = Measured {
        shape: world.shape,
        memory_empty: world.empty.memory,
        memory: world.site.usage().memory,
        idle_cores,
        writes_per_beat,
        writes,
        changes,
        lost,
        churn: after.at - before.at,
        effective: seen.each.into_iter().collect(),
        everywhere: seen.everywhere.into_iter().collect(),
        cores,
        database_cores: database - idle_database,
        delta_bytes: after.rose(&before, BYTES, &NEWS),
        beat_bytes: after.rose(&before, BYTES, &BEATS),
        bundle: bundle(world),
        restart: None,
    };
    println!("{}", measured.said());
    measured
}

/// Endpoints change at a steady pace, of one group after the other. How many did.
async fn flap(world: &World, options: &Options) -> usize {
    let shape = world.shape;
    let began = Instant::now();
    let mut pace = interval(Duration::from_secs(1) / options.rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut made, mut turn) = (0, 0);
    while began.elapsed() < options.churn {
        pace.tick().await;
        let (group, round) = (turn % shape.groups(), turn / shape.groups());
        made += usize::from(world.flap(group, round * 7 % shape.services, round % shape.copies));
        turn += 1;
    }
    made
}

/// How long it is what a cluster is told of whom to believe, as JSON.
fn bundle(world: &World) -> usize {
    let state = world.agents[0].state();
    state
        .resources
        .get(&ResourceKey::new("bundle", ""))
        .map_or(0, |bundle| serde_json::to_vec(bundle).unwrap().len())
}
