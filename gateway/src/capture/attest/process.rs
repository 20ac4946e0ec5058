//! From a socket's inode to the process that holds it, through `/proc`.
//!
//! Only done where a selector asks for a path or a cgroup: it reads the descriptors of processes. The processes seen
//! last come first, so a caller that connects again costs its own descriptors and no one else's.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use thiserror::Error;

/// How many processes are remembered.
const REMEMBERED: usize = 256;

/// What is known of a process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) exe: Option<PathBuf>,
    pub(super) cgroup: Option<String>,
}

/// Why the process is not known.
#[derive(Debug, Error)]
pub(super) enum ProcessError {
    /// No process that may be read holds the socket.
    #[error(
        "no process holds the caller's socket, among those that this proxy may read ({unreadable} may not be: \
         run the proxy as the callers' user or as root)"
    )]
    NotFound {
        /// Processes whose descriptors this proxy may not read.
        unreadable: usize,
    },
    /// `/proc` itself can't be read.
    #[error("the list of processes can't be read")]
    Proc(#[from] io::Error),
}

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    recent: Mutex<VecDeque<u32>>,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self { proc: PathBuf::from("/proc"), recent: Mutex::default() }
    }

    /// The process that holds the socket with this inode. Where several do (a fork), the one seen before, else the
    /// one with the lowest id.
    ///
    /// Blocks: up to one `readlink` for each descriptor of the machine.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] also where the process went, or let go of the socket, while it was looked at.
    pub(super) fn holder(&self, inode: u32) -> Result<Process, ProcessError> {
        let target = format!("socket:[{inode}]");
        let recent: Vec<u32> = self.lock().iter().copied().collect();
        for pid in &recent {
            match self.descriptor(*pid, &target) {
                Ok(Some(descriptor)) => return self.read(*pid, &descriptor, &target),
                Ok(None) => {}
                Err(_) => self.lock().retain(|known| known != pid),
            }
        }
        let mut pids: Vec<u32> = fs::read_dir(&self.proc)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| !recent.contains(pid))
            .collect();
        pids.sort_unstable();
        let mut unreadable = 0;
        for pid in pids {
            match self.descriptor(pid, &target) {
                Ok(Some(descriptor)) => return self.read(pid, &descriptor, &target),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unreadable += 1,
                Err(_) => {}
            }
        }
        Err(ProcessError::NotFound { unreadable })
    }

    /// The descriptor by which a process holds the socket.
    fn descriptor(&self, pid: u32, target: &str) -> io::Result<Option<PathBuf>> {
        for entry in fs::read_dir(self.proc.join(pid.to_string()).join("fd"))? {
            let path = entry?.path();
            if fs::read_link(&path).is_ok_and(|link| link.as_os_str() == target) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Reads the facts, then looks again whether it is still that process: ids are used again.
    fn read(&self, pid: u32, descriptor: &Path, target: &str) -> Result<Process, ProcessError> {
        let home = self.proc.join(pid.to_string());
        let found = Process { exe: executable(&home), cgroup: cgroup(&home) };
        if fs::read_link(descriptor).is_ok_and(|link| link.as_os_str() == target) {
            let mut recent = self.lock();
            recent.retain(|known| *known != pid);
            recent.push_front(pid);
            recent.truncate(REMEMBERED);
            return Ok(found);
        }
        Err(ProcessError::NotFound { unreadable: 0 })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u32>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of the executable, where the file at that path is what runs. A process in a container may show any path
/// of its own file system; only one that is the same file here counts.
fn executable(home: &Path) -> Option<PathBuf> {
    let link = home.join("exe");
    let path = fs::read_link(&link).ok()?;
    let (runs, named) = (fs::metadata(&link).ok()?, fs::metadata(&path).ok()?);
    (runs.dev() == named.dev() && runs.ino() == named.ino()).then_some(path)
}

fn cgroup(home: &Path) -> Option<String> {
    let text = fs::read_to_string(home.join("cgroup")).ok()?;
    cgroup_path(&text).map(str::to_owned)
}

/// The v2 line (`0::/path`); where that is not there or says nothing, systemd's own hierarchy.
fn cgroup_path(text: &str) -> Option<&str> {
    let line = |prefix: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix(prefix)
        })
    };
    match line(":") {
        Some(path) if path != "/" => Some(path),
        root => line("name=systemd:").or(root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn inode_of(stream: &TcpStream) -> u32 {
        let link =
            fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(stream))).unwrap();
        link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn own_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let processes = Processes::new();
        let inode = inode_of(&client);
        let found = processes.holder(inode).unwrap();
        assert_eq!(found.exe, Some(std::env::current_exe().unwrap()));
        assert!(found.cgroup.is_some());
        assert_eq!(processes.lock().front(), Some(&std::process::id()));
        assert_eq!(processes.holder(inode).unwrap(), found, "from memory");
        drop(client);
        assert!(matches!(processes.holder(inode), Err(ProcessError::NotFound { .. })));
    }

    #[test]
    fn another_file_at_the_path_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        std::os::unix::fs::symlink(&a, dir.path().join("exe")).unwrap();
        assert_eq!(executable(dir.path()), Some(a.clone()));
        fs::remove_file(&a).unwrap();
        assert_eq!(executable(dir.path()), None);
    }

    #[test]
    fn cgroup_lines() {
        assert_eq!(cgroup_path("0::/system.slice/a.service\n"), Some("/system.slice/a.service"));
        assert_eq!(
            cgroup_path("4:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            Some("/system.slice/a.service")
        );
        assert_eq!(cgroup_path("0::/\n"), Some("/"));
        assert_eq!(cgroup_path("4:cpu:/x\n"), None);
    }
}
