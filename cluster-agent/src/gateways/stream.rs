//! A feed of one gateway, as the set of gateways gives it out.

use super::hub::Hub;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tombolo_model::{Generation, snapshot::GatewayResource};
use tombolo_wire::message::FeedLine;

/// A feed of one gateway.
#[derive(Debug)]
pub struct Stream {
    pub(super) hub: Arc<Hub>,
    pub(super) instance: String,
    pub(super) session: u64,
    pub(super) sent: Generation,
    pub(super) wake: watch::Receiver<Generation>,
}

impl Stream {
    /// The next lines: what changed, at the latest a heartbeat after `beat`. None where another process or
    /// connection took its place, or the gateway is gone. Cancel-safe.
    pub(crate) async fn next(&mut self, beat: Duration) -> Option<FeedLine<GatewayResource>> {
        let deadline = Instant::now() + beat;
        loop {
            let why = match tokio::time::timeout_at(deadline, self.wake.changed()).await {
                Ok(Ok(())) => Why::News,
                Ok(Err(_)) => return None,
                Err(_) => Why::Beat,
            };
            match self.turn(why) {
                Turn::Line(line) => return Some(line),
                Turn::Nothing => {}
                Turn::Over => return None,
            }
        }
    }

    /// What is to be said now. Does not wait.
    pub fn turn(&mut self, why: Why) -> Turn {
        let inner = self.hub.lock();
        let entry = inner.entries.get(&self.instance).filter(|entry| entry.session == self.session);
        let Some(entry) = entry else { return Turn::Over };
        let line = match why {
            Why::News => entry.publisher.since(self.sent),
            Why::Beat => Some(entry.publisher.beat(self.sent)),
        };
        let Some(line) = line else { return Turn::Nothing };
        self.sent = entry.publisher.generation();
        Turn::Line(line)
    }
}

/// Why a feed is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Something may be new.
    News,
    /// It was silent for a while.
    Beat,
}

/// What a feed is to say.
#[derive(Debug)]
pub enum Turn {
    /// This.
    Line(FeedLine<GatewayResource>),
    /// There is nothing new.
    Nothing,
    /// Another process or connection took its place, or the gateway is gone.
    Over,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        let Some(entry) = inner.entries.get_mut(&self.instance) else { return };
        if entry.session != self.session {
            return;
        }
        entry.streams = entry.streams.saturating_sub(1);
        if entry.streams == 0 {
            entry.vanished = Some(Instant::now());
            inner.touch(&self.instance);
            drop(inner);
            self.hub.changed();
        }
    }
}
