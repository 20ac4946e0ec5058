//! HTTP/2 tunnels: how they are set up on both sides, and the client's side of one.
//!
//! A tunnel is one mutual TLS connection that carries many streams; each stream is one connection of an application.
//! It knows bytes and heads, not services.

mod dialer;
mod drive;

use crate::{
    accesslog::Tls,
    config::Limits,
    copy::stream::{Reader, StreamEnd},
    error::Refusal,
    head::{Answer, Connect},
    heard::LastHeard,
    reason::Reason,
};
use bytes::Bytes;
pub(crate) use dialer::server_name;
pub use dialer::{Dialer, Wanted};
pub use drive::Watch;
use h2::{client, server};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tombolo_model::snapshot::CaFingerprint;
use tombolo_mtls::Peer;

/// The protocol of tunnels in TLS (ALPN).
pub const ALPN: &[u8] = b"h2";
/// Streams that were reset here and may still get frames; and those reset by the peer before they were accepted.
const RESET_STREAMS: usize = 1024;
/// What small DATA frames may cost that were not taken off a tunnel yet: 256 bytes less their length for each. Streams
/// take theirs off at once (see `copy::stream`), so that this bounds a burst.
const SMALL_FRAMES: usize = 32 << 20;
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// The settings of the side that dials, with windows of so many bytes.
#[must_use]
pub fn client_builder(limits: &Limits, window: u32) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame_bytes)
        .max_header_list_size(limits.header_bytes)
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY);
    builder
}

/// The settings of the side that is dialled, with windows of so many bytes.
#[must_use]
pub fn server_builder(limits: &Limits, window: u32) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(limits.frame_bytes)
        .max_header_list_size(limits.header_bytes)
        .max_send_buffer_size(limits.send_buffer)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_streams(limits.streams)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY);
    builder
}

/// A tunnel that this process dialled. It ends with its last owner, when its peer ends it, or when it is idle.
pub struct Tunnel {
    send: client::SendRequest<Bytes>,
    state: Arc<State>,
    /// Who is at the other end.
    pub peer: Peer,
    /// Until when the certificate that this process showed is good.
    pub not_after: Option<SystemTime>,
    /// What the TLS session agreed on.
    pub tls: Tls,
    /// The address dialled.
    pub address: Arc<str>,
    /// Which process is at the other end, of several that have one identity.
    pub replica: Option<CaFingerprint>,
    /// Bytes of one stream that wait to be written to it, at most.
    queue: usize,
}

/// What its owners and its driver both look at.
#[derive(Debug)]
struct State {
    streams: AtomicUsize,
    retired: AtomicBool,
    closed: CancellationToken,
    /// It does not answer in time: nobody waits for it, until it does.
    silent: watch::Sender<bool>,
    heard: Arc<LastHeard>,
    /// When it was picked last, in turns of its pool.
    turn: AtomicU64,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("address", &self.address)
            .field("peer", &self.peer.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl State {
    fn new(heard: Arc<LastHeard>) -> Self {
        Self {
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            closed: CancellationToken::new(),
            silent: watch::Sender::new(false),
            heard,
            turn: AtomicU64::new(0),
        }
    }

    /// It is silent, for so long, or is not.
    fn set_silent(&self, silence: Option<Duration>) {
        let changed = self.silent.send_if_modified(|now| std::mem::replace(now, silence.is_some()) != *now);
        match silence {
            Some(silence) if changed => {
                tracing::info!(silence_ms = silence.as_millis(), "tunnel is silent; others are taken");
            }
            None if changed => tracing::info!("tunnel answers again"),
            _ => {}
        }
    }
}

/// A stream that counts in its tunnel, and keeps it.
#[derive(Debug)]
struct Counted(Arc<Tunnel>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.state.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tunnel {
    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    /// Whether new streams may be opened.
    #[must_use]
    pub fn usable(&self) -> bool {
        !self.state.retired.load(Ordering::SeqCst) && !self.state.closed.is_cancelled()
    }

    /// Whether it answers in time, as far as is known. One that does not takes no new streams meanwhile.
    #[must_use]
    pub fn answers(&self) -> bool {
        !*self.state.silent.borrow()
    }

    /// Waits until it answers again; for ever where it never will.
    pub(crate) async fn answer(self: Arc<Self>) -> Arc<Self> {
        let mut silent = self.state.silent.subscribe();
        let closed = tokio::select! {
            answers = silent.wait_for(|silent| !silent) => answers.is_err(),
            () = self.state.closed.cancelled() => true,
        };
        if closed {
            std::future::pending::<()>().await;
        }
        self
    }

    /// The most streams that the peer takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// No new streams: those that are open end in their own time, and the tunnel with them.
    pub fn retire(&self) {
        self.state.retired.store(true, Ordering::SeqCst);
    }

    /// Whether something came from the other end within this time.
    #[must_use]
    pub fn heard_within(&self, time: Duration) -> bool {
        self.state.heard.ago() < time
    }

    /// How long it has been there.
    pub(crate) fn age(&self) -> Duration {
        self.state.heard.age()
    }

    /// When it was picked last, in turns of its pool.
    pub(crate) fn turn(&self) -> u64 {
        self.state.turn.load(Ordering::Relaxed)
    }

    /// It is picked, in this turn.
    pub(crate) fn pick(&self, turn: u64) {
        self.state.turn.store(turn, Ordering::Relaxed);
    }

    /// Opens a stream: sends the head and waits for the answer.
    ///
    /// Dropping the future resets the stream; nothing of an application's bytes was sent.
    ///
    /// # Errors
    /// The peer's refusal, or [`Reason::TunnelLost`] where the tunnel can't carry it: another one may.
    pub async fn open(self: &Arc<Self>, connect: &Connect) -> Result<(StreamEnd, Answer), Refusal> {
        let lost = |error: &dyn fmt::Display| {
            Refusal::new(Reason::TunnelLost, format!("tunnel to {}: {error}", self.address))
        };
        self.state.streams.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self.clone());
        if !self.usable() {
            return Err(lost(&"it is ending"));
        }
        let request = connect.request().map_err(|error| lost(&error))?;
        let opened = async {
            let mut ready = self.send.clone().ready().await?;
            let (response, send) = ready.send_request(request, false)?;
            Ok::<_, h2::Error>((response.await?, send))
        };
        let mut silent = self.state.silent.subscribe();
        let opened = tokio::select! {
            biased;
            opened = opened => opened,
            _ = silent.wait_for(|silent| *silent) => return Err(lost(&"it does not answer")),
        };
        let (response, send) = opened.map_err(|error| {
            // A tunnel that says goodbye takes no more; one reset stream says nothing of the others.
            if !error.is_reset() {
                self.retire();
            }
            lost(&error)
        })?;
        let answer = Answer::parse(&response)?;
        Ok((StreamEnd::new(send, Reader::new(response.into_body()), self.queue, counted), answer))
    }
}
