//! The soak: faults from a seeded plan, one after another and sometimes two at once, under load that never rests, while clients write and read. A
//! failure that no fault explains ends it at once. At the end, memory, files and threads of each program must be what they were.
//!
//! Short in `make test`; `make soak` gives it time.

mod place;
mod report;
mod rotation;
mod sampler;
mod stage;

use crate::{Load, TURN, World, writers::Writers};
use place::Place;
use report::Report;
use sampler::Sampler;
use stage::Stage;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tombolo_tests::{
    dice::{number, seed},
    loopback::{Lives, Shape},
    soak::{Act, Failure, Plan, Windows},
};

/// How long it takes where `SOAK_MINUTES` says nothing: as a test among others.
const SHORT: Duration = Duration::from_secs(75);
/// In a shorter run, no rotation of the root comes to its end.
const ROTATING: Duration = Duration::from_secs(4 * 60);
/// Between two looks at what failed.
const LOOK: Duration = Duration::from_millis(20);
/// Kills between two looks at the history.
const BATCH: u64 = 25;

/// What is asked for.
#[derive(Clone, Copy)]
struct Options {
    seed: u64,
    /// Random kills of the control plane, before anything else.
    kills: u64,
    /// How long it goes on after those.
    whole: Duration,
}

impl Options {
    fn read() -> Self {
        let minutes = number("SOAK_MINUTES").map(|minutes| Duration::from_secs(minutes * 60));
        Self {
            seed: seed("SOAK_SEED"),
            kills: number("SOAK_KILLS").unwrap_or_default(),
            whole: minutes.unwrap_or(SHORT),
        }
    }

    /// How long a client that writes rests: where it's about kills, it doesn't.
    const fn pause(&self) -> Duration {
        Duration::from_millis(if self.whole.is_zero() { 0 } else { 100 })
    }
}

/// All acts, one after the other.
async fn play(options: &Options, stage: &mut Stage<'_>, writers: &mut Writers) {
    let mut left = options.kills;
    while left > 0 {
        let some = left.min(BATCH);
        stage.strike(some).await;
        stage.whole().await;
        writers.check();
        left -= some;
    }
    for act in Act::ALL {
        let begin = Instant::now();
        if options.whole >= ROTATING {
            stage.rotate().await;
        }
        let mut plan = Plan::new(options.seed, act);
        while begin.elapsed() < act.length(options.whole) {
            let step = plan.next().expect("a plan has no end");
            stage.step(&step).await;
            writers.check();
        }
    }
    stage.end().await;
}

/// Looks at what failed, until there is something that no fault explains.
async fn unexplained(load: &Load, windows: &Mutex<Windows>, start: Instant) -> Failure {
    loop {
        if let Some(failure) = unexplained_now(load, windows, start) {
            return failure;
        }
        sleep(LOOK).await;
    }
}

fn unexplained_now(load: &Load, windows: &Mutex<Windows>, start: Instant) -> Option<Failure> {
    let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = load.take_failed().into_iter().filter_map(|asked| {
        let reason = asked.failed?;
        let (began, ended) = (asked.began.saturating_duration_since(start), asked.ended - start);
        Some(Failure { kind: asked.kind, began, ended, reason })
    });
    let mut failed: Vec<Failure> = failed.collect();
    failed.retain(|failure| !windows.explain(failure));
    failed.into_iter().next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_for_a_while() {
    let _turn = TURN.lock().await;
    let options = Options::read();
    let place = Place::new(options.seed);
    let mut world = World::start_with(Shape::Twins, Lives::Short).await;
    let load = Load::start(&world).await;
    let mut writers = Writers::start(&world.api, options.seed, options.pause()).await;
    let start = place.begin();
    let windows = Mutex::new(Windows::default());
    let sampler = Sampler::start(&world, options.whole, start);
    let mut stage = Stage::new(&mut world, &load, &windows, &sampler, &place).await;
    let failure = tokio::select! {
        () = play(&options, &mut stage, &mut writers) => unexplained_now(&load, &windows, start),
        failure = unexplained(&load, &windows, start) => Some(failure),
    };
    let (counts, rotations) = stage.into_counts();
    if let Some(failure) = failure {
        report::refused(&world);
        panic!("nothing explains that {failure}");
    }
    place.is_at("the end");
    let told = writers.stop().await;
    let (lives, disk) = sampler.stop().await;
    let explained = windows.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = Report {
        took: start.elapsed(),
        seed: options.seed,
        counts: &counts,
        rotations,
        totals: load.totals(),
        explained: &explained,
        told,
        lives: &lives,
        disk: &disk,
        shortest: (!options.whole.is_zero()).then(|| options.whole / 3),
    };
    let wrong = report.print();
    load.stop().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(told.acknowledged > counts.kills, "{told} are no test of {} kills", counts.kills);
    assert!(counts.steps >= 3 || options.whole.is_zero(), "{} steps are no soak", counts.steps);
}
