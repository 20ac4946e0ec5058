//! What the source says, and where it goes.

use crate::{
    engine::Source,
    index::{Guard, Index, View},
    locality,
    source::{Batch, McsVersion, directory::Directory, kubernetes},
};
use std::sync::Arc;
use tokio::sync::watch;
use tombolo_wire::message::Problem;

/// The source, ready to run.
pub(super) enum Reader {
    Directory(Box<Directory>),
    Kubernetes(Box<kubernetes::Watching>),
}

impl Reader {
    /// What endpoints are held to.
    fn guard(&self) -> Option<Guard> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(cluster) => Some(cluster.guard()),
        }
    }

    pub(super) async fn run(self, sink: impl FnMut(Batch) + Send) {
        match self {
            Self::Directory(directory) => directory.run(sink).await,
            Self::Kubernetes(cluster) => cluster.run(sink).await,
        }
    }
}

/// Where what the source says goes.
pub(super) struct Told {
    pub(super) source: watch::Sender<Source>,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) problems: watch::Sender<Vec<Problem>>,
    pub(super) nodes: watch::Sender<Arc<locality::Nodes>>,
    pub(super) mcs: watch::Sender<Option<McsVersion>>,
}

pub(super) async fn read_source(reader: Reader, told: Told) {
    let mut index = reader.guard().map_or_else(Index::default, Index::guarded);
    let sink = move |batch: Batch| {
        let mut changed = false;
        for change in batch.changes {
            changed |= index.change(change);
        }
        changed |= index.set_mcs(batch.mcs.is_some());
        told.nodes.send_if_modified(|nodes| {
            let differs = **nodes != *index.nodes();
            if differs {
                *nodes = Arc::new(index.nodes().clone());
            }
            differs
        });
        let mut problems = batch.problems;
        problems.extend(index.problems());
        told.problems.send_replace(problems);
        told.mcs.send_if_modified(|version| {
            let differs = *version != batch.mcs;
            *version = batch.mcs;
            differs
        });
        // after it: once the source was read, it is known whether there is an API of that kind
        if batch.read && (changed || told.source.borrow().is_none()) {
            let now = Arc::new(index.view());
            told.view.send_replace(Arc::clone(&now));
            told.source.send_replace(Some(now));
        }
    };
    reader.run(sink).await;
}
