//! The watched directory. The kernel's events only wake; the truth is read again.
//!
//! What adds or changes something takes effect at once. What would take an object away (a file that is gone, is
//! shorter, or is damaged) is read once more after a moment: it may be half of a save.

use super::{
    Batch, Change, Files,
    keeper::{Keeper, Kept},
    scan::{MAX_FILES, Stamp, scan},
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tombolo_wire::message::Problem;

/// How long a content that takes something away must stand.
const SETTLE: Duration = Duration::from_millis(100);
/// How often everything is looked at without an event: for file systems that send none.
const RESCAN: Duration = Duration::from_secs(5);
/// How often a directory that can't be read is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A directory of manifests: `*.yaml`, `*.yml` and `*.json` in it, not in directories below.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: Files,
    /// What was loaded, to see without reading that a file is as it was.
    stamps: BTreeMap<String, Stamp>,
    /// Contents that would take something away, and since when they stand.
    unsettled: BTreeMap<String, (Content, Instant)>,
    read: bool,
    /// What is wrong with the directory itself.
    failures: Vec<Problem>,
    keeper: Keeper,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Gone,
    Bytes(Vec<u8>),
}

/// What the events named since the last look.
#[derive(Debug, Default)]
struct Woken {
    names: Mutex<BTreeSet<OsString>>,
    all: std::sync::atomic::AtomicBool,
    wake: Notify,
}

impl Directory {
    /// The directory at `path`, of which nothing is read yet; sound contents are kept with `keeper`.
    #[must_use]
    pub fn new(path: PathBuf, keeper: Keeper) -> Self {
        Self {
            path,
            files: Files::default(),
            stamps: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            read: false,
            failures: Vec::new(),
            keeper,
        }
    }

    /// Watches, and gives every batch to `sink`. Never ends; cancel by dropping.
    pub async fn run(mut self, mut sink: impl FnMut(Batch) + Send) {
        let woken = Arc::new(Woken::default());
        let mut watched: Option<(RecommendedWatcher, (u64, u64))> = None;
        let mut problems = None;
        let mut kept = self.restore().await;
        loop {
            let names = std::mem::take(&mut *woken.names.lock().unwrap_or_else(PoisonError::into_inner));
            let all = woken.all.swap(false, std::sync::atomic::Ordering::Relaxed);
            let (found, itself) = self.look(names, all).await;
            let mut changes = std::mem::take(&mut kept);
            changes.extend(found);
            // A watch sticks to the directory it was made for; another one in its place needs a new watch. It is
            // made before the next look, so that nothing falls between the two.
            let mut again = false;
            if itself.is_none() || watched.as_ref().is_some_and(|(_, of)| Some(*of) != itself) {
                watched = None;
            }
            if let (None, Some(itself)) = (&watched, itself) {
                watched = self.watch(&woken).map(|watcher| (watcher, itself));
                again = watched.is_some();
            }
            let now = self.problems();
            if !changes.is_empty() || problems.as_ref() != Some(&now) {
                sink(Batch { changes, problems: now.clone(), read: self.read, mcs: None });
                problems = Some(now);
            }
            if again {
                continue;
            }
            let settle = self.unsettled.values().map(|(_, since)| *since + SETTLE).min();
            let look_again = if itself.is_some() { RESCAN } else { RETRY };
            let until = settle.unwrap_or_else(|| Instant::now() + look_again);
            tokio::select! {
                () = woken.wake.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Begins with what was kept. What is damaged or gone since is held against it, as if the agent had run on.
    async fn restore(&mut self) -> Vec<Change> {
        let keeper = self.keeper.clone();
        let kept = tokio::task::spawn_blocking(move || keeper.read()).await.unwrap_or_default();
        let mut changes = Vec::new();
        for (name, content) in kept {
            changes.extend(self.files.load(&name, &content));
            if !self.files.is_sound(&name) {
                // Half written when the machine went down.
                changes.extend(self.files.remove(&name));
            }
        }
        self.read = self.files.names().next().is_some();
        changes
    }

    fn watch(&self, woken: &Arc<Woken>) -> Option<RecommendedWatcher> {
        let woken = Arc::clone(woken);
        let tell = move |event: notify::Result<notify::Event>| {
            match event {
                Ok(event) if event.need_rescan() => {
                    woken.all.store(true, std::sync::atomic::Ordering::Relaxed)
                }
                // Reading is what we do ourselves.
                Ok(event) if event.kind.is_access() && !is_close_write(&event) => return,
                Ok(event) => {
                    let mut names = woken.names.lock().unwrap_or_else(PoisonError::into_inner);
                    names.extend(event.paths.iter().filter_map(|path| path.file_name()).map(OsString::from));
                }
                Err(_) => woken.all.store(true, std::sync::atomic::Ordering::Relaxed),
            }
            woken.wake.notify_one();
        };
        let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
            watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::warn!(
                    error = %error,
                    path = %self.path.display(),
                    "the directory can't be watched; it is read every {} s instead",
                    RESCAN.as_secs()
                );
            })
            .ok()
    }

    /// One look: reads what may have changed, and says what follows.
    async fn look(&mut self, named: BTreeSet<OsString>, all: bool) -> (Vec<Change>, Option<(u64, u64)>) {
        let (path, stamps) = (self.path.clone(), self.stamps.clone());
        let mut force: BTreeSet<String> = named.into_iter().filter_map(|n| n.into_string().ok()).collect();
        force.extend(self.unsettled.keys().cloned());
        let found = tokio::task::spawn_blocking(move || scan(&path, &stamps, &force, all)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return (self.unreadable(&error), None),
            Err(error) => return (self.unreadable(&io::Error::other(error)), None),
        };
        self.read = true;
        self.failures = self.left_out(found.too_many, &found.folders);
        let mut changes = Vec::new();
        let mut keep: Vec<Kept> = Vec::new();
        let gone: Vec<String> = self
            .files
            .names()
            .chain(self.unsettled.keys().map(String::as_str))
            .filter(|name| !found.files.contains_key(*name))
            .map(str::to_owned)
            .collect();
        for name in gone {
            if self.settled(&name, &Content::Gone) {
                self.stamps.remove(&name);
                changes.extend(self.files.remove(&name));
                keep.push((name, None));
            }
        }
        for (name, (stamp, content)) in found.files {
            match content {
                None => {}
                Some(Err(error)) => {
                    self.stamps.remove(&name);
                    self.files.unreadable(&name, &error.to_string());
                }
                Some(Ok(bytes)) => {
                    // A file that is new has nothing to take away.
                    let known = self.files.knows(&name);
                    let content = Content::Bytes(bytes);
                    let Content::Bytes(bytes) = &content else { continue };
                    if known && self.files.would_withdraw(&name, bytes) && !self.settled(&name, &content) {
                        continue;
                    }
                    self.unsettled.remove(&name);
                    self.stamps.insert(name.clone(), stamp);
                    changes.extend(self.files.load(&name, bytes));
                    if self.files.is_sound(&name) {
                        keep.push((name, Some(bytes.clone())));
                    }
                }
            }
        }
        if !keep.is_empty() {
            let keeper = self.keeper.clone();
            // A panic in it was logged, and takes nothing away.
            let _ = tokio::task::spawn_blocking(move || keeper.write(keep)).await;
        }
        (changes, Some(found.itself))
    }

    /// What of the directory is not read.
    fn left_out(&self, too_many: usize, folders: &[String]) -> Vec<Problem> {
        let mut all: Vec<Problem> = folders
            .iter()
            .map(|name| Problem {
                subject: self.path.join(name).display().to_string(),
                message: "is a folder, and is not read; move its manifests into the directory itself"
                    .to_owned(),
            })
            .collect();
        if too_many > 0 {
            let message = format!(
                "holds {too_many} files more than the {MAX_FILES} that are read; put several objects into one file"
            );
            all.push(Problem { subject: self.path.display().to_string(), message });
        }
        all
    }

    /// Whether this content has stood long enough; begins the wait where it is new.
    fn settled(&mut self, name: &str, content: &Content) -> bool {
        match self.unsettled.get(name) {
            Some((before, since)) if before == content => {
                let stands = since.elapsed() >= SETTLE;
                if stands {
                    self.unsettled.remove(name);
                }
                stands
            }
            _ => {
                self.unsettled.insert(name.to_owned(), (content.clone(), Instant::now()));
                false
            }
        }
    }

    /// The directory can't be read. What it said stays in force.
    fn unreadable(&mut self, error: &io::Error) -> Vec<Change> {
        let stays =
            if self.read { "; what it held stays in force" } else { "; nothing is reported before it is" };
        self.failures = vec![Problem {
            subject: self.path.display().to_string(),
            message: format!("the directory of manifests can't be read: {error}{stays}"),
        }];
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        self.failures.iter().cloned().chain(self.files.problems()).collect()
    }
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

#[cfg(test)]
mod tests;
