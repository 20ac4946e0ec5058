//! What is left of a demo after its end: nothing, or what is found here is ended and named.

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A process, as `/proc` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    name: String,
    /// It has ended, and nobody asked yet how.
    zombie: bool,
}

/// From now on whoever loses its parent below this process becomes its child (as PostgreSQL, when the controller dies), so that
/// nothing that the demo started, at however many removes, is out of sight.
///
/// # Errors
/// The system does not let it.
pub(crate) fn adopt_orphans() -> Result<()> {
    prctl::set_child_subreaper(true).context("become the parent of processes that lose theirs")
}

/// Ends the processes below this one, and names them.
///
/// # Errors
/// `/proc` can't be read.
pub(crate) fn end_processes() -> Result<Vec<String>> {
    let mut found = Vec::new();
    loop {
        let alive = below(&processes()?, std::process::id());
        for (pid, process) in &alive {
            found.push(format!("{} ({pid})", process.name));
            // Gone by now is as good.
            let _ = i32::try_from(*pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
        }
        reap();
        // Those that were ended may leave children of theirs to this process.
        if alive.is_empty() {
            found.sort();
            found.dedup();
            return Ok(found);
        }
    }
}

/// Files of the demo that are still there.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return if dir.symlink_metadata().is_ok() { vec![dir.display().to_string()] } else { Vec::new() };
    };
    let mut found = vec![dir.display().to_string()];
    found.extend(entries.flatten().map(|entry| entry.path().display().to_string()));
    found
}

/// All that live below a process.
fn below(all: &BTreeMap<u32, Process>, root: u32) -> BTreeMap<u32, Process> {
    let mut inside = BTreeSet::from([root]);
    loop {
        let next: Vec<u32> = all
            .iter()
            .filter(|(pid, process)| inside.contains(&process.parent) && !inside.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if next.is_empty() {
            break;
        }
        inside.extend(next);
    }
    let lives = |(pid, process): &(&u32, &Process)| **pid != root && inside.contains(*pid) && !process.zombie;
    all.iter().filter(lives).map(|(pid, process)| (*pid, process.clone())).collect()
}

fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended since is left out.
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if let Some(process) = parse(&String::from_utf8_lossy(&stat)) {
            all.insert(pid, process);
        }
    }
    Ok(all)
}

/// A line of `/proc/<pid>/stat`: `pid (name) state parent …`, where the name may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (start, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process { parent, name: start.split_once(" (")?.1.to_owned(), zombie: matches!(state, "Z" | "X") })
}

/// Takes the ends of adopted children, which nobody else asks for. Only for after the last child of tokio's was waited for.
fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    #[test]
    fn a_line_of_stat() {
        let found = parse("17 (a) b (c) S 5 17 17 0 -1").unwrap();
        assert_eq!(found, Process { parent: 5, name: "a) b (c".into(), zombie: false });
        assert!(parse("17 (x) Z 5 17").unwrap().zombie);
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn grandchildren_are_below_and_strangers_are_not() {
        let process = |parent, zombie| Process { parent, name: "p".into(), zombie };
        let all = BTreeMap::from([
            (1, process(0, false)),
            (9, process(1, false)),
            (3, process(9, false)),
            (12, process(3, true)),
            (4, process(12, false)),
            (8, process(1, false)),
        ]);
        assert_eq!(below(&all, 9).into_keys().collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn a_true_grandchild_is_found() {
        let mut child =
            Command::new("sh").args(["-c", "sleep 600 & wait"]).stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let sleeper = loop {
            let found = below(&processes().unwrap(), child.id());
            if let Some((pid, _)) = found.into_iter().find(|(_, process)| process.name == "sleep") {
                break pid;
            }
            assert!(Instant::now() < deadline, "the shell starts no child");
            std::thread::yield_now();
        };
        assert!(below(&processes().unwrap(), std::process::id()).contains_key(&sleeper));
        kill(Pid::from_raw(i32::try_from(sleeper).unwrap()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(below(&processes().unwrap(), child.id()).is_empty());
    }

    #[test]
    fn a_file_is_found() {
        let dir = std::env::temp_dir().join(format!("tombolo-leftover-{}", std::process::id()));
        assert_eq!(files(&dir), [""; 0]);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("x"), "").unwrap();
        assert_eq!(files(&dir), [dir.display().to_string(), dir.join("x").display().to_string()]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
