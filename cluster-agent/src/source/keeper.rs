//! The last sound content of each file, kept in the agent's own directory: an agent that starts beside a damaged file,
//! or without the directory of manifests, goes on from there.

use crate::private;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

/// Keeps contents in a folder of its own.
#[derive(Clone, Debug)]
pub struct Keeper(PathBuf);

/// A content to keep; none where the file is gone.
pub(super) type Kept = (String, Option<Vec<u8>>);

impl Keeper {
    /// Keeps in this folder, which is made at the first need.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// All that is kept. What can't be read is as if it were not there.
    pub(super) fn read(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(&self.0) else { return BTreeMap::new() };
        let read = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
            Some((name, fs::read(entry.path()).ok()?))
        };
        entries.filter_map(read).collect()
    }

    /// Keeps these. Blocks. Nothing waits for the disk: after a crash of the machine an older content, or none, is there.
    pub(super) fn write(&self, all: Vec<Kept>) {
        for (name, content) in all {
            let path = self.0.join(&name);
            let done = match content {
                None => fs::remove_file(&path).or_else(|error| {
                    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
                }),
                Some(content) => self.write_one(&name, &content),
            };
            if let Err(error) = done {
                tracing::warn!(path = %path.display(), error = %error, "a sound manifest could not be kept");
            }
        }
    }

    fn write_one(&self, name: &str, content: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let beside = self.0.join(format!(".{name}.new"));
        private::replace(&self.0.join(name), &beside, content, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_way_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path().join("kept"));
        keeper.write(vec![("a.yaml".to_owned(), Some(b"1".to_vec()))]);
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("kept/.a.yaml.new")).unwrap();
        keeper.write(vec![("a.yaml".to_owned(), Some(b"2".to_vec()))]);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(keeper.read()["a.yaml"], b"2");
    }
}
