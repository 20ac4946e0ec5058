use super::*;
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
};
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
async fn a_folder_in_it_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("team")).unwrap();
    fs::create_dir_all(dir.path().join("..data")).unwrap();
    fs::write(dir.path().join("team/b.yaml"), account("b")).unwrap();
    fs::write(dir.path().join("a.yaml"), account("a")).unwrap();
    let mut watched = Watched::start(dir.path());
    let first = watched.next().await;
    assert_eq!(first.changes.len(), 1, "{first:?}");
    let [problem] = first.problems.as_slice() else { panic!("{first:?}") };
    assert!(
        problem.subject.ends_with("/team") && problem.message.contains("move its manifests"),
        "{problem:?}"
    );
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
    assert!(batch.changes.is_empty() && batch.problems[0].message.starts_with("cannot be read"), "{batch:?}");
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
