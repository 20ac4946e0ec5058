//! What each program takes, from each start to its end.

use super::{Flatness, Sample, Tolerance, spark, table};
use std::{collections::BTreeMap, time::Duration};

/// Signs of the line that shows how memory went.
const SIGNS: usize = 30;
/// A life that is shorter than this is not long enough for the narrow tolerance: pools and tables still fill.
const LONG: Duration = Duration::from_secs(8 * 60);

/// A program from a start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its process.
    pub pid: u32,
    /// What it took, at equal distances.
    pub samples: Vec<Sample>,
}

impl Life {
    fn length(&self) -> Duration {
        let ends = self.samples.first().zip(self.samples.last());
        ends.map_or(Duration::ZERO, |(first, last)| last.at - first.at)
    }
}

/// All lives of all programs.
#[derive(Clone, Debug, Default)]
pub struct Lives(BTreeMap<String, Vec<Life>>);

impl Lives {
    /// These programs run now, with these processes.
    pub fn follow(&mut self, programs: BTreeMap<String, u32>) {
        for (name, pid) in programs {
            let lives = self.0.entry(name).or_default();
            if lives.last().is_none_or(|life| life.pid != pid) {
                lives.push(Life { pid, samples: Vec::new() });
            }
        }
    }

    /// Looks at all that run, with `look`.
    pub fn sample(&mut self, look: impl Fn(u32) -> Option<Sample>) {
        for life in self.0.values_mut().filter_map(|lives| lives.last_mut()) {
            life.samples.extend(look(life.pid));
        }
    }
}

/// What is shown and judged of a program's longest life.
struct Row<'a> {
    name: &'a str,
    starts: usize,
    life: &'a Life,
}

impl Row<'_> {
    fn values(&self, of: impl Fn(&Sample) -> u64) -> Vec<u64> {
        self.life.samples.iter().map(of).collect()
    }

    /// Memory (KiB), files, threads.
    fn tolerances(&self) -> [Tolerance; 3] {
        let of = |percent, more| Tolerance { percent, more };
        if self.life.length() < LONG {
            [of(50, 12 << 10), of(100, 64), of(25, 8)]
        } else {
            [of(15, 3 << 10), of(25, 32), of(25, 4)]
        }
    }

    /// Its line of the table; what is wrong is added to that.
    fn show(&self, all: bool, wrong: &mut Vec<String>) -> Vec<String> {
        let name = self.name;
        let [memory, files, threads] = self.tolerances();
        let anonymous = self.values(|sample| sample.anonymous);
        let of = [
            ("anonymous memory, KiB", Flatness::of(&anonymous, memory)),
            ("open files", Flatness::of(&self.values(|sample| sample.files), files)),
            ("threads", Flatness::of(&self.values(|sample| sample.threads), threads)),
        ];
        for (what, flat) in &of {
            match flat {
                None if all => wrong.push(format!("{name}: too few samples of {what}")),
                Some(flat) if !flat.holds() => wrong.push(format!(
                    "{name}: {what}: {} at first, {} at last, and {} is the most it may be",
                    flat.first, flat.last, flat.limit
                )),
                _ => {}
            }
        }
        let resident = Flatness::of(&self.values(|sample| sample.resident), memory);
        let mib = |flat: Option<Flatness>| {
            let of = |kib: u64| format!("{}.{}", kib >> 10, ((kib & 1023) * 10) >> 10);
            flat.map_or("-".to_owned(), |flat| format!("{} → {}", of(flat.first), of(flat.last)))
        };
        let plain = |flat: Option<Flatness>| {
            flat.map_or("-".to_owned(), |flat| format!("{} → {}", flat.first, flat.last))
        };
        vec![
            name.to_owned(),
            self.starts.to_string(),
            format!("{} s", self.life.length().as_secs()),
            mib(of[0].1),
            mib(resident),
            plain(of[1].1),
            plain(of[2].1),
            spark(&anonymous, SIGNS),
        ]
    }
}

/// The table of what each program takes in its longest life, and what does not stay where it was, or lived too short a time to tell. Where no shortest life is
/// asked for, those are not judged of which there are too few samples.
#[must_use]
pub fn memory(lives: &Lives, shortest: Option<Duration>) -> (String, Vec<String>) {
    let head = [
        "program",
        "starts",
        "longest life",
        "own MiB",
        "resident MiB",
        "files",
        "threads",
        "own memory, from 0",
    ];
    let (mut rows, mut wrong) = (vec![head.map(str::to_owned).to_vec()], Vec::new());
    for (name, all) in &lives.0 {
        let Some(life) = all.iter().max_by_key(|life| life.length()) else { continue };
        if let Some(shortest) = shortest.filter(|shortest| life.length() < *shortest) {
            wrong.push(format!(
                "{name} lived for {:?} at most, and is to be judged by {shortest:?}",
                life.length()
            ));
        }
        rows.push(Row { name, starts: all.len(), life }.show(shortest.is_some(), &mut wrong));
    }
    (table(&rows), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A program that takes so much, at first and more with each second, and is started again after so many seconds; it is looked at each 5 s for 20 minutes.
    fn lives(start: u64, more: u64, restart: u64) -> Lives {
        let mut lives = Lives::default();
        for second in (0..1200).step_by(5) {
            let (number, age) = (second / restart, second % restart);
            lives.follow(BTreeMap::from([("program".to_owned(), 100 + u32::try_from(number).unwrap())]));
            let anonymous = start + age * more;
            lives.sample(|_| {
                Some(Sample { at: s(second), resident: anonymous * 2, anonymous, files: 20, threads: 4 })
            });
        }
        lives
    }

    #[test]
    fn flat_programs_pass() {
        let (table, wrong) = memory(&lives(10_240, 0, 700), Some(s(600)));
        assert_eq!(wrong, Vec::<String>::new());
        let expected = [
            "program", "2", "695", "s", "10.0", "→", "10.0", "20.0", "→", "20.0", "20", "→", "20", "4", "→",
            "4",
        ];
        let line = table.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().take(16).collect::<Vec<_>>(), expected);
        assert!(line.ends_with(&"█".repeat(SIGNS)), "{line}");
    }

    #[test]
    fn a_leak_is_found_in_a_life() {
        let (_, wrong) = memory(&lives(10_240, 20, 700), Some(s(600)));
        assert_eq!(
            wrong,
            [
                "program: anonymous memory, KiB: 14440 at first, 22840 at last, and 19678 is the most it may be"
            ]
        );
    }

    #[test]
    fn a_short_life_tells_nothing() {
        let (_, wrong) = memory(&lives(10_240, 1, 100), Some(s(600)));
        assert_eq!(wrong, ["program lived for 95s at most, and is to be judged by 600s"]);
        let (_, wrong) = memory(&lives(10_240, 1, 20), Some(s(0)));
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        let (table, wrong) = memory(&lives(10_240, 1, 20), None);
        assert!(wrong.is_empty() && table.contains(" - "), "{wrong:?}: {table}");
    }
}
