//! What the lines of a feed do to the state in force, and what is said back: without I/O, so that the client and the
//! simulation (`tests/tests/simulation`) go by the same.

use crate::{
    cache::CacheError,
    client::{State, Validate},
};
use tombolo_model::{
    Generation,
    snapshot::{Resource, Resources},
};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::{
    digest::Stated,
    message::{Ack, Digest, FeedLine},
    session::{Applied, Changes, Receiver, Refused},
    version::Hello,
};

/// Holds the state in force.
pub struct Follower<R> {
    receiver: Receiver<R>,
    validate: Validate<R>,
}

impl<R: Resource> std::fmt::Debug for Follower<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

/// What a line did.
#[derive(Debug)]
pub enum Took<R> {
    /// The sender said who it is.
    Hello(Hello),
    /// The sender lives; its newest generation.
    Alive(Generation),
    /// The sender's state is in force, and is to be acknowledged.
    State {
        /// The state; none where it was in force already, under the same number.
        state: Option<State<R>>,
        /// What is said back.
        ack: Ack,
    },
    /// A state can't be put in force; the one before stays, and the feed goes on: asking again would bring the same.
    Refused {
        /// Its generation.
        generation: Generation,
        /// Why.
        reason: String,
        /// What is said back.
        ack: Ack,
    },
    /// The sender ends the feed, for this reason.
    Goodbye(String),
}

impl<R: Resource> Follower<R> {
    /// Without a state. What `validate` refuses is not put in force.
    #[must_use]
    pub fn new(validate: Validate<R>) -> Self {
        Self { receiver: Receiver::new(), validate }
    }

    /// Takes what was kept from before, and says whether there was something.
    ///
    /// # Errors
    /// Why it can't be used; then there is no state, as on the first day.
    pub fn restore(
        &mut self,
        kept: Result<Option<(Generation, Resources<R>)>, CacheError>,
    ) -> Result<bool, String> {
        match kept {
            Ok(None) => Ok(false),
            Ok(Some((generation, resources))) => {
                (self.validate)(&resources)?;
                self.receiver = Receiver::restore(generation, resources);
                Ok(true)
            }
            Err(error) => Err(chain(&error)),
        }
    }

    /// The generation in force; zero before the first.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.receiver.generation()
    }

    /// The state in force, for a reader that saw none before.
    #[must_use]
    pub fn state(&self) -> State<R> {
        let upserted = self.receiver.state().keys().cloned().collect();
        State {
            generation: self.receiver.generation(),
            resources: self.receiver.shared(),
            previous: Generation::ZERO,
            changes: Changes { upserted, ..Changes::default() },
        }
    }

    /// A feed begins: what to ask with; nothing before the first state.
    pub fn begin(&mut self) -> Option<(Generation, Digest)> {
        self.receiver.begin();
        self.receiver.resume()
    }

    /// Takes a line.
    ///
    /// # Errors
    /// [`Refused`]: nothing changed, and the feed is to be ended and asked for again.
    pub fn take(&mut self, line: FeedLine<Stated<R>>) -> Result<Took<R>, Refused> {
        let previous = self.receiver.generation();
        match self.receiver.accept_if(line, |resources| (self.validate)(resources)) {
            Err(Refused::Invalid { generation, reason }) => {
                let ack = Ack { generation: previous, refused: Some((generation, reason.clone())) };
                Ok(Took::Refused { generation, reason, ack })
            }
            Err(refused) => Err(refused),
            Ok(Applied::Goodbye(reason)) => Ok(Took::Goodbye(reason)),
            Ok(Applied::Hello(hello)) => Ok(Took::Hello(hello)),
            Ok(Applied::Alive(newest)) => Ok(Took::Alive(newest)),
            Ok(Applied::State(changes)) => {
                let (generation, resources) = (self.receiver.generation(), self.receiver.shared());
                let is_new = generation != previous || !changes.is_empty();
                let state = is_new.then_some(State { generation, resources, previous, changes });
                Ok(Took::State { state, ack: Ack { generation, refused: None } })
            }
        }
    }
}
