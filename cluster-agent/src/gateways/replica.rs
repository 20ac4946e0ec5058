//! What replicas of the agent tell each other: which gateways are connected to whom.
//!
//! Each asks each other one, and is answered when there is news (what changed since a count that the answerer keeps) or
//! after a while. A replica that does not answer any more takes none of its gateways with it: they count as vanished, so
//! they stay while their ports are open, and they come to another replica meanwhile.

use super::{
    entry::Entry,
    hub::{Hub, Inner, same_place},
};
use crate::synthesis::Presence;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tombolo_wire::{
    message::{GatewayHello, GatewayStatus, ReplicaAnswer, ReplicaGateway},
    version::Hello,
};

/// Gateways that went and are remembered; who was told less is told everything.
const GONE: usize = 4096;
/// An answer has about so many bytes of gateways at most; the rest follows.
const ANSWER: usize = 1 << 20;

/// What changed here, and in which order.
#[derive(Debug)]
pub(super) struct Journal {
    /// Another process counts anew.
    process: String,
    stamp: u64,
    gone: VecDeque<(u64, String)>,
    /// Removals up to here are forgotten.
    forgotten: u64,
}

impl Journal {
    pub(super) fn new() -> Self {
        let process = crate::report::new_epoch(&mut rand::rng());
        Self { process, stamp: 0, gone: VecDeque::new(), forgotten: 0 }
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    pub(super) fn gone(&mut self, instance: &str) {
        let stamp = self.next();
        self.gone.push_back((stamp, instance.to_owned()));
        if self.gone.len() > GONE {
            self.forgotten = self.gone.pop_front().map_or(self.forgotten, |(stamp, _)| stamp);
        }
    }
}

/// A gateway that is connected to another replica, or was last.
#[derive(Debug)]
pub(super) struct There {
    pub(super) replica: String,
    pub(super) hello: GatewayHello,
    pub(super) connected: bool,
    pub(super) status: GatewayStatus,
}

impl There {
    pub(super) const fn presence(&self) -> Presence {
        Presence::of(self.status.leaving, self.connected)
    }
}

/// What the other replicas have, by replica and instance.
#[derive(Debug, Default)]
pub(super) struct Others(BTreeMap<String, Replica>);

#[derive(Debug, Default)]
struct Replica {
    gateways: BTreeMap<String, There>,
    /// While it tells everything: what it told of so far.
    told: Option<BTreeSet<String>>,
}

impl Others {
    /// All of them; one that is known to several comes several times, a connected one last.
    pub(super) fn known(&self) -> impl Iterator<Item = (&String, &There)> {
        let all = || self.0.values().flat_map(|replica| &replica.gateways);
        let of = move |connected| all().filter(move |(_, there)| there.connected == connected);
        of(false).chain(of(true))
    }
}

impl Hub {
    /// What another replica is told, that was told up to `since` by the process that it names; none where there is no
    /// news.
    pub(crate) fn news(&self, process: &str, since: u64, leads: bool) -> Option<ReplicaAnswer> {
        let inner = self.lock();
        let journal = &inner.journal;
        let whole = process != journal.process || since < journal.forgotten || since > journal.stamp;
        let since = if whole { 0 } else { since };
        if !whole && since == journal.stamp {
            return None;
        }
        let mut changed: Vec<&Entry> =
            inner.entries.values().filter(|entry| whole || entry.stamp > since).collect();
        changed.sort_by_key(|entry| entry.stamp);
        let (mut gateways, mut bytes, mut stamp) = (Vec::new(), 0, journal.stamp);
        for entry in changed {
            if bytes >= ANSWER {
                stamp = gateways.last().map_or(since, |(stamp, _)| *stamp);
                break;
            }
            let gateway = ReplicaGateway {
                hello: entry.hello.clone(),
                connected: entry.takes_connections(),
                status: inner.status_of(entry),
            };
            bytes += serde_json::to_vec(&gateway).map_or(0, |text| text.len());
            gateways.push((entry.stamp, gateway));
        }
        let gone = journal.gone.iter().filter(|(at, _)| *at > since && *at <= stamp);
        let gone: BTreeSet<String> = gone.map(|(_, instance)| instance.clone()).collect();
        let gone = gone.into_iter().filter(|instance| !inner.entries.contains_key(instance)).collect();
        Some(ReplicaAnswer {
            hello: Hello::current("tombolo-agent"),
            process: journal.process.clone(),
            leads,
            more: stamp < journal.stamp,
            stamp,
            whole,
            gateways: gateways.into_iter().map(|(_, gateway)| gateway).collect(),
            gone,
        })
    }

    /// Where the count stands, for an answer without news.
    pub(crate) fn stands(&self) -> (String, u64) {
        let inner = self.lock();
        (inner.journal.process.clone(), inner.journal.stamp)
    }

    /// Another replica told of its gateways.
    pub(crate) fn heard(&self, replica: &str, answer: ReplicaAnswer) {
        let mut inner = self.lock();
        let (before, entries) = (self.size(&inner), inner.entries.len());
        let mut set_changed = false;
        let Replica { gateways: known, told } = inner.others.0.entry(replica.to_owned()).or_default();
        if answer.whole {
            *told = Some(BTreeSet::new());
        }
        if let Some(told) = told {
            told.extend(answer.gateways.iter().map(|gateway| gateway.hello.instance.clone()));
        }
        if let Some(told) = told.take_if(|_| !answer.more) {
            let count = known.len();
            known.retain(|instance, _| told.contains(instance));
            set_changed |= known.len() != count;
        }
        for instance in &answer.gone {
            set_changed |= known.remove(instance).is_some();
        }
        let (mut came, mut reports) = (Vec::new(), false);
        for ReplicaGateway { hello, connected, status } in answer.gateways {
            let there = There { replica: replica.to_owned(), hello, connected, status };
            let same = known
                .get(&there.hello.instance)
                .is_some_and(|old| old.hello == there.hello && old.presence() == there.presence());
            set_changed |= !same;
            reports = true;
            if connected {
                came.push(there.hello.clone());
            }
            known.insert(there.hello.instance.clone(), there);
        }
        // What is connected there is not what vanished here, by its name or at its place.
        for hello in &came {
            let Inner { entries, journal, .. } = &mut *inner;
            entries.retain(|instance, entry| {
                let replaced = entry.vanished.is_some()
                    && (*instance == hello.instance || same_place(&entry.hello, hello));
                if replaced {
                    journal.gone(instance);
                }
                !replaced
            });
        }
        let keep = inner.entries.len() != entries;
        set_changed |= self.size(&inner) != before;
        drop(inner);
        if keep {
            self.keep();
        }
        if set_changed {
            self.changed();
        }
        if reports {
            self.reported();
        }
    }

    fn size(&self, inner: &Inner) -> usize {
        inner.entries.len() + inner.others.0.values().map(|replica| replica.gateways.len()).sum::<usize>()
    }

    /// Another replica is gone, or does not answer: its gateways may be on their way to this one.
    pub(crate) fn lost(&self, replica: &str) {
        let mut inner = self.lock();
        let Some(known) = inner.others.0.remove(replica) else { return };
        for (instance, there) in known.gateways {
            let elsewhere = inner.others.known().any(|(name, _)| *name == instance);
            if !elsewhere && !inner.entries.contains_key(&instance) && inner.entries.len() < self.config.most
            {
                let mut entry = Entry::new(there.hello, 0, self.config.history);
                entry.status = there.status;
                inner.entries.insert(instance.clone(), entry);
                inner.touch(&instance);
            }
        }
        drop(inner);
        self.keep();
        self.changed();
    }
}

#[cfg(test)]
mod tests;
