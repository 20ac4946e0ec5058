//! What a run came to.

use super::stage::Counts;
use crate::{World, load::Totals, writers};
use std::{fmt::Write as _, fs, time::Duration};
use tombolo_tests::soak::{Flatness, Lives, Tolerance, Windows, memory, spark, table};

/// The disk, in bytes: state and logs are replaced, not heaped up.
const DISK: Tolerance = Tolerance { percent: 25, more: 8 << 20 };

/// What a run came to.
pub(super) struct Report<'a> {
    pub(super) took: Duration,
    pub(super) seed: u64,
    pub(super) counts: &'a Counts,
    /// How long each rotation of the root took.
    pub(super) rotations: Vec<Duration>,
    pub(super) totals: Totals,
    pub(super) explained: &'a Windows,
    pub(super) told: writers::Counts,
    pub(super) lives: &'a Lives,
    pub(super) disk: &'a [u64],
    /// How long each program must have lived.
    pub(super) shortest: Option<Duration>,
}

impl Report<'_> {
    /// Prints it; gives what does not stay as it was.
    pub(super) fn print(&self) -> Vec<String> {
        let (memory, mut wrong) = memory(self.lives, self.shortest);
        let disk = self.disk(&mut wrong);
        eprintln!(
            "\n  SOAK_SEED={}, {} s\n\n{}\n{}\n{}\n{memory}\n{disk}",
            self.seed,
            self.took.as_secs(),
            self.faults(),
            self.failures(),
            self.work()
        );
        wrong
    }

    fn faults(&self) -> String {
        let mut rows = vec![vec!["fault".to_owned(), "times".to_owned()]];
        rows.extend(self.counts.faults.iter().map(|(kind, count)| vec![kind.clone(), count.to_string()]));
        let Counts { steps, doubles, kills, .. } = self.counts;
        let mut text = table(&rows);
        let _ = writeln!(
            text,
            "  {steps} steps, {doubles} of them with two faults at once; {kills} processes killed"
        );
        if !self.rotations.is_empty() {
            let took: Vec<String> =
                self.rotations.iter().map(|took| format!("{} s", took.as_secs())).collect();
            let _ = writeln!(text, "  rotations of the root took {}", took.join(", "));
        }
        text
    }

    fn failures(&self) -> String {
        let mut rows = vec![["explained by", "what failed, and how", "times"].map(str::to_owned).to_vec()];
        let explained = self.explained.explained();
        rows.extend(
            explained.iter().map(|((by, what), count)| vec![by.clone(), what.clone(), count.to_string()]),
        );
        let mut text = if explained.is_empty() { String::new() } else { table(&rows) };
        let all: u64 = explained.values().sum();
        let _ = writeln!(
            text,
            "  {all} failed, {all} of them explained: they were under way through what was ended, hung or revoked"
        );
        text
    }

    fn work(&self) -> String {
        let Totals { requests, blocks, bytes, longest } = self.totals;
        format!(
            "  {requests} requests on new connections, the longest {} ms; {blocks} blocks on long-lived ones; {} MiB came back as they were sent\n  \
             {}: linearizable\n",
            longest.as_millis(),
            bytes >> 20,
            self.told
        )
    }

    fn disk(&self, wrong: &mut Vec<String>) -> String {
        let Some(flat) = Flatness::of(self.disk, DISK) else { return String::new() };
        if !flat.holds() {
            let Flatness { first, last, limit } = flat;
            wrong.push(format!(
                "disk: {first} bytes at first, {last} at last, and {limit} is the most it may be"
            ));
        }
        let line = spark(self.disk, 30);
        format!("  disk, without PostgreSQL: {} → {} KiB  {line}\n", flat.first >> 10, flat.last >> 10)
    }
}

/// Shows what each gateway refused last.
pub(super) fn refused(world: &World) {
    const LINES: usize = 5;
    for name in world.pids().keys() {
        let Some((cluster, part)) = name.strip_prefix("cluster-").and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        let log = world.path(&format!("cluster-{cluster}/{part}-access.log"));
        let text = fs::read_to_string(log).unwrap_or_default();
        let mut lines: Vec<&str> =
            text.lines().rev().filter(|line| !line.contains("\"reason\":\"ok\"")).collect();
        lines.truncate(LINES);
        lines.iter().rev().for_each(|line| eprintln!("  {name} refused: {line}"));
    }
}
