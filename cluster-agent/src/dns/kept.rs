//! The zone from what the agent keeps on disk, for a DNS server that is a process of its own: it answers while the agent is
//! restarted, upgraded or gone. The kernel's events only wake; the files are the truth.

use super::{reader::ZoneWriter, zone};
use crate::{
    expose::{self, Exposed},
    state::{DataDir, StateError},
    synthesis,
    vip::AddressMode,
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{sync::Notify, time::timeout};
use tombolo_feed::cache::{self, CacheError};
use tombolo_model::{Generation, snapshot::ClusterResource};
use tombolo_runtime::{admin::Readiness, telemetry::chain};

/// The agent's last good snapshot, in its directory.
pub const SNAPSHOT: &str = "snapshot.json";
/// How the agent writes VIPs, in its directory. Kept, so that two processes can't be told two things.
pub const ADDRESSES: &str = "addresses.json";
/// How often the files are looked at without an event: for file systems that send none.
const RESCAN: Duration = Duration::from_secs(1);

/// Why the zone in force stays what it was.
#[derive(Debug, Error)]
pub(super) enum KeptError {
    #[error(
        "no snapshot was kept yet; the agent keeps the first one it gets (is `tombolo-agent run` running on this --data?)"
    )]
    Nothing,
    #[error(transparent)]
    Snapshot(#[from] CacheError),
    #[error(transparent)]
    Addresses(#[from] StateError),
    #[error("the kept snapshot can't be put in force: {0}")]
    Invalid(String),
}

/// What the files look like from outside; each save gives them another inode or time.
type Stamps = [Option<(u64, i64, i64)>; 3];

/// Puts the zone of the kept snapshot in force, and each that follows. What is gone or damaged withdraws nothing. Runs for as
/// long as it is polled.
pub(crate) async fn follow(data: DataDir, zones: ZoneWriter, readiness: Readiness) {
    let wake = Arc::new(Notify::new());
    let _watcher = watch(&data.file(""), &wake);
    let mut seen: Option<Stamps> = None;
    let mut complaint = None;
    readiness.set_not_ready(KeptError::Nothing.to_string());
    loop {
        let stamps = [SNAPSHOT, ADDRESSES, expose::FILE].map(|name| stamp(&data.file(name)));
        if seen != Some(stamps) {
            let from = data.clone();
            let read = tokio::task::spawn_blocking(move || read(&from)).await;
            match read.map_err(io::Error::other) {
                Ok(Ok((generation, zone))) => {
                    tracing::info!(
                        snapshot.generation = generation.get(),
                        "answering from the kept snapshot"
                    );
                    zones.set(zone);
                    readiness.set_ready();
                    complaint = None;
                    seen = Some(stamps);
                }
                Ok(Err(error)) => complain(&mut complaint, chain(&error)),
                Err(error) => complain(&mut complaint, chain(&error)),
            }
        }
        // late or early: both look again
        let _ = timeout(RESCAN, wake.notified()).await;
    }
}

/// Once for each thing that is wrong.
fn complain(last: &mut Option<String>, error: String) {
    if last.as_ref() != Some(&error) {
        tracing::warn!(error, "the zone in force stays as it is");
        *last = Some(error);
    }
}

pub(super) fn read(data: &DataDir) -> Result<(Generation, zone::Zone), KeptError> {
    let mode: AddressMode = data.read_json(ADDRESSES)?.ok_or(KeptError::Nothing)?;
    let kept = cache::load::<ClusterResource>(&data.file(SNAPSHOT))?;
    let (generation, resources) = kept.ok_or(KeptError::Nothing)?;
    if let Some(membership) = data.membership()? {
        synthesis::validate(&resources, &membership.cluster).map_err(KeptError::Invalid)?;
    }
    let exposed: Option<Exposed> = data.read_json(expose::FILE)?;
    Ok((generation, zone::build(&resources, generation, &mode, exposed.as_ref())))
}

fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    fs::metadata(path).ok().map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

fn watch(folder: &Path, wake: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let wake = Arc::clone(wake);
    let started = notify::recommended_watcher(move |_: notify::Result<notify::Event>| wake.notify_one())
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    started
        .inspect_err(|error| tracing::warn!(%error, "no events for the folder; it is looked at every second"))
        .ok()
}
