//! What a process takes, as the kernel tells it.

use std::{fs, time::Duration};

/// What a process takes at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, counted from the run's begin.
    pub at: Duration,
    /// Memory in use, in KiB: with pages of files, and those that others share.
    pub resident: u64,
    /// The part of it that is the process's own.
    pub anonymous: u64,
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

impl Sample {
    /// What a process takes now; nothing where it is gone.
    #[must_use]
    pub fn of(pid: u32, at: Duration) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let files = u64::try_from(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).ok()?;
        let number = |key| number(&status, key);
        let (resident, anonymous) = (number("VmRSS:")?, number("RssAnon:")?);
        Some(Self { at, resident, anonymous, files, threads: number("Threads:")? })
    }
}

/// The number in a line of `/proc/PID/status`.
fn number(status: &str, key: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_some_of_each() {
        let sample = Sample::of(std::process::id(), Duration::ZERO).unwrap();
        assert!(sample.resident > sample.anonymous && sample.anonymous > 100, "{sample:?}");
        assert!(sample.files >= 3 && sample.threads >= 1, "{sample:?}");
        assert_eq!(Sample::of(u32::MAX, Duration::ZERO), None);
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tx\nVmRSS:\t    5324 kB\nRssAnon:\t     900 kB\nThreads:\t4\n";
        assert_eq!(number(status, "RssAnon:"), Some(900));
        assert_eq!(number(status, "Threads:"), Some(4));
        assert_eq!(number(status, "VmSwap:"), None);
    }
}
