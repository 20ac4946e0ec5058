//! Carries an open connection to its end, and writes down how it went.

mod quiet;

use crate::{
    accesslog::{Direction, Record},
    budget::Waiting,
    conns::{Ticket, Way},
    copy::{Broken, End, Ending, Progress, Side, copy},
    error::Refusal,
    reason::Reason,
    seldom::Seldom,
    state::Shared,
};
use quiet::Turns;
use std::pin::pin;
use tokio::time::Instant;

/// How a connection ended that this process ended in order.
const QUIET: &str = "this gateway ends, and nothing was under way";
/// And where something came just then.
const LATE: &str = "bytes came while this gateway ended it in order";

/// A connection under way: its record is written when this is dropped, whatever happened.
pub(crate) struct Journey<'a> {
    shared: &'a Shared,
    start: Instant,
    ended: bool,
    /// The record so far.
    pub(crate) record: Record,
}

impl<'a> Journey<'a> {
    /// It begins.
    pub(crate) fn begin(shared: &'a Shared, record: Record) -> Self {
        shared.metrics.opened(record.direction);
        Self { shared, start: Instant::now(), ended: false, record }
    }

    /// It was refused.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        self.ended = true;
        self.record.reason = Some(refusal.reason);
        self.record.hop = refusal.hop;
        self.record.detail = Some(refusal.detail);
    }

    /// The path is open.
    pub(crate) fn opened(&mut self, ticket: &Ticket) {
        self.record.connect = Some(self.start.elapsed());
        self.shared.metrics.path_opened(&self.record);
        let Record { source, name, port, cluster, upstream, .. } = &self.record;
        ticket.goes(Way {
            source: source.clone(),
            name: name.clone(),
            port: *port,
            cluster: cluster.clone(),
            upstream: upstream.clone(),
        });
    }

    /// Carries bytes until the connection ends, or loses its right, or its room to others; or until it is quiet, where the process is about
    /// to end.
    pub(crate) async fn carry(
        &mut self,
        ticket: &Ticket,
        waiting: &mut Waiting,
        client: &mut impl End,
        server: &mut impl End,
    ) {
        let (progress, turns) = (Progress::default(), Turns::default());
        // Only who has its keys can end a workloads' session in order.
        let may_part = !(self.record.end_to_end && self.record.direction == Direction::Transit);
        let long = self.shared.config.timing.quiet;
        let ending = {
            let (mut from, mut to) = (turns.of(Side::Client, client), turns.of(Side::Server, server));
            let mut copying = pin!(copy(&mut from, &mut to, &progress, waiting));
            let told = pin!(ticket.told());
            let ended = tokio::select! {
                biased;
                () = Seldom::new(told) => None,
                ending = &mut copying => Some(ending),
            };
            match ended {
                Some(ending) => Ok(Some(ending)),
                None => tokio::select! {
                    biased;
                    reason = ticket.ended() => Err(reason),
                    ending = copying => Ok(Some(ending)),
                    () = quiet::quiet(&turns, &progress, long), if may_part => Ok(None),
                },
            }
        };
        let ending = match ending {
            Ok(Some(ending)) => Ok(ending),
            Err(reason) => Err(reason),
            // Nothing of it is under way.
            Ok(None) => tokio::select! {
                biased;
                reason = ticket.ended() => Err(reason),
                whole = quiet::part(client, server) => {
                    self.record.detail = Some(if whole { QUIET } else { LATE }.to_owned());
                    if whole { Ok(Ending::Clean) } else { Err(Reason::Draining) }
                }
            },
        };
        self.ended = true;
        self.record.bytes_up = progress.up();
        self.record.bytes_down = progress.down();
        match ending {
            Err(reason) => {
                client.abort();
                server.abort();
                self.record.reason = Some(reason);
                if reason == Reason::Overloaded {
                    self.record.detail = Some(refuse_to_wait(waiting));
                }
            }
            Ok(Ending::Clean) => {}
            Ok(Ending::Broken { side, how }) => {
                let side = match side {
                    Side::Client => "client",
                    Side::Server => "server",
                };
                let (reason, detail) = match how {
                    Broken::Reset => (Reason::Reset, format!("by the {side}")),
                    Broken::Refused(refusal) => {
                        (refusal.reason, format!("by the {side}: {}", refusal.detail))
                    }
                    Broken::Lost(cause) => (Reason::TunnelLost, format!("on the {side}'s side: {cause}")),
                };
                self.record.reason = Some(reason);
                self.record.detail = Some(detail);
            }
        }
    }
}

/// Why a connection was cut for what waits in it.
fn refuse_to_wait(waiting: &Waiting) -> String {
    format!(
        "{} bytes wait here that nobody reads, and --buffers has no room for more of all connections",
        waiting.bytes()
    )
}

impl Drop for Journey<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Its task was dropped: the process ends.
            self.record.reason = Some(Reason::Draining);
        }
        self.record.duration = self.start.elapsed();
        self.shared.metrics.closed(self.record.direction);
        self.shared.observe(&self.record);
    }
}
