//! The account of what the API server told: told in, changes out.

use super::{
    convert::Read,
    mcs::{Mcs, McsVersion},
};
use crate::{
    sorted::Sorted,
    source::{Change, ObjectKey, ObjectKind},
};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};
use tombolo_model::{AccountName, NamespaceName};
use tombolo_wire::message::Problem;

/// A refusal that did not come again for so long is over, if the server answers: attempts come oftener.
const OVER: Duration = Duration::from_secs(12);
/// The server no longer has the version that a watch was at; a new list follows.
const GONE: u16 = 410;
/// Without these nothing is reported.
const NEEDED: [ObjectKind; 3] = [ObjectKind::Namespace, ObjectKind::Service, ObjectKind::EndpointSlice];
/// These add to it; where the server refuses them, the rest is reported.
const HELPFUL: [ObjectKind; 3] = [ObjectKind::ServiceAccount, ObjectKind::Pod, ObjectKind::Node];
/// So does this, where the agent follows the Multi-Cluster Services API.
const EXPORTS: ObjectKind = ObjectKind::ServiceExport;

/// Something that the API server told, or did not.
#[derive(Debug)]
pub(super) struct Told {
    /// The kind that it is about; none where it is about the server.
    pub(super) kind: Option<ObjectKind>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A list begins.
    Begin,
    /// An object is there, and is so.
    Has(Box<Read>),
    /// An object is gone.
    Gone(Box<Read>),
    /// The list is complete: what was not in it is gone.
    Complete,
    /// The server answers.
    Answers,
    /// The server answers that it won't, or can't now.
    Refused { code: u16, message: String },
    /// The server does not answer.
    Silent(String),
    /// Which version of the Multi-Cluster Services API it has.
    Mcs(Mcs),
}

/// What there is.
#[derive(Debug)]
pub(super) struct Known {
    server: String,
    /// None where the agent does not follow it, or does not know yet.
    mcs: Option<Mcs>,
    follows_mcs: bool,
    kinds: BTreeMap<ObjectKind, Kind>,
    silent: Option<(SystemTime, String)>,
}

#[derive(Debug, Default)]
struct Kind {
    /// By namespace and name: of pods there are many.
    objects: BTreeMap<NamespaceName, Sorted<AccountName, Listed>>,
    problems: BTreeMap<ObjectKey, Vec<String>>,
    list: u32,
    complete: bool,
    refused: Option<Refused>,
}

/// That an object is there.
#[derive(Clone, Copy, Debug)]
struct Listed {
    /// Which list it was in, or told after.
    list: u32,
    /// Whether anything was made of it.
    used: bool,
}

#[derive(Debug)]
struct Refused {
    since: SystemTime,
    last: SystemTime,
    code: u16,
    message: String,
}

impl Known {
    /// Nothing is known. `server` names the API server to people.
    pub(super) fn new(server: String, follows_mcs: bool) -> Self {
        Self { server, mcs: None, follows_mcs, kinds: BTreeMap::new(), silent: None }
    }

    /// The version of the Multi-Cluster Services API that the server has.
    pub(super) fn mcs(&self) -> Option<McsVersion> {
        match self.mcs {
            Some(Mcs::Served(version)) => Some(version),
            _ => None,
        }
    }

    /// Something was told at `now`. What changed by it; objects that are as they were may be among it.
    pub(super) fn take(&mut self, told: Told, now: SystemTime) -> Vec<Change> {
        match told.what {
            What::Silent(why) => {
                let since = self.silent.take().map_or(now, |(since, _)| since);
                self.silent = Some((since, why));
                return Vec::new();
            }
            What::Mcs(mcs) => {
                self.mcs = Some(mcs);
                return Vec::new();
            }
            What::Answers => {
                self.silent = None;
                for kind in self.kinds.values_mut() {
                    kind.refused.take_if(|refused| refused.last + OVER <= now);
                }
                return Vec::new();
            }
            _ => {}
        }
        let Some(of) = told.kind else { return Vec::new() };
        let kind = self.kinds.entry(of).or_default();
        match told.what {
            What::Has(read) => {
                kind.refused = None;
                kind.has(*read)
            }
            What::Gone(read) => {
                kind.refused = None;
                kind.gone(&read.key)
            }
            What::Begin => {
                kind.list = kind.list.wrapping_add(1);
                Vec::new()
            }
            What::Complete => {
                kind.refused = None;
                kind.complete(of)
            }
            What::Refused { code: GONE, .. } | What::Answers | What::Silent(_) | What::Mcs(_) => Vec::new(),
            What::Refused { code, message } => {
                let since = kind.refused.as_ref().map_or(now, |refused| refused.since);
                kind.refused = Some(Refused { since, last: now, code, message });
                Vec::new()
            }
        }
    }

    /// Whether it is known what there is.
    pub(super) fn is_read(&self) -> bool {
        let kind = |kind| self.kinds.get(kind);
        NEEDED.iter().all(|needed| kind(needed).is_some_and(|kind| kind.complete))
            && HELPFUL
                .iter()
                .chain(self.follows_mcs.then_some(&EXPORTS))
                .all(|helpful| kind(helpful).is_some_and(|kind| kind.complete || kind.refused.is_some()))
    }

    /// All that is wrong now.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some((since, why)) = &self.silent {
            let message =
                format!("does not answer since {}: {why}; what it told last stays in force", written(*since));
            problems.push(Problem { subject: format!("API server {}", self.server), message });
        }
        problems.extend(self.mcs.as_ref().and_then(Mcs::problem));
        for (kind, state) in &self.kinds {
            if let Some(refused) = &state.refused {
                let remedy = match refused.code {
                    401 => "; give the agent valid credentials",
                    403 => "; let its role get, list and watch them in all namespaces",
                    _ => "",
                };
                let message = format!(
                    "can't be watched since {}: {}{remedy}; what is known of them stays in force",
                    written(refused.since),
                    refused.message
                );
                problems.push(Problem { subject: format!("every {}", kind.as_str()), message });
            }
            for (key, messages) in &state.problems {
                let problem =
                    |message: &String| Problem { subject: key.to_string(), message: message.clone() };
                problems.extend(messages.iter().map(problem));
            }
        }
        problems
    }
}

impl Kind {
    fn has(&mut self, read: Read) -> Vec<Change> {
        let Read { key, object, problems } = read;
        if object.is_none() && problems.is_empty() {
            return self.gone(&key);
        }
        let now = Listed { list: self.list, used: object.is_some() };
        let before = self.put(&key, now);
        if problems.is_empty() {
            self.problems.remove(&key);
        } else {
            self.problems.insert(key.clone(), problems);
        }
        match object {
            Some(object) => vec![Change::Apply(object)],
            None if before.is_some_and(|before| before.used) => vec![Change::Delete(key)],
            None => Vec::new(),
        }
    }

    fn gone(&mut self, key: &ObjectKey) -> Vec<Change> {
        self.problems.remove(key);
        match self.forget(key) {
            Some(Listed { used: true, .. }) => vec![Change::Delete(key.clone())],
            _ => Vec::new(),
        }
    }

    fn put(&mut self, key: &ObjectKey, now: Listed) -> Option<Listed> {
        if let Some(named) = self.objects.get_mut(&key.namespace) {
            return named.insert(key.name.clone(), now);
        }
        self.objects.entry(key.namespace.clone()).or_default().insert(key.name.clone(), now)
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Listed> {
        let named = self.objects.get_mut(&key.namespace)?;
        let was = named.remove(&key.name);
        if named.is_empty() {
            self.objects.remove(&key.namespace);
        }
        was
    }

    fn complete(&mut self, kind: ObjectKind) -> Vec<Change> {
        self.complete = true;
        let mut missing = Vec::new();
        for (namespace, named) in &self.objects {
            let gone = named.iter().filter(|(_, listed)| listed.list != self.list);
            missing.extend(gone.map(|(name, _)| ObjectKey {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
            }));
        }
        missing.iter().flat_map(|key| self.gone(key)).collect()
    }
}

/// A time as people write it, to the second.
fn written(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "long ago".to_owned(), |time| format!("{time:.0}"))
}
