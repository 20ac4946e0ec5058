//! The figures, as tables in Markdown.

use super::{Shape, Spread};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// What was measured in a world.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The world.
    pub shape: Shape,
    /// The controller's memory before anything was in it, in bytes.
    pub memory_empty: u64,
    /// The same with all clusters connected, after the changes.
    pub memory: u64,
    /// Cores of the controller while nothing happens.
    pub idle_cores: f64,
    /// Rows written per line that says that the sender lives, while nothing happens; what the replica says of itself is not among them.
    pub writes_per_beat: f64,
    /// The rows written meanwhile, by table.
    pub writes: BTreeMap<String, u64>,
    /// Changes of an endpoint.
    pub changes: usize,
    /// Changes that did not come to all that are affected.
    pub lost: usize,
    /// How long they were made.
    pub churn: Duration,
    /// From a change to when it is in force, at each cluster that is affected.
    pub effective: Spread,
    /// The same, at the last of them.
    pub everywhere: Spread,
    /// Cores of the controller meanwhile.
    pub cores: f64,
    /// Cores of PostgreSQL meanwhile, more than while nothing happens.
    pub database_cores: f64,
    /// Bytes of deltas.
    pub delta_bytes: f64,
    /// Bytes of lines that only say that the sender lives, or how its generation is called now.
    pub beat_bytes: f64,
    /// Bytes of what each cluster is told of whom to believe: it grows with the clusters.
    pub bundle: usize,
    /// The controller's restart; none where it was not measured.
    pub restart: Option<Restart>,
}

/// What came after the controller was killed, from when it was started again.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// It was ready.
    pub ready: Duration,
    /// All clusters were connected.
    pub connected: Duration,
    /// What changed while it was away had come everywhere.
    pub converged: Duration,
}

/// How long a page of a list takes.
#[derive(Clone, Debug)]
pub struct List {
    /// What was asked for.
    pub what: String,
    /// How long it took, each time.
    pub took: Spread,
}

impl Measured {
    fn per_change(&self, all: f64) -> f64 {
        all / (self.changes.max(1) as f64)
    }

    /// CPU of the controller that a change takes, in milliseconds: what it takes more than while nothing happens.
    #[must_use]
    pub fn cpu_per_change_ms(&self) -> f64 {
        self.per_change((self.cores - self.idle_cores).max(0.0) * self.churn.as_secs_f64() * 1000.0)
    }

    /// What is known before the restart, in lines.
    #[must_use]
    pub fn said(&self) -> String {
        format!(
            "{} changes, {} lost: effective p50 {:.1} ms, p99 {:.1} ms; everywhere p50 {:.1} ms, p99 {:.1} ms\n\
             controller: {:.2} ms of CPU per change, {:.3} cores, {:.0} KiB per cluster; PostgreSQL {:.2} ms per change\n\
             {:.0} bytes of deltas per change; the trust bundle has {} bytes",
            self.changes,
            self.lost,
            ms(self.effective.at(50)),
            ms(self.effective.at(99)),
            ms(self.everywhere.at(50)),
            ms(self.everywhere.at(99)),
            self.cpu_per_change_ms(),
            self.cores,
            self.memory_per_cluster_kib(),
            self.database_per_change_ms(),
            self.per_change(self.delta_bytes),
            self.bundle,
        )
    }

    fn database_per_change_ms(&self) -> f64 {
        self.per_change(self.database_cores.max(0.0) * self.churn.as_secs_f64() * 1000.0)
    }

    /// Memory of the controller for each cluster, in KiB.
    #[must_use]
    pub fn memory_per_cluster_kib(&self) -> f64 {
        self.memory.saturating_sub(self.memory_empty) as f64 / 1024.0 / self.shape.clusters as f64
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// How cost grows: a row for each world.
#[must_use]
pub fn curve(all: &[Measured]) -> String {
    let mut out = String::from(
        "| clusters | names told to each | affected by a change | services / endpoints | change → effective p50 / p99, ms | → everywhere p50 / p99, ms \
         | controller ms of CPU per change | PostgreSQL ms per change | bytes of deltas per change | bytes of beats per cluster and second \
         | controller cores: idle / churn | KiB per cluster | trust bundle, bytes | restart: ready / connected / converged, s |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for one in all {
        let shape = &one.shape;
        let restart = one.restart.map_or_else(
            || "not measured".to_owned(),
            |restart| {
                let Restart { ready, connected, converged } = restart;
                let [ready, connected, converged] =
                    [ready, connected, converged].map(|time| time.as_secs_f64());
                format!("{ready:.1} / {connected:.1} / {converged:.1}")
            },
        );
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} / {} | {:.1} / {:.1} | {:.1} / {:.1} | {:.2} | {:.2} | {:.0} | {:.0} | {:.3} / {:.3} | {:.0} | {} | {restart} |",
            shape.clusters,
            shape.told(),
            shape.members,
            shape.all_services(),
            shape.all_endpoints(),
            ms(one.effective.at(50)),
            ms(one.effective.at(99)),
            ms(one.everywhere.at(50)),
            ms(one.everywhere.at(99)),
            one.cpu_per_change_ms(),
            one.database_per_change_ms(),
            one.per_change(one.delta_bytes),
            one.beat_bytes / shape.clusters as f64 / one.churn.as_secs_f64().max(1.0),
            one.idle_cores,
            one.cores,
            one.memory_per_cluster_kib(),
            one.bundle,
        );
    }
    out
}

/// The targets, and whether this world meets each. The second is how many are missed.
#[must_use]
pub fn targets(one: &Measured, lists: &[List]) -> (String, usize) {
    let worst = lists.iter().map(|list| ms(list.took.at(50))).fold(0.0, f64::max);
    let mut rows = vec![
        ("change → effective, p50", "ms", ms(one.effective.at(50)), 20.0),
        ("change → effective, p99", "ms", ms(one.effective.at(99)), 150.0),
        ("changes that did not come everywhere", "", one.lost as f64, 0.0),
        ("memory of the controller per cluster", "KiB", one.memory_per_cluster_kib(), 1024.0),
        ("controller at steady churn", "cores", one.cores, 1.0),
        ("rows written per heartbeat", "", one.writes_per_beat, 0.0),
    ];
    if let Some(restart) = one.restart {
        let converged = restart.converged.as_secs_f64();
        rows.push(("all converged after the controller's restart", "s", converged, 30.0));
    }
    if !lists.is_empty() {
        rows.push(("a page of a list, the slowest one's median", "ms", worst, 100.0));
    }
    let mut out = String::from("| target | most | measured | |\n|---|---:|---:|---|\n");
    let mut missed = 0;
    for (what, unit, found, most) in rows {
        let met = found <= most;
        missed += usize::from(!met);
        let _ = writeln!(
            out,
            "| {what} | {most} {unit} | {found:.1} {unit} | {} |",
            if met { "met" } else { "**missed**" }
        );
    }
    (out, missed)
}

/// How long pages take.
#[must_use]
pub fn lists(all: &[List]) -> String {
    let mut out = String::from("| page | p50, ms | longest, ms |\n|---|---:|---:|\n");
    for list in all {
        let _ =
            writeln!(out, "| {} | {:.1} | {:.1} |", list.what, ms(list.took.at(50)), ms(list.took.at(100)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let spread = |ms: [u64; 2]| ms.map(Duration::from_millis).into_iter().collect::<Spread>();
        Measured {
            shape: Shape { clusters: 10, members: 10, services: 100, copies: 2, endpoints: 10 },
            memory_empty: 10 << 20,
            memory: 20 << 20,
            idle_cores: 0.1,
            writes_per_beat: 0.0,
            writes: BTreeMap::new(),
            changes: 100,
            lost: 0,
            churn: Duration::from_secs(10),
            effective: spread([5, 200]),
            everywhere: spread([6, 201]),
            cores: 0.3,
            database_cores: 0.05,
            delta_bytes: 123_400.0,
            beat_bytes: 900.0,
            bundle: 1234,
            restart: None,
        }
    }

    #[test]
    fn cost_is_what_comes_on_top() {
        let one = measured();
        assert!((one.cpu_per_change_ms() - 20.0).abs() < 1e-9, "{}", one.cpu_per_change_ms());
        assert!((one.memory_per_cluster_kib() - 1024.0).abs() < 1e-9);
        let said = one.said();
        assert!(said.starts_with("100 changes, 0 lost: effective p50 5.0 ms, p99 200.0 ms; "), "{said}");
        let [ready, connected, converged] = [1, 2, 3].map(Duration::from_secs);
        let restart = Some(Restart { ready, connected, converged });
        let table = curve(&[Measured { restart, ..one.clone() }]);
        assert!(curve(&[one]).ends_with("| 1024 | 1234 | not measured |\n"));
        let row = table.lines().nth(2).unwrap();
        assert_eq!(
            row,
            "| 10 | 300 | 10 | 100 / 1000 | 5.0 / 200.0 | 6.0 / 201.0 | 20.00 | 5.00 | 1234 | 9 | 0.100 / 0.300 | 1024 | 1234 | 1.0 / 2.0 / 3.0 |"
        );
        let columns = |line: &str| line.matches('|').count();
        assert!(table.lines().all(|line| columns(line) == columns(row)), "{table}");
    }

    #[test]
    fn a_missed_target_is_counted() {
        let (table, missed) = targets(&measured(), &[]);
        assert_eq!(missed, 1, "{table}");
        assert!(table.contains("| change → effective, p99 | 150 ms | 200.0 ms | **missed** |"), "{table}");
        let slow =
            List { what: "names".to_owned(), took: [Duration::from_millis(101)].into_iter().collect() };
        let (table, missed) = targets(&measured(), std::slice::from_ref(&slow));
        assert!(missed == 2 && table.contains("| 100 ms | 101.0 ms | **missed** |"), "{table}");
        assert!(lists(&[slow]).ends_with("| names | 101.0 | 101.0 |\n"));
    }
}
