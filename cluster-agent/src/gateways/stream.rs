//! A feed of one gateway, as the set of gateways gives it out.

use super::hub::Hub;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tombolo_model::{Generation, snapshot::GatewayResource};
use tombolo_wire::message::FeedLine;

/// A feed of one gateway.
#[derive(Debug)]
pub(crate) struct Stream {
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
            let woken = tokio::time::timeout_at(deadline, self.wake.changed()).await;
            let inner = self.hub.lock();
            let entry = inner.entries.get(&self.instance).filter(|entry| entry.session == self.session)?;
            let line = match woken {
                Ok(Err(_)) => return None,
                Ok(Ok(())) => entry.publisher.since(self.sent),
                Err(_) => Some(entry.publisher.beat(self.sent)),
            };
            let Some(line) = line else { continue };
            self.sent = entry.publisher.generation();
            return Some(line);
        }
    }
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
