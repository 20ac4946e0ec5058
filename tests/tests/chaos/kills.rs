//! Many kills at random moments, while clients write and read: what a client was told stays true.

use crate::{Load, World, writers::Writers};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};
use tombolo_testkit::postgres;
use tombolo_tests::dice::{Dice, number, seed};

/// Kills where `TOMBOLO_KILLS` says nothing else.
const KILLS: u64 = 30;

/// Kills one of them, or both replicas, and brings it back.
pub(crate) async fn strike(world: &mut World, dice: &mut Dice) -> &'static str {
    let victim = dice.pick(&["a replica", "the other replica", "both replicas", "PostgreSQL"]);
    let killed: &[&str] = match victim {
        "a replica" => &["controller"],
        "the other replica" => &["controller-b"],
        "both replicas" => &["controller", "controller-b"],
        _ => &[],
    };
    for name in killed {
        world.kill(name);
        sleep(Duration::from_millis(dice.below(50))).await;
    }
    if killed.is_empty() {
        tokio::task::spawn_blocking(postgres::crash).await.unwrap();
    }
    sleep(Duration::from_millis(dice.below(200))).await;
    for name in killed {
        world.restart(name).await;
    }
    victim
}

pub(crate) async fn many_are_killed_at_random(world: &mut World, load: &Load) {
    let (kills, seed) = (number("TOMBOLO_KILLS").unwrap_or(KILLS), seed("TOMBOLO_SEED"));
    eprintln!("  {kills} kills; TOMBOLO_SEED={seed}");
    load.whole().await;
    let begin = Instant::now();
    let mut writers = Writers::start(&world.api, seed, Duration::ZERO).await;
    let (mut dice, mut struck) = (Dice::new(seed), BTreeMap::<_, u32>::new());
    for _ in 0..kills {
        *struck.entry(strike(world, &mut dice).await).or_default() += 1;
        sleep(Duration::from_millis(dice.below(300))).await;
        writers.check();
    }
    load.since(begin, begin).await.nothing_noticed(world);
    let counts = writers.stop().await;
    eprintln!("  {struck:?}: {counts}");
    assert!(counts.acknowledged > kills, "{counts} are no test of {kills} kills");
}
