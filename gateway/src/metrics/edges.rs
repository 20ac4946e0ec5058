//! Counts by edge of the service graph: who called what, and which cluster served.
//!
//! Names and workloads come from the snapshot, but a large one has many pairs, so their number is bounded: past the
//! bound, calls are counted under one edge named `other`.

use crate::accesslog::Record;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tombolo_model::{SpiffeId, SpiffePath};
use tombolo_wire::message::EdgeCount;

/// How many edges one process counts apart.
pub(super) const MOST: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Edge {
    source: String,
    name: String,
    cluster: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    ok: u64,
    open: u64,
    failed: u64,
    bytes_up: u64,
    bytes_down: u64,
}

#[derive(Debug)]
pub(super) struct Edges {
    counts: Mutex<HashMap<Edge, Counts>>,
    most: usize,
}

impl Edges {
    pub(super) fn new(most: usize) -> Self {
        Self { counts: Mutex::default(), most }
    }

    /// Counts a connection whose path is open now: one that lasts is seen while it does. [`Edges::ended`] follows, with the same record.
    pub(super) fn opened(&self, record: &Record) {
        self.count(record, |count| {
            count.ok += 1;
            count.open += 1;
        });
    }

    /// Counts what a connection that ended has carried, or that it was refused. One that reached no name is no edge.
    pub(super) fn ended(&self, record: &Record) {
        self.count(record, |count| {
            // one whose path was open was counted then, however it ended
            if record.connect.is_some() {
                count.open = count.open.saturating_sub(1);
            } else {
                count.failed += 1;
            }
            count.bytes_up += record.bytes_up;
            count.bytes_down += record.bytes_down;
        });
    }

    fn count(&self, record: &Record, change: impl FnOnce(&mut Counts)) {
        let Some(name) = &record.name else { return };
        let edge = Edge {
            source: record.source.as_ref().map_or_else(|| "unknown".to_owned(), workload),
            name: name.to_string(),
            cluster: record.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let mut counts = self.lock();
        // no edge ever leaves, so a connection's end is counted where its beginning was
        let edge = if counts.len() < self.most || counts.contains_key(&edge) {
            edge
        } else {
            Edge { source: "other".into(), name: "other".into(), cluster: String::new() }
        };
        change(counts.entry(edge).or_default());
    }

    /// All edges, in the order of their names.
    pub(super) fn report(&self) -> Vec<EdgeCount> {
        let mut all: Vec<(Edge, Counts)> = self.lock().iter().map(|(e, c)| (e.clone(), *c)).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.into_iter()
            .map(|(edge, counts)| EdgeCount {
                source: edge.source,
                name: edge.name,
                cluster: edge.cluster,
                ok: counts.ok,
                open: counts.open,
                failed: counts.failed,
                bytes_up: counts.bytes_up,
                bytes_down: counts.bytes_down,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Edge, Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `namespace/account` of a workload; of anything else, its whole identity.
fn workload(id: &SpiffeId) -> String {
    match &id.path {
        SpiffePath::Workload { namespace, account } => format!("{namespace}/{account}"),
        _ => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accesslog::Direction, reason::Reason};
    use std::time::{Duration, SystemTime};
    use tombolo_model::{ClusterName, GatewayRole, GlobalName};

    fn record(name: &str) -> Record {
        let mut record = Record::new(SystemTime::UNIX_EPOCH, GatewayRole::Sidecar, 1, Direction::Outbound);
        record.source = SpiffeId::parse("spiffe://acme.test/cluster/c1/ns/default/sa/shopping").ok();
        record.name = GlobalName::parse(name).ok();
        record.cluster = ClusterName::parse("c2").ok();
        record.connect = Some(Duration::ZERO);
        (record.bytes_up, record.bytes_down) = (1, 2);
        record
    }

    fn carried(edges: &Edges, record: &Record) {
        edges.opened(record);
        edges.ended(record);
    }

    #[test]
    fn a_connection_counts_from_its_beginning() {
        let edges = Edges::new(1);
        for (name, place) in [("a.b", 0), ("past-the-bound.b", 1)] {
            let count =
                || (edges.report()[place].ok, edges.report()[place].open, edges.report()[place].failed);
            edges.opened(&record(name));
            edges.opened(&record(name));
            assert_eq!(count(), (2, 2, 0), "{name}");
            edges.ended(&record(name));
            assert_eq!(count(), (2, 1, 0), "{name}");
        }
    }

    #[test]
    fn counts_by_edge() {
        let edges = Edges::new(8);
        carried(&edges, &record("a.b"));
        let mut reset = record("a.b");
        reset.reason = Some(Reason::Reset);
        carried(&edges, &reset);
        let mut refused = record("a.b");
        (refused.reason, refused.connect, refused.cluster) = (Some(Reason::NoHealthyTarget), None, None);
        (refused.bytes_up, refused.bytes_down) = (0, 0);
        edges.ended(&refused);
        let mut nowhere = record("a.b");
        nowhere.name = None;
        carried(&edges, &nowhere);
        let report = edges.report();
        assert_eq!(report.len(), 2);
        assert_eq!((report[0].cluster.as_str(), report[0].ok, report[0].failed), ("", 0, 1));
        assert_eq!((report[1].source.as_str(), report[1].cluster.as_str()), ("default/shopping", "c2"));
        assert_eq!((report[1].ok, report[1].failed, report[1].bytes_up, report[1].bytes_down), (2, 0, 2, 4));
    }

    #[test]
    fn the_number_of_edges_is_bounded() {
        let edges = Edges::new(3);
        for i in 0..50 {
            carried(&edges, &record(&format!("s{i}.acme.example.com")));
        }
        let report = edges.report();
        assert_eq!(report.len(), 4);
        let other = report.iter().find(|edge| edge.name == "other").unwrap();
        assert_eq!((other.source.as_str(), other.ok), ("other", 47));
    }
}
