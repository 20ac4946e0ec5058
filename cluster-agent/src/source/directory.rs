//! The watched directory. The kernel's events only wake; the truth is read again.
//!
//! What adds or changes something takes effect at once. What would take an object away (a file that is gone, is
//! shorter, or is damaged) is read once more after a moment: it may be half of a save.

use super::{
    Batch, Change, Files,
    files::MAX_FILE_BYTES,
    keeper::{Keeper, Kept},
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
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
/// More files than this are not read.
const MAX_FILES: usize = 10_000;

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
    failure: Option<Problem>,
    keeper: Keeper,
}

/// What a file looks like from outside. A save changes it, but for two saves of the same length in one tick of the
/// file system's clock; those come with events, and events are read whatever the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self { inode: meta.ino(), length: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
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

/// A file, with its content where it was read.
type FoundFile = (Stamp, Option<io::Result<Vec<u8>>>);

struct Found {
    files: BTreeMap<String, FoundFile>,
    too_many: usize,
    /// The directory itself, to notice when another one stands in its place.
    itself: (u64, u64),
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
            failure: None,
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
                sink(Batch { changes, problems: now.clone(), read: self.read });
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
        self.failure = (found.too_many > 0).then(|| Problem {
            subject: self.path.display().to_string(),
            message: format!(
                "holds {} files more than the {MAX_FILES} that are read; put several objects into one file",
                found.too_many
            ),
        });
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
        self.failure = Some(Problem {
            subject: self.path.display().to_string(),
            message: format!("the directory of manifests can't be read: {error}{stays}"),
        });
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        self.failure.iter().cloned().chain(self.files.problems()).collect()
    }
}

fn is_close_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

/// Lists the directory, and reads the files that are new, look different, or are named by an event.
fn scan(
    path: &Path,
    stamps: &BTreeMap<String, Stamp>,
    force: &BTreeSet<String>,
    all: bool,
) -> io::Result<Found> {
    let itself = fs::metadata(path)?;
    let mut files = BTreeMap::new();
    let mut too_many = 0;
    let mut names: Vec<String> =
        fs::read_dir(path)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| is_manifest(name));
    names.sort();
    for name in names {
        // Through symbolic links, as mounted ConfigMaps have them. What is no file, or gone meanwhile, is not there.
        let Ok(meta) = fs::metadata(path.join(&name)) else { continue };
        if !meta.is_file() {
            continue;
        }
        if files.len() >= MAX_FILES {
            too_many += 1;
            continue;
        }
        let stamp = Stamp::of(&meta);
        let same = stamps.get(&name) == Some(&stamp) && !all && !force.contains(&name);
        let content = (!same).then(|| read(&path.join(&name)));
        files.insert(name, (stamp, content));
    }
    Ok(Found { files, too_many, itself: (itself.dev(), itself.ino()) })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there is more.
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with('.')
        && name
            .rsplit_once('.')
            .is_some_and(|(stem, end)| !stem.is_empty() && matches!(end, "yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::{sync::mpsc, time::timeout};

    fn account(name: &str) -> String {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}\n")
    }

    struct Watched {
        path: PathBuf,
        batches: mpsc::Receiver<Batch>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Watched {
        fn start(path: &Path) -> Self {
            let (tell, batches) = mpsc::channel(64);
            let directory = Directory::new(path.to_owned(), Keeper::new(path.with_extension("kept")));
            let task = tombolo_runtime::task::spawn(
                "directory",
                directory.run(move |batch| {
                    tell.try_send(batch).unwrap();
                }),
            );
            Self { path: path.to_owned(), batches, task }
        }
        async fn next(&mut self) -> Batch {
            timeout(Duration::from_secs(10), self.batches.recv()).await.expect("a batch in time").unwrap()
        }
        /// Batches until this many changes came in all.
        async fn changes(&mut self, count: usize) -> Vec<String> {
            let mut all = Vec::new();
            while all.len() < count {
                all.extend(self.next().await.changes.into_iter().map(|change| match change {
                    Change::Apply(object) => format!("+{}", object.key()),
                    Change::Delete(key) => format!("-{key}"),
                }));
            }
            all
        }
        fn write(&self, name: &str, text: &str) {
            fs::write(self.path.join(name), text).unwrap();
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    #[tokio::test]
    async fn sees_changes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), account("a")).unwrap();
        fs::write(dir.path().join("notes.txt"), "not a manifest").unwrap();
        let mut watched = Watched::start(dir.path());
        assert_eq!(watched.changes(1).await, ["+ServiceAccount default/a"]);
        let began = Instant::now();
        watched.write("b.yml", &account("b"));
        assert_eq!(watched.changes(1).await, ["+ServiceAccount default/b"]);
        assert!(began.elapsed() < Duration::from_secs(2), "by an event, not by the rescan");
        // An atomic save: a file of another name, renamed over.
        watched.write(".a.yaml.swp", &account("c"));
        fs::rename(dir.path().join(".a.yaml.swp"), dir.path().join("a.yaml")).unwrap();
        assert_eq!(watched.changes(2).await, ["-ServiceAccount default/a", "+ServiceAccount default/c"]);
        fs::remove_file(dir.path().join("b.yml")).unwrap();
        assert_eq!(watched.changes(1).await, ["-ServiceAccount default/b"]);
    }

    #[tokio::test]
    async fn half_a_save_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let whole = format!("{}---\n{}", account("a"), account("b"));
        fs::write(dir.path().join("f.yaml"), &whole).unwrap();
        let mut watched = Watched::start(dir.path());
        assert_eq!(watched.changes(2).await.len(), 2);
        for cut in [0, 5, account("a").len()] {
            // As an editor that truncates and writes on.
            watched.write("f.yaml", &whole[..cut]);
            tokio::time::sleep(SETTLE / 4).await;
            watched.write("f.yaml", &whole);
        }
        watched.write("g.yaml", &account("g"));
        assert_eq!(watched.changes(1).await, ["+ServiceAccount default/g"], "and no deletion before it");
    }

    #[tokio::test]
    async fn a_lost_directory_withdraws_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifests");
        let mut watched = Watched::start(&path);
        let first = watched.next().await;
        assert!(!first.read && first.problems[0].message.contains("nothing is reported before"), "{first:?}");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), account("a")).unwrap();
        assert_eq!(watched.changes(1).await, ["+ServiceAccount default/a"]);
        fs::rename(&path, dir.path().join("away")).unwrap();
        let lost = watched.next().await;
        assert!(lost.changes.is_empty() && lost.problems[0].message.contains("stays in force"), "{lost:?}");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), account("b")).unwrap();
        let mut both = watched.changes(2).await;
        both.sort();
        assert_eq!(both, ["+ServiceAccount default/b", "-ServiceAccount default/a"]);
        watched.write("b.yaml", &account("c"));
        assert_eq!(watched.changes(1).await, ["+ServiceAccount default/c"], "the new directory is watched");
    }

    #[tokio::test]
    async fn an_unreadable_file_is_reported_and_keeps_its_objects() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), account("a")).unwrap();
        let mut watched = Watched::start(dir.path());
        assert_eq!(watched.changes(1).await.len(), 1);
        fs::set_permissions(dir.path().join("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
        if File::open(dir.path().join("a.yaml")).is_ok() {
            // The tests run as root here, whom no mode stops: a link to itself can't be read by anybody.
            fs::remove_file(dir.path().join("a.yaml")).unwrap();
            std::os::unix::fs::symlink("a.yaml", dir.path().join("a.yaml")).unwrap();
            assert_eq!(watched.changes(1).await, ["-ServiceAccount default/a"], "that is no file at all");
            return;
        }
        let batch = watched.next().await;
        assert!(
            batch.changes.is_empty() && batch.problems[0].message.starts_with("cannot be read"),
            "{batch:?}"
        );
    }

    #[tokio::test]
    async fn a_restart_beside_damage_withdraws_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifests");
        fs::create_dir(&path).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(path.join(format!("{name}.yaml")), account(name)).unwrap();
        }
        let mut watched = Watched::start(&path);
        assert_eq!(watched.changes(3).await.len(), 3);
        drop(watched);
        fs::write(path.join("a.yaml"), "kind: [").unwrap();
        fs::remove_file(path.join("b.yaml")).unwrap();
        let mut watched = Watched::start(&path);
        let mut changes = watched.changes(4).await;
        changes.sort();
        let account = |sign: char, name: &str| format!("{sign}ServiceAccount default/{name}");
        assert_eq!(changes, [account('+', "a"), account('+', "b"), account('+', "c"), account('-', "b")]);
        drop(watched);
        // Without the directory at all, what was kept is what there is.
        fs::rename(&path, dir.path().join("away")).unwrap();
        let mut watched = Watched::start(&path);
        let first = watched.next().await;
        assert!(first.read && first.changes.len() == 2, "{first:?}");
        assert!(first.problems[0].message.contains("stays in force"), "{first:?}");
    }

    #[test]
    fn manifest_names() {
        for (name, is) in [
            ("a.yaml", true),
            ("a.yml", true),
            ("a.json", true),
            (".yaml", false),
            (".a.yaml", false),
            ("a.yaml~", false),
            ("a", false),
        ] {
            assert_eq!(is_manifest(name), is, "{name}");
        }
    }
}
