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

    /// Counts a connection that ended. One that reached no name is no edge.
    pub(super) fn observe(&self, record: &Record) {
        let Some(name) = &record.name else { return };
        let edge = Edge {
            source: record.source.as_ref().map_or_else(|| "unknown".to_owned(), workload),
            name: name.to_string(),
            cluster: record.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let mut counts = self.lock();
        let edge = if counts.len() < self.most || counts.contains_key(&edge) {
            edge
        } else {
            Edge { source: "other".into(), name: "other".into(), cluster: String::new() }
        };
        let count = counts.entry(edge).or_default();
        // a connection that was carried and then cut by an end of its own was still carried
        if record.reason.is_none() || record.connect.is_some() {
            count.ok += 1;
        } else {
            count.failed += 1;
        }
        count.bytes_up += record.bytes_up;
        count.bytes_down += record.bytes_down;
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

    #[test]
    fn counts_by_edge() {
        let edges = Edges::new(8);
        edges.observe(&record("a.b"));
        let mut reset = record("a.b");
        reset.reason = Some(Reason::Reset);
        edges.observe(&reset);
        let mut refused = record("a.b");
        (refused.reason, refused.connect, refused.cluster) = (Some(Reason::NoHealthyTarget), None, None);
        (refused.bytes_up, refused.bytes_down) = (0, 0);
        edges.observe(&refused);
        let mut nowhere = record("a.b");
        nowhere.name = None;
        edges.observe(&nowhere);
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
            edges.observe(&record(&format!("s{i}.acme.example.com")));
        }
        let report = edges.report();
        assert_eq!(report.len(), 4);
        let other = report.iter().find(|edge| edge.name == "other").unwrap();
        assert_eq!((other.source.as_str(), other.ok), ("other", 47));
    }
}
