//! From a socket's inode to the processes that hold it, through `/proc`.
//!
//! Only done where a selector asks for a path or a cgroup: it reads the descriptors of every process, because a socket
//! can be handed on, and who shares it may send on it. Nothing of it is kept: an answer is of a look that began after
//! the question. Those who ask while others look share the next look, so that a crowd of callers costs a few.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use thiserror::Error;

/// How many holders of one socket are looked at; more of them are no one workload.
const HOLDERS: usize = 64;
/// How often is looked for holders that stay while they are looked at.
const LOOKS: u32 = 3;

/// What is known of a process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
         run the proxy as the callers' user, as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)"
    )]
    NotFound {
        /// Processes whose descriptors this proxy may not read.
        unreadable: usize,
    },
    /// So many hold it that they are not looked at.
    #[error("more than {HOLDERS} processes hold the caller's socket")]
    Shared,
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

/// What one look through all processes saw.
#[derive(Debug, Default)]
struct Look {
    /// Its number. The first is 1; zero is none.
    number: u64,
    /// Sockets by inode, with one descriptor of each process that holds them.
    sockets: HashMap<u32, Vec<Descriptor>>,
    /// Processes whose descriptors may not be read.
    unreadable: usize,
}

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct Processes {
    proc: PathBuf,
    /// Looks that have begun.
    begun: AtomicU64,
    /// Held by the one who looks.
    last: Mutex<Arc<Look>>,
}

impl Processes {
    pub(super) fn new() -> Self {
        Self { proc: PathBuf::from("/proc"), begun: AtomicU64::new(0), last: Mutex::default() }
    }

    /// What is known of the processes that hold the socket with this inode: each different answer once, and at least
    /// one. A process that this proxy may not read is not among them.
    ///
    /// Blocks: one `readlink` for each descriptor of the machine.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] also where a process went, or let go of the socket, while it was looked at.
    pub(super) fn holders(&self, inode: u32) -> Result<Vec<Process>, ProcessError> {
        let mut unreadable = 0;
        for _ in 0..LOOKS {
            let look = self.fresh()?;
            unreadable = look.unreadable;
            let Some(descriptors) = look.sockets.get(&inode) else { break };
            if descriptors.len() > HOLDERS {
                return Err(ProcessError::Shared);
            }
            // One that let go meanwhile (a child between fork and exec does) may have handed it on: look again.
            let read = |descriptor: &Descriptor| self.read(*descriptor, inode);
            if let Some(mut found) = descriptors.iter().map(read).collect::<Option<Vec<_>>>() {
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
        Err(ProcessError::NotFound { unreadable })
    }

    /// A look that began after this was called.
    fn fresh(&self) -> io::Result<Arc<Look>> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.number > asked {
            return Ok(last.clone());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let look = Arc::new(self.look(number)?);
        *last = look.clone();
        Ok(look)
    }

    fn look(&self, number: u64) -> io::Result<Look> {
        let mut look = Look { number, ..Look::default() };
        let numbers = |entries: fs::ReadDir| {
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        };
        for pid in numbers(fs::read_dir(&self.proc)?) {
            let descriptors = match fs::read_dir(self.proc.join(pid.to_string()).join("fd")) {
                Ok(descriptors) => descriptors,
                Err(error) => {
                    // One that ended meanwhile does not matter.
                    look.unreadable += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                    continue;
                }
            };
            for number in numbers(descriptors) {
                let descriptor = Descriptor { pid, number };
                let Some(inode) = self.socket(descriptor) else { continue };
                let holders = look.sockets.entry(inode).or_default();
                if holders.last().is_none_or(|last| last.pid != pid) {
                    holders.push(descriptor);
                }
            }
        }
        Ok(look)
    }

    /// The inode of the socket behind a descriptor.
    fn socket(&self, descriptor: Descriptor) -> Option<u32> {
        let home = self.proc.join(descriptor.pid.to_string());
        let link = fs::read_link(home.join("fd").join(descriptor.number.to_string())).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Reads the facts, then looks again whether it is still that process: ids are used again.
    fn read(&self, descriptor: Descriptor, inode: u32) -> Option<Process> {
        let home = self.proc.join(descriptor.pid.to_string());
        let found = Process { exe: executable(&home), cgroup: cgroup(&home) };
        (self.socket(descriptor) == Some(inode)).then_some(found)
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
        let found = processes.holders(inode).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].exe, Some(std::env::current_exe().unwrap()));
        assert!(found[0].cgroup.is_some());
        drop(client);
        assert!(matches!(processes.holders(inode), Err(ProcessError::NotFound { .. })), "nothing is kept");
    }

    /// A process that was given a socket counts as much as the one that made it.
    #[test]
    fn everybody_who_holds_it_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = inode_of(&client);
        let given = std::process::Stdio::from(std::os::fd::OwnedFd::from(client.try_clone().unwrap()));
        let mut child = std::process::Command::new("sleep").arg("60").stdin(given).spawn().unwrap();
        let found = Processes::new().holders(inode);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(client);
        let found: Vec<_> = found.unwrap().into_iter().map(|process| process.exe.unwrap()).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&std::env::current_exe().unwrap()), "{found:?}");
    }

    #[test]
    fn a_look_is_shared_by_those_who_asked_before_it_began() {
        let processes = Arc::new(Processes::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = inode_of(&client);
        let busy = processes.last.lock().unwrap();
        let crowd: Vec<_> = (0..8)
            .map(|_| {
                let processes = processes.clone();
                std::thread::spawn(move || processes.holders(inode).unwrap())
            })
            .collect();
        drop(busy);
        crowd.into_iter().for_each(|asked| drop(asked.join().unwrap()));
        let before = processes.begun.load(Ordering::SeqCst);
        assert!((1..=8).contains(&before));
        processes.holders(inode).unwrap();
        assert_eq!(processes.begun.load(Ordering::SeqCst), before + 1, "never an older look");
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
