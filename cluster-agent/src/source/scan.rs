//! A look at the directory: which files there are, and the content of those that may have changed.

use super::files::MAX_FILE_BYTES;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// More files than this are not read.
pub(super) const MAX_FILES: usize = 10_000;

/// Folders that are named in a report; more say nothing more.
const MAX_FOLDERS: usize = 20;

/// What a file looks like from outside. A save changes it, but for two saves of the same length in one tick of the
/// file system's clock; those come with events, and events are read whatever the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self { inode: meta.ino(), length: meta.len(), changed: (meta.ctime(), meta.ctime_nsec()) }
    }
}

/// A file, with its content where it was read.
pub(super) type FoundFile = (Stamp, Option<io::Result<Vec<u8>>>);

/// What a look brought.
pub(super) struct Found {
    pub(super) files: BTreeMap<String, FoundFile>,
    pub(super) too_many: usize,
    /// Folders in it, which are not read.
    pub(super) folders: Vec<String>,
    /// The directory itself, to notice when another one stands in its place.
    pub(super) itself: (u64, u64),
}

/// Lists the directory, and reads the files that are new, look different, or are named by an event.
pub(super) fn scan(
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
    names.sort();
    let folder = |name: &&String| !name.starts_with('.') && path.join(name).is_dir();
    let folders =
        names.iter().filter(|name| !is_manifest(name)).filter(folder).take(MAX_FOLDERS).cloned().collect();
    names.retain(|name| is_manifest(name));
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
    Ok(Found { files, too_many, folders, itself: (itself.dev(), itself.ino()) })
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
