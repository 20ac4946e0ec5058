//! A feed, line by line: what its receiver is told next.

use super::channel::FeedGuard;
use tombolo_model::{Generation, snapshot::ClusterResource};
use tombolo_wire::message::{Digest, FeedLine};

/// Up to where the receiver of a feed was told.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    sent: Generation,
}

/// What is to be said now.
#[derive(Debug)]
pub enum Next {
    /// This.
    Line(FeedLine<ClusterResource>),
    /// There is nothing new.
    Nothing,
    /// The database was restored from a backup: what the receiver reported may be gone, and it looks when it comes again.
    Restored,
}

impl Telling {
    /// A feed begins, of a receiver that has the state it names: the first lines after the greeting.
    #[must_use]
    pub fn begin(
        channel: &FeedGuard,
        resume: Option<(Generation, Digest)>,
    ) -> (Self, Vec<FeedLine<ClusterResource>>) {
        let (lines, sent) = channel.open(resume);
        (Self { sent }, lines)
    }

    /// What is new.
    pub fn news(&mut self, channel: &FeedGuard) -> Next {
        channel.since(self.sent).map_or(Next::Nothing, |(line, generation)| self.goes_on(line, generation))
    }

    /// What is said after a silence: what is new, or that we live.
    pub fn beat(&mut self, channel: &FeedGuard) -> Next {
        let (line, generation) = channel.beat(self.sent);
        self.goes_on(line, generation)
    }

    fn goes_on(&mut self, line: FeedLine<ClusterResource>, generation: Generation) -> Next {
        if generation.epoch() != self.sent.epoch() {
            return Next::Restored;
        }
        self.sent = generation;
        Next::Line(line)
    }
}
