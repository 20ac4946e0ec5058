//! The receiver's side.

use crate::{
    digest::{Stated, Sum},
    message::{Digest, FeedLine},
    version::{Hello, ProtocolVersion},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use thiserror::Error;
use tombolo_model::{
    Generation,
    snapshot::{Resource, ResourceKey, Resources},
};

/// How many resources a state may have that comes in parts.
pub const MAX_RESOURCES: usize = 4_000_000;

/// Why a line was refused. The state stays what it was; end the feed and ask again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The feed did not begin with who speaks.
    #[error("the feed does not begin with hello")]
    NoHello,
    /// The two programs are too far apart.
    #[error(
        "the sender ({software}) speaks protocol {theirs}, this program {ours}; upgrade {} first: at most {} minor versions \
         may lie between them", if theirs > ours { "this program" } else { "the sender" }, ProtocolVersion::SKEW
    )]
    Version {
        /// What the sender speaks.
        theirs: ProtocolVersion,
        /// What we speak.
        ours: ProtocolVersion,
        /// The sender.
        software: String,
    },
    /// Older than what we have.
    #[error("generation {offered} is older than {have}, which is in force")]
    Older {
        /// What was offered.
        offered: Generation,
        /// What we have.
        have: Generation,
    },
    /// A change of a state that we do not have.
    #[error("the change is based on generation {base}, and {have} is in force")]
    WrongBase {
        /// Its base.
        base: Generation,
        /// What we have.
        have: Generation,
    },
    /// The state it leads to is not what the sender has.
    #[error("the state of generation {generation} does not have the sender's digest")]
    WrongDigest {
        /// The generation.
        generation: Generation,
    },
    /// A resource that stands under another's key.
    #[error("generation {generation} has a resource under the key {key} that belongs under another")]
    WrongKey {
        /// The generation.
        generation: Generation,
        /// The key.
        key: ResourceKey,
    },
    /// A part of one snapshot among those of another.
    #[error("a line of generation {generation} stands among the parts of {of}")]
    Part {
        /// Its generation.
        generation: Generation,
        /// That of the parts before.
        of: Generation,
    },
    /// More than any state is.
    #[error("generation {generation} has more than {MAX_RESOURCES} resources")]
    TooMany {
        /// The generation.
        generation: Generation,
    },
    /// It can't be put in force.
    #[error("generation {generation} can't be put in force: {reason}")]
    Invalid {
        /// The generation.
        generation: Generation,
        /// Why, for people.
        reason: String,
    },
}

/// What changed from the state before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that are new or hold something else now.
    pub upserted: BTreeSet<ResourceKey>,
    /// Keys that are gone.
    pub removed: BTreeSet<ResourceKey>,
}

impl Changes {
    /// Whether nothing did.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.removed.is_empty()
    }
}

/// What a line did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The sender said who it is.
    Hello(Hello),
    /// A new state, or the old one under a newer number: acknowledge it.
    State(Changes),
    /// The sender lives; its newest generation.
    Alive(Generation),
    /// The sender ends the feed, for this reason.
    Goodbye(String),
}

/// Holds the last state that was accepted.
#[derive(Clone, Debug)]
pub struct Receiver<R> {
    generation: Generation,
    resources: Arc<Resources<R>>,
    sums: BTreeMap<ResourceKey, Sum>,
    sum: Sum,
    greeted: bool,
    /// Of the snapshot that is coming.
    parts: BTreeMap<ResourceKey, Stated<R>>,
    parts_of: Generation,
}

impl<R: Resource> Default for Receiver<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Resource> Receiver<R> {
    /// A receiver that was told nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::restore(Generation::ZERO, BTreeMap::new())
    }

    /// A receiver with a state kept from before. Its digest is taken anew, over the fields that this build knows:
    /// after an upgrade that added some, the sender sees another digest and sends everything.
    #[must_use]
    pub fn restore(generation: Generation, resources: Resources<R>) -> Self {
        let sums: BTreeMap<_, _> =
            resources.iter().map(|(key, value)| (key.clone(), Sum::of(key, value))).collect();
        let sum = sums.values().fold(Sum::default(), |all, one| all.plus(*one));
        let (parts, parts_of) = (BTreeMap::new(), Generation::ZERO);
        Self { generation, resources: Arc::new(resources), sums, sum, greeted: false, parts, parts_of }
    }

    /// Call at the start of each feed: the next line must say who speaks.
    pub fn begin(&mut self) {
        self.greeted = false;
        self.parts.clear();
    }

    /// What to ask with; nothing before the first state.
    pub fn resume(&self) -> Option<(Generation, Digest)> {
        (self.generation > Generation::ZERO).then(|| (self.generation, self.sum.digest()))
    }

    /// The generation in force.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The state in force.
    pub fn state(&self) -> &Resources<R> {
        &self.resources
    }

    /// The state in force, to share.
    pub fn shared(&self) -> Arc<Resources<R>> {
        Arc::clone(&self.resources)
    }

    /// Takes a line.
    ///
    /// # Errors
    /// [`Refused`], and then nothing changed.
    pub fn accept(&mut self, line: FeedLine<Stated<R>>) -> Result<Applied, Refused> {
        self.accept_if(line, |_| Ok(()))
    }

    /// Takes a line, where `validate` agrees to the whole state it leads to.
    ///
    /// # Errors
    /// [`Refused`], and then nothing changed.
    pub fn accept_if(
        &mut self,
        line: FeedLine<Stated<R>>,
        validate: impl FnOnce(&Resources<R>) -> Result<(), String>,
    ) -> Result<Applied, Refused> {
        match line {
            FeedLine::Hello(hello) => {
                let (theirs, ours) = (hello.protocol, ProtocolVersion::CURRENT);
                if !theirs.meets(ours) {
                    return Err(Refused::Version { theirs, ours, software: hello.software });
                }
                self.greeted = true;
                Ok(Applied::Hello(hello))
            }
            FeedLine::Goodbye { reason } => Ok(Applied::Goodbye(reason)),
            _ if !self.greeted => Err(Refused::NoHello),
            FeedLine::Unknown => Ok(Applied::Alive(self.generation)),
            FeedLine::Heartbeat { generation } => Ok(Applied::Alive(generation)),
            FeedLine::Current { generation, digest } => {
                self.not_older(generation)?;
                if digest != self.sum.digest() {
                    return Err(Refused::WrongDigest { generation });
                }
                self.generation = generation;
                Ok(Applied::State(Changes::default()))
            }
            FeedLine::Part { generation, resources } => {
                self.not_older(generation)?;
                if !self.parts.is_empty() && self.parts_of != generation {
                    return Err(Refused::Part { generation, of: self.parts_of });
                }
                if self.parts.len() + resources.len() > MAX_RESOURCES {
                    return Err(Refused::TooMany { generation });
                }
                self.parts_of = generation;
                self.parts.extend(resources);
                Ok(Applied::Alive(generation))
            }
            FeedLine::Snapshot { generation, digest, mut resources } => {
                self.not_older(generation)?;
                if !self.parts.is_empty() {
                    if self.parts_of != generation {
                        return Err(Refused::Part { generation, of: self.parts_of });
                    }
                    resources.extend(std::mem::take(&mut self.parts));
                }
                let (mut next, mut sums) = (BTreeMap::new(), BTreeMap::new());
                let mut sum = Sum::default();
                for (key, stated) in resources {
                    let (value, one) = keyed(generation, &key, stated)?;
                    sum = sum.plus(one);
                    sums.insert(key.clone(), one);
                    next.extend(value.map(|value| (key, value)));
                }
                if digest != sum.digest() {
                    return Err(Refused::WrongDigest { generation });
                }
                validate(&next).map_err(|reason| Refused::Invalid { generation, reason })?;
                let changes = compare(&self.resources, &next);
                self.resources = Arc::new(next);
                (self.generation, self.sums, self.sum) = (generation, sums, sum);
                Ok(Applied::State(changes))
            }
            FeedLine::Delta { base, generation, digest, upserts, removes } => {
                self.not_older(generation)?;
                if base != self.generation {
                    return Err(Refused::WrongBase { base, have: self.generation });
                }
                self.apply(generation, &digest, upserts, removes, validate)
            }
        }
    }

    fn not_older(&self, offered: Generation) -> Result<(), Refused> {
        if offered < self.generation {
            return Err(Refused::Older { offered, have: self.generation });
        }
        Ok(())
    }

    fn apply(
        &mut self,
        generation: Generation,
        digest: &Digest,
        upserts: BTreeMap<ResourceKey, Stated<R>>,
        removes: BTreeSet<ResourceKey>,
        validate: impl FnOnce(&Resources<R>) -> Result<(), String>,
    ) -> Result<Applied, Refused> {
        let had = |key: &ResourceKey| self.sums.get(key).copied().unwrap_or_default();
        let mut sum = self.sum;
        // A key in both is there: the upsert stands.
        for key in removes.iter().filter(|key| !upserts.contains_key(*key)) {
            sum = sum.minus(had(key));
        }
        let mut parts = Vec::with_capacity(upserts.len());
        for (key, stated) in upserts {
            let (value, one) = keyed(generation, &key, stated)?;
            sum = sum.minus(had(&key)).plus(one);
            parts.push((key, value, one));
        }
        // The sum tells before anything is touched; a delta that does not lead where it says costs nothing.
        if *digest != sum.digest() {
            return Err(Refused::WrongDigest { generation });
        }
        let mut next = Arc::clone(&self.resources);
        let state = Arc::make_mut(&mut next);
        let mut changes = Changes::default();
        // What is of an unknown type now is no longer what it was.
        let unknown = parts.iter().filter(|(_, value, _)| value.is_none()).map(|(key, ..)| key);
        for key in removes.iter().chain(unknown) {
            if state.remove(key).is_some() {
                changes.removed.insert(key.clone());
            }
        }
        for (key, value) in parts.iter().filter_map(|(key, value, _)| Some((key, value.as_ref()?))) {
            if state.get(key) != Some(value) {
                state.insert(key.clone(), value.clone());
                changes.removed.remove(key);
                changes.upserted.insert(key.clone());
            }
        }
        validate(state).map_err(|reason| Refused::Invalid { generation, reason })?;
        for key in &removes {
            self.sums.remove(key);
        }
        for (key, _, one) in parts {
            self.sums.insert(key, one);
        }
        self.resources = next;
        (self.generation, self.sum) = (generation, sum);
        Ok(Applied::State(changes))
    }
}

fn keyed<R: Resource>(
    generation: Generation,
    key: &ResourceKey,
    stated: Stated<R>,
) -> Result<(Option<R>, Sum), Refused> {
    stated.under(key).map_err(|_| Refused::WrongKey { generation, key: key.clone() })
}

fn compare<R: PartialEq>(old: &Resources<R>, new: &Resources<R>) -> Changes {
    let upserted = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    let removed = old.keys().filter(|key| !new.contains_key(*key));
    Changes { upserted: upserted.map(|(key, _)| key.clone()).collect(), removed: removed.cloned().collect() }
}
