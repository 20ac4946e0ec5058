//! One gateway of the set.

use crate::synthesis::{Changed, Presence, Synthesis};
use std::collections::BTreeSet;
use tokio::{sync::watch, time::Instant};
use tombolo_model::{
    Generation,
    snapshot::{GatewayResource, Resources},
};
use tombolo_wire::{
    message::{GatewayHello, GatewayStatus},
    session::Publisher,
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) hello: GatewayHello,
    pub(super) publisher: Publisher<GatewayResource>,
    /// Whether it has what was published last; if not, what changed since is not all that it needs.
    pub(super) current: bool,
    pub(super) wake: watch::Sender<Generation>,
    pub(super) status: GatewayStatus,
    pub(super) acked: Generation,
    pub(super) refused: Option<(Generation, String)>,
    /// The last hello; what belongs to an earlier one is of another process or connection.
    pub(super) session: u64,
    pub(super) streams: usize,
    /// Since when it has no stream; none while it has one.
    pub(super) vanished: Option<Instant>,
    /// When it changed last, as the journal counts.
    pub(super) stamp: u64,
    /// When its port was last found open, since it vanished.
    pub(super) seen: Option<Instant>,
}

impl Entry {
    pub(super) fn new(hello: GatewayHello, session: u64, history: usize) -> Self {
        let status = GatewayStatus { leaving: hello.leaving, ..GatewayStatus::default() };
        Self {
            hello,
            publisher: Publisher::new(history),
            current: false,
            wake: watch::Sender::new(Generation::ZERO),
            status,
            acked: Generation::ZERO,
            refused: None,
            session,
            streams: 0,
            vanished: Some(Instant::now()),
            seen: None,
            stamp: 0,
        }
    }

    /// Whether it is there.
    pub(super) const fn presence(&self) -> Presence {
        Presence::of(self.status.leaving, self.vanished.is_none())
    }

    /// Whether somebody should be sent there: it is connected, and not about to end.
    pub(super) const fn takes_connections(&self) -> bool {
        matches!(self.presence(), Presence::Connected)
    }

    /// Whether there is something to send.
    pub(super) fn publish(
        &mut self,
        synthesis: &Synthesis,
        changed: &Changed,
        generation: Generation,
    ) -> bool {
        let keys = match changed {
            Changed::Keys(keys) if self.current => keys,
            _ => {
                self.current = true;
                return self.publisher.publish(generation, synthesis.for_gateway(&self.hello));
            }
        };
        let mut upserts = Resources::new();
        let mut removes = BTreeSet::new();
        for key in keys {
            match synthesis.for_gateway_at(&self.hello, key) {
                Some(resource) => drop(upserts.insert(key.clone(), resource)),
                None => drop(removes.insert(key.clone())),
            }
        }
        self.publisher.update(generation, upserts, removes)
    }
}
