//! What a process takes of the machine.

use std::{fmt, fs};

/// Memory now, and CPU so far.
pub(crate) struct Taken {
    /// Of its own, MiB.
    anonymous: f64,
    /// Of files that are mapped: the program itself, MiB.
    files: f64,
    /// The most that both ever were, MiB.
    most: f64,
    /// Seconds of all its threads, in user and kernel.
    pub(crate) cpu_s: f64,
}

impl Taken {
    pub(crate) fn by(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let mib = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        // the name of the program, in brackets, may have spaces
        let after = stat.rsplit_once(')').expect("a name").1;
        let ticks: Vec<f64> =
            after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        Self {
            anonymous: mib("RssAnon:"),
            files: mib("RssFile:"),
            most: mib("VmHWM:"),
            // Linux tells it in hundredths, whatever its own clock does (USER_HZ)
            cpu_s: ticks.iter().sum::<f64>() / 100.0,
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anonymous, files, most, cpu_s } = self;
        let now = anonymous + files;
        write!(
            f,
            "{now:.1} MiB ({anonymous:.1} of its own, {files:.1} of the program's file; at most {most:.1}), {cpu_s:.1} s of CPU"
        )
    }
}
