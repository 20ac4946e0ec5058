//! Looks at what the programs take, again and again.

use crate::World;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tombolo_runtime::task;
use tombolo_tests::{
    loopback::size,
    soak::{Lives, Sample},
};

/// How often it looks in a run: so many times, where that is neither too often nor too seldom.
const LOOKS: u32 = 400;

#[derive(Default)]
struct Seen {
    lives: Lives,
    /// Bytes on the disk.
    disk: Vec<u64>,
}

/// Looks at what the programs take, until it is stopped.
pub(super) struct Sampler {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sampler {
    pub(super) fn start(world: &World, whole: Duration, start: Instant) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (stop, stopped) = watch::channel(false);
        let period = (whole / LOOKS).clamp(Duration::from_millis(500), Duration::from_secs(5));
        let task = task::spawn("sampler", look(Arc::clone(&seen), world.path(""), period, start, stopped));
        let this = Self { seen, stop, task };
        this.follow(world.pids());
        this
    }

    /// These programs run now.
    pub(super) fn follow(&self, programs: BTreeMap<String, u32>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).lives.follow(programs);
    }

    /// What it saw: of the programs, and of the disk.
    pub(super) async fn stop(self) -> (Lives, Vec<u64>) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut seen.lives), std::mem::take(&mut seen.disk))
    }
}

async fn look(
    seen: Arc<Mutex<Seen>>,
    folder: PathBuf,
    period: Duration,
    start: Instant,
    stopped: watch::Receiver<bool>,
) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tick.tick().await;
        let (seen, folder) = (Arc::clone(&seen), folder.clone());
        let once = move || {
            let size = size(&folder);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.lives.sample(|pid| Sample::of(pid, start.elapsed()));
            seen.disk.push(size);
        };
        tokio::task::spawn_blocking(once).await.unwrap();
    }
}
