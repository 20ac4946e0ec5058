//! What the system lets a process have at once.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{fs, io, path::Path};

/// Raises the soft limit of open files to the hard one and returns it. The soft limit (often 1,024) is kept low for the sake of programs that
/// use `select(2)`; a proxy with two sockets a connection is through with it after 500 connections.
///
/// # Errors
/// What the system says; the limit is then as it was.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// What every program does first: raises the limit, and says in the log where it could not, because a full table of files is seen much later.
pub fn prepare() {
    match raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is; raise it with `ulimit -n` or LimitNOFILE=")
        }
    }
}

/// The memory that this process may have, in bytes: the least of its control groups' limits and of the machine's; none where nothing says.
#[must_use]
pub fn memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    least(&groups, &|path| read(path)).into_iter().chain(machine).min()
}

/// The least limit of the control groups that `/proc/self/cgroup` names, of those above them, and of those that a container sees as
/// its own. In version 1 "no limit" is a number larger than any machine.
fn least(groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let at = Path::new(root).join(path.trim_start_matches('/'));
        let above = at.ancestors().take_while(|folder| folder.starts_with(root));
        limits.extend(above.filter_map(|folder| read(&folder.join(file))?.trim().parse::<u64>().ok()));
    }
    limits.into_iter().min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_least_that_any_group_above_has() {
        let read = |path: &Path| match path.to_str().unwrap() {
            "/sys/fs/cgroup/pod/memory.max" => Some("536870912\n".to_owned()),
            "/sys/fs/cgroup/pod/box/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/memory/old/memory.limit_in_bytes" => Some("1048576\n".to_owned()),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes" => Some("9223372036854771712\n".to_owned()),
            _ => None,
        };
        assert_eq!(least("0::/pod/box\n", &read), Some(512 << 20));
        assert_eq!(least("0::/\n", &read), None);
        assert_eq!(least("5:cpu,memory:/old\n4:pids:/pod\n0::/\n", &read), Some(1 << 20));
        assert_eq!(least("5:memory:/\nnonsense\n", &read), Some(9_223_372_036_854_771_712));
        assert_eq!(total("MemTotal:        8 kB\nMemFree: 1 kB\n"), Some(8192));
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(4096) / 2, hard).unwrap();
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
