//! What a process takes of the machine.

use std::{fs, time::Duration};

/// CPU so far, and memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user and kernel, of all threads.
    pub cpu: Duration,
    /// Memory of its own, in bytes.
    pub memory: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu: Duration,
    /// Of children that ended, and were waited for.
    ended: Duration,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // the name of the program, in brackets, may have spaces
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |from: usize| -> Option<Duration> {
            let ticks: u64 =
                fields.get(from)?.parse::<u64>().ok()? + fields.get(from + 1)?.parse::<u64>().ok()?;
            // Linux tells it in hundredths, whatever its own clock does (USER_HZ)
            Some(Duration::from_millis(ticks * 10))
        };
        Some(Self { parent: fields.get(1)?.parse().ok()?, cpu: ticks(11)?, ended: ticks(13)? })
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

impl Usage {
    /// Of a process; `None` where it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self { cpu: Stat::read(pid)?.cpu, memory: anonymous(&status)? })
    }

    /// The CPU of a process and its children, those that ended included.
    #[must_use]
    pub fn of_family(pid: u32) -> Duration {
        let own = Stat::read(pid).map_or(Duration::ZERO, |stat| stat.cpu + stat.ended);
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let children = all
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Stat::read)
            .filter(|stat| stat.parent == pid);
        own + children.map(|stat| stat.cpu).sum::<Duration>()
    }

    /// The parent of a process.
    #[must_use]
    pub fn parent(pid: u32) -> Option<u32> {
        Stat::read(pid).map(|stat| stat.parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read() {
        let text = "42 (a name) of) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 30 20 20 0 1 0 100 1000000 200\n";
        let (cpu, ended) = (Duration::from_secs(2), Duration::from_millis(500));
        assert_eq!(Stat::parse(text), Some(Stat { parent: 7, cpu, ended }));
        assert_eq!(Stat::parse("42 (short) S 7"), None);
        assert_eq!(anonymous("VmRSS:\t 9 kB\nRssAnon:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(anonymous("VmRSS:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = std::process::id();
        let usage = Usage::of(me).unwrap();
        assert!(usage.memory > 0 && Usage::of_family(me) >= usage.cpu);
        assert!(Usage::parent(me).is_some_and(|parent| parent > 0));
    }
}
