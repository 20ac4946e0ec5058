//! What the programs leave on the disk.

use super::World;
use nix::sys::signal::Signal;
use std::{fs, path::Path};

impl World {
    /// Access logs grow for as long as nobody takes them away: does what logrotate would, and keeps what was written since the last time.
    pub fn rotate_logs(&self) {
        for (name, program) in &self.programs {
            let Some((cluster, part)) = name.strip_prefix("cluster-").and_then(|rest| rest.split_once('-'))
            else {
                continue;
            };
            let log = self.path(&format!("cluster-{cluster}/{part}-access.log"));
            if log.exists() {
                fs::rename(&log, log.with_extension("log.1")).unwrap();
                program.signal(Signal::SIGHUP);
            }
        }
    }
}

/// Bytes of all files below a folder.
#[must_use]
pub fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_count_with_all_that_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("one"), [0; 100]).unwrap();
        fs::write(dir.path().join("a/b/two"), [0; 23]).unwrap();
        assert_eq!(size(dir.path()), 123);
        assert_eq!(size(&dir.path().join("nothing")), 0);
    }
}
