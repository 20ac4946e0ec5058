//! From a socket's inode to the process that holds it, through `/proc`.
//!
//! Only done where a selector asks for a path or a cgroup: it reads the descriptors of processes. What is seen on the
//! way is remembered, so that a crowd of callers costs one look; and the processes seen last come first, their newest
//! descriptors before the others, so that a caller that connects again is found at once. What is remembered is only a
//! hint: that the process holds the socket is read again for every answer.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;

/// How many processes are remembered.
const REMEMBERED: usize = 256;
/// How many sockets are remembered.
const SOCKETS: usize = 1 << 16;

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

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptor {
    pid: u32,
    number: u32,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    /// The processes that were found last, the last one first.
    recent: VecDeque<u32>,
    /// Sockets by inode.
    sockets: HashMap<u32, Descriptor>,
}

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    seen: Mutex<Seen>,
    /// Held by the one who looks, so that others who wait find what he saw.
    looking: Mutex<()>,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self { proc: PathBuf::from("/proc"), seen: Mutex::default(), looking: Mutex::default() }
    }

    /// The process that holds the socket with this inode. Where several do (a fork), the one seen before, else the
    /// one with the lowest id.
    ///
    /// Blocks: up to one `readlink` for each descriptor of the machine.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] also where the process went, or let go of the socket, while it was looked at.
    pub(super) fn holder(&self, inode: u32) -> Result<Process, ProcessError> {
        if let Some(found) = self.remembered(inode) {
            return Ok(found);
        }
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = self.remembered(inode) {
            return Ok(found);
        }
        let recent: Vec<u32> = self.seen().recent.iter().copied().collect();
        for pid in &recent {
            match self.look(*pid, inode) {
                Ok(Some(descriptor)) => return self.read(descriptor, inode),
                Ok(None) => {}
                Err(_) => self.seen().recent.retain(|known| known != pid),
            }
        }
        let mut pids: Vec<u32> = fs::read_dir(&self.proc)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| !recent.contains(pid))
            .collect();
        pids.sort_unstable();
        let mut unreadable = 0;
        for pid in pids {
            match self.look(pid, inode) {
                Ok(Some(descriptor)) => return self.read(descriptor, inode),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => unreadable += 1,
                Err(_) => {}
            }
        }
        Err(ProcessError::NotFound { unreadable })
    }

    fn remembered(&self, inode: u32) -> Option<Process> {
        let descriptor = self.seen().sockets.get(&inode).copied()?;
        self.read(descriptor, inode).ok()
    }

    /// Looks through the descriptors of a process, the newest first, until the socket is found.
    fn look(&self, pid: u32, inode: u32) -> io::Result<Option<Descriptor>> {
        let mut numbers: Vec<u32> = fs::read_dir(self.proc.join(pid.to_string()).join("fd"))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut sockets = Vec::new();
        let mut found = None;
        for number in numbers {
            let descriptor = Descriptor { pid, number };
            let Some(socket) = self.socket(descriptor) else { continue };
            sockets.push((socket, descriptor));
            if socket == inode {
                found = Some(descriptor);
                break;
            }
        }
        let mut seen = self.seen();
        if seen.sockets.len() + sockets.len() > SOCKETS {
            seen.sockets.clear();
        }
        seen.sockets.extend(sockets.into_iter().take(SOCKETS));
        Ok(found)
    }

    /// The inode of the socket behind a descriptor.
    fn socket(&self, descriptor: Descriptor) -> Option<u32> {
        let home = self.proc.join(descriptor.pid.to_string());
        let link = fs::read_link(home.join("fd").join(descriptor.number.to_string())).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Reads the facts, then looks again whether it is still that process: ids are used again.
    fn read(&self, descriptor: Descriptor, inode: u32) -> Result<Process, ProcessError> {
        let home = self.proc.join(descriptor.pid.to_string());
        let found = Process { exe: executable(&home), cgroup: cgroup(&home) };
        let holds = self.socket(descriptor) == Some(inode);
        let mut seen = self.seen();
        if !holds {
            seen.sockets.remove(&inode);
            return Err(ProcessError::NotFound { unreadable: 0 });
        }
        if seen.recent.front() != Some(&descriptor.pid) {
            seen.recent.retain(|known| *known != descriptor.pid);
            seen.recent.push_front(descriptor.pid);
            seen.recent.truncate(REMEMBERED);
        }
        Ok(found)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(processes.seen().recent.front(), Some(&std::process::id()));
        assert!(processes.seen().sockets.contains_key(&inode));
        assert_eq!(processes.holder(inode).unwrap(), found, "from memory");
        drop(client);
        assert!(
            matches!(processes.holder(inode), Err(ProcessError::NotFound { .. })),
            "memory is only a hint"
        );
        assert!(!processes.seen().sockets.contains_key(&inode));
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
