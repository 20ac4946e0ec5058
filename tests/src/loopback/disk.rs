//! A disk of its own, which a test may fill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A small disk. What stays of it when the test is killed goes with the mount namespace.
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn mount(at: &Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tombolo-test"]).arg(at);
        assert!(mount.status().unwrap().success(), "{mount:?}");
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
