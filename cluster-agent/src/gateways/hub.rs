//! The set of gateways: what each is told, what each said. One lock, never held across an await.
//!
//! With several replicas of the agent, each gateway is connected to one of them, and each replica tells the others of its
//! own ([`super::replica`]): the set is the union, so all gateways are told the same, wherever they are connected.

use super::{
    entry::Entry,
    kept::{Kept, MADE_UP},
    part::bounded,
    replica::{Journal, Others},
    stream::Stream,
};
use crate::{
    farewell::Farewell,
    state::DataDir,
    synthesis::{Changed, Gateway, Gateways, Presence, Synthesis},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tombolo_model::{Generation, snapshot::GatewayResource};
use tombolo_wire::message::{Ack, Digest, FeedLine, GatewayHello, GatewayStatus};

/// How the set behaves.
#[derive(Clone, Copy, Debug)]
pub struct HubConfig {
    /// How long after a gateway vanished it is looked for, and how often after that.
    pub grace: Duration,
    /// How many gateways there may be at this replica, sidecars among them (docs/capture.md).
    pub most: usize,
    /// How many changes each gateway may be behind before it is sent the whole state.
    pub history: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10), most: 4096, history: 256 }
    }
}

/// The set of gateways.
#[derive(Debug)]
pub struct Hub {
    pub(super) config: HubConfig,
    pub(super) data: DataDir,
    /// When it began, where it did not know who was in it before.
    forgot: Option<Instant>,
    inner: Mutex<Inner>,
    /// Held while the set is written to disk.
    keeping: Mutex<()>,
    /// Since when everything is ordered out.
    pub(super) farewell: Mutex<Farewell>,
    /// Rises when the set changes: a gateway came, changed, vanished or is gone.
    set: watch::Sender<u64>,
    /// Rises when a gateway reported something.
    reports: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) entries: BTreeMap<String, Entry>,
    /// The generation last given to a state of the gateways: the agent's own count.
    generation: Generation,
    /// Which of the controller's generations each of ours came from, newest last.
    pub(super) sources: Vec<(Generation, Generation)>,
    sessions: u64,
    /// What the other replicas have.
    pub(super) others: Others,
    /// What changed, for the other replicas.
    pub(super) journal: Journal,
}

/// Why a gateway is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are as many as there may be.
    #[error("this agent has {most} gateways, as many as it takes")]
    Full {
        /// How many it takes.
        most: usize,
    },
    /// It did not say hello.
    #[error("this agent does not know the instance; POST /gateway/v1/hello first")]
    Unknown,
}

/// Our generations that are remembered with the controller's; older ones are reported as the oldest.
const SOURCES: usize = 1024;

impl Hub {
    /// The set as the last agent on this directory knew it, all of them vanished just now. `first` is above every
    /// generation that an agent gave before.
    #[must_use]
    pub fn new(config: HubConfig, data: DataDir, first: Generation) -> Arc<Self> {
        let mut inner = Inner {
            entries: BTreeMap::new(),
            generation: first,
            sources: Vec::new(),
            sessions: 0,
            others: Others::default(),
            journal: Journal::new(),
        };
        let kept = Kept::read(&data);
        let forgot = kept.as_ref().is_none_or(|kept| kept.partial).then(Instant::now);
        for hello in kept.map(|kept| kept.gateways).unwrap_or_default() {
            let instance = hello.instance.clone();
            inner.entries.insert(instance.clone(), Entry::new(hello, 0, config.history));
            inner.touch(&instance);
        }
        let (set, reports) = (watch::Sender::new(0), watch::Sender::new(0));
        Arc::new(Self {
            config,
            data,
            forgot,
            inner: Mutex::new(inner),
            keeping: Mutex::new(()),
            farewell: Mutex::default(),
            set,
            reports,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the set as it is now. One at a time: two would write the same file beside, and the older set could come last.
    pub(super) fn keep(&self) {
        let _one = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = Kept::of(&self.lock(), self.forgot(Instant::now()));
        kept.write(&self.data);
    }

    pub(super) fn changed(&self) {
        self.set.send_modify(|count| *count += 1);
    }

    /// Whether there may be gateways that this set does not know yet: what it was before is lost, and it did not wait for long
    /// enough for them to come.
    #[must_use]
    pub fn forgot(&self, now: Instant) -> bool {
        self.forgot.is_some_and(|began| now < began + self.config.grace)
    }

    /// Wakes when the set changes.
    pub fn watch_set(&self) -> watch::Receiver<u64> {
        self.set.subscribe()
    }

    /// Wakes when a gateway reported something.
    pub fn watch_reports(&self) -> watch::Receiver<u64> {
        self.reports.subscribe()
    }

    pub(super) fn reported(&self) {
        self.reports.send_modify(|count| *count += 1);
    }

    /// The set, over all replicas.
    #[must_use]
    pub fn gateways(&self) -> Gateways {
        let inner = self.lock();
        let gateway = |entry: &Entry| Gateway { hello: entry.hello.clone(), presence: entry.presence() };
        let mut all: Gateways =
            inner.entries.iter().map(|(instance, entry)| (instance.clone(), gateway(entry))).collect();
        for (instance, there) in inner.others.known() {
            // what another replica says of one that came here on its way out is older
            let stays = |here: &Entry| here.vanished.is_none() && here.status.leaving;
            if inner.entries.get(instance).is_some_and(stays) {
                continue;
            }
            let presence = there.presence();
            let knows_better = |here: &Gateway| match here.presence {
                Presence::Connected => false,
                Presence::Leaving => presence == Presence::Connected,
                Presence::Vanished => presence != Presence::Vanished,
            };
            if all.get(instance).is_none_or(knows_better) {
                all.insert(instance.clone(), Gateway { hello: there.hello.clone(), presence });
            }
        }
        all
    }

    /// Tells every gateway what follows from this synthesis of the controller's generation `of`, in which `changed`
    /// may be different from the one before.
    pub fn publish(&self, synthesis: &Synthesis, changed: &Changed, of: Generation) {
        let mut inner = self.lock();
        let generation = inner.generation.next();
        let mut any = false;
        for entry in inner.entries.values_mut() {
            if entry.publish(synthesis, changed, generation) {
                any = true;
                entry.wake.send_replace(generation);
            }
        }
        inner.generation = generation;
        if any || inner.sources.last().is_none_or(|(_, source)| *source != of) {
            inner.sources.push((generation, of));
            if inner.sources.len() > SOURCES {
                inner.sources.remove(0);
            }
        }
    }

    /// A gateway said hello. Gives the session of this connection.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn hello(&self, hello: GatewayHello) -> Result<u64, Refusal> {
        let mut inner = self.lock();
        inner.sessions += 1;
        let (session, instance) = (inner.sessions, hello.instance.clone());
        // Who listens at the address now is not who did before, whatever the name.
        let Inner { entries, journal, .. } = &mut *inner;
        entries.retain(|name, entry| {
            let keep = *name == hello.instance || !same_place(&entry.hello, &hello);
            if !keep {
                journal.gone(name);
            }
            keep
        });
        let full = inner.entries.len() >= self.config.most;
        match inner.entries.get_mut(&hello.instance) {
            Some(entry) => {
                entry.session = session;
                entry.streams = 0;
                entry.vanished.get_or_insert_with(Instant::now);
                entry.status.leaving = hello.leaving;
                entry.hello = hello;
                entry.current = false;
                // Wakes the streams of the session before, which end.
                entry.wake.send_modify(|_| {});
            }
            None if full => return Err(Refusal::Full { most: self.config.most }),
            None => {
                let entry = Entry::new(hello.clone(), session, self.config.history);
                inner.entries.insert(hello.instance.clone(), entry);
            }
        }
        inner.touch(&instance);
        drop(inner);
        self.keep();
        self.changed();
        Ok(session)
    }

    /// What the gateway said of itself.
    pub(crate) fn known(&self, instance: &str) -> Result<GatewayHello, Refusal> {
        self.lock().entries.get(instance).map(|entry| entry.hello.clone()).ok_or(Refusal::Unknown)
    }

    /// A feed begins: its session, its first lines, and what wakes it.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn open(
        self: &Arc<Self>,
        instance: &str,
        resume: Option<(Generation, Digest)>,
    ) -> Result<(Stream, Vec<FeedLine<GatewayResource>>), Refusal> {
        let mut inner = self.lock();
        // Another replica gave it a later generation than this one has given: it goes on from there.
        let Inner { entries, generation, .. } = &mut *inner;
        let entry = entries.get_mut(instance).ok_or(Refusal::Unknown)?;
        // No replica ever comes that far: it is made up, and would leave no generations for the others.
        let resume = resume.filter(|(held, _)| held.get() < MADE_UP);
        if let Some((held, _)) = &resume
            && *held > entry.publisher.generation()
        {
            *generation = (*generation).max(*held).next();
            let same = entry.publisher.resources().clone();
            // Without a state there is none to be sent; the next one will be later.
            if entry.current {
                entry.publisher.publish(*generation, same);
            }
        }
        entry.streams += 1;
        entry.seen = None;
        let came = entry.vanished.take().is_some();
        let lines = entry.publisher.open(resume);
        let stream = Stream {
            hub: Arc::clone(self),
            instance: instance.to_owned(),
            session: entry.session,
            sent: entry.publisher.generation(),
            wake: entry.wake.subscribe(),
        };
        if came {
            inner.touch(instance);
        }
        drop(inner);
        if came {
            self.changed();
        }
        Ok((stream, lines))
    }

    /// A gateway has put a state in force, or refused one.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn ack(&self, instance: &str, ack: Ack) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(instance).ok_or(Refusal::Unknown)?;
        if let Some((generation, why)) = &ack.refused {
            tracing::warn!(
                gateway.instance = instance,
                snapshot.generation = generation.get(),
                error = why,
                "a gateway refuses a state; its last one stays in force"
            );
        }
        entry.acked = ack.generation;
        entry.refused = ack.refused;
        inner.touch(instance);
        drop(inner);
        self.reported();
        Ok(())
    }

    /// A gateway said how it is.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn status(&self, instance: &str, status: GatewayStatus) -> Result<(), Refusal> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(instance).ok_or(Refusal::Unknown)?;
        let status = bounded(status, entry.hello.role);
        let differs = entry.status != status;
        let leaves = entry.status.leaving != status.leaving;
        entry.status = status;
        if differs {
            inner.touch(instance);
        }
        drop(inner);
        if leaves {
            self.changed();
        }
        self.reported();
        Ok(())
    }
}

impl Inner {
    /// The other replicas are to hear of this gateway.
    pub(super) fn touch(&mut self, instance: &str) {
        if let Some(entry) = self.entries.get_mut(instance) {
            entry.stamp = self.journal.next();
        }
    }
}

/// Whether two gateways say that they listen at one address. All addresses of a network namespace name no place.
pub(super) fn same_place(one: &GatewayHello, other: &GatewayHello) -> bool {
    one.tunnel == other.tunnel && !other.tunnel.ip().is_unspecified()
}
