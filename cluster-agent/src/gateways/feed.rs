//! A gateway's feed, line by line.

use super::stream::Stream;
use bytes::Bytes;
use tombolo_model::snapshot::GatewayResource;
use tombolo_runtime::drain::Watch;
use tombolo_wire::{codec::encode_line, message::FeedLine, session::HEARTBEAT};

/// A feed that is being sent.
pub(super) struct Feed {
    pub(super) first: std::vec::IntoIter<FeedLine<GatewayResource>>,
    /// None after the last line.
    pub(super) stream: Option<Stream>,
    pub(super) stop: Watch,
}

impl Feed {
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let line = match self.first.next() {
            Some(line) => line,
            None => {
                let stream = self.stream.as_mut()?;
                let next = tokio::select! {
                    biased;
                    () = self.stop.signaled() => Err("the agent is ending"),
                    next = stream.next(HEARTBEAT) => next.ok_or("another connection took this one's place"),
                };
                next.unwrap_or_else(|reason| {
                    self.stream = None;
                    FeedLine::Goodbye { reason: reason.to_owned() }
                })
            }
        };
        encode_line(&line)
            .inspect_err(|error| tracing::error!(error = %error, "a feed line can't be written"))
            .ok()
            .map(Bytes::from)
    }
}
