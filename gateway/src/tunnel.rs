//! HTTP/2 tunnels: how they are set up on both sides, and the client's side of one.
//!
//! A tunnel is one mutual TLS connection that carries many streams; each stream is one connection of an application.
//! It knows bytes and heads, not services.

use crate::{
    accesslog::Tls,
    budget::{Budget, Windows},
    config::{Limits, Timing},
    conns::{Conns, Kind},
    copy::stream::{Reader, StreamEnd},
    error::Refusal,
    head::{Answer, Connect},
    heard::{LastHeard, Listening},
    reach::Reach,
    reason::Reason,
    socket,
};
use bytes::Bytes;
use h2::{client, server};
use ipnet::IpNet;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tombolo_model::{GatewayRole, snapshot::CaFingerprint};
use tombolo_mtls::{BundleStore, Peer, key_of};
use tombolo_runtime::task;

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

/// How a tunnel is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// By what is dialled: it has one gateway behind it, and a prober of its own.
    Address,
    /// By itself: behind an address there may be several gateways, of which one may be dead.
    Tunnel,
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

/// What dialling needs besides an address.
#[derive(Clone)]
pub struct Dialer {
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
    /// The registry, so that a revoked peer's tunnel ends.
    pub conns: Conns,
    /// Whom to believe.
    pub bundle: BundleStore,
    /// Whether gateways of other clusters are dialled on this machine.
    pub loopback: bool,
    /// Where they are never dialled: this cluster's own addresses.
    pub never: Arc<[IpNet]>,
    /// How much may wait here.
    pub budget: Budget,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// What is dialled to reach a gateway of this role: ingress gateways are other clusters'.
    #[must_use]
    pub fn reach(&self, role: GatewayRole) -> Reach {
        match role {
            GatewayRole::Ingress => Reach::Peer { loopback: self.loopback, never: self.never.clone() },
            GatewayRole::Egress | GatewayRole::Sidecar | GatewayRole::Node => Reach::Own,
        }
    }

    /// How tunnels to gateways of this role are looked after.
    #[must_use]
    pub fn watch(role: GatewayRole) -> Watch {
        match role {
            GatewayRole::Ingress => Watch::Tunnel,
            GatewayRole::Egress | GatewayRole::Sidecar | GatewayRole::Node => Watch::Address,
        }
    }

    /// Opens a tunnel to `host:port`. The configuration says which identity is shown and which is expected.
    ///
    /// # Errors
    /// [`Reason::PeerUnreachable`], [`Reason::WrongIdentity`] or [`Reason::Revoked`], within [`Timing::dial`].
    pub async fn dial(
        &self,
        address: &Arc<str>,
        reach: Reach,
        config: Arc<ClientConfig>,
        not_after: Option<SystemTime>,
        watch: Watch,
    ) -> Result<Arc<Tunnel>, Refusal> {
        match timeout(self.timing.dial, self.try_dial(address, reach, config, not_after, watch)).await {
            Ok(result) => result,
            Err(_) => {
                let detail = format!("{address}: no handshake within {:?}", self.timing.dial);
                Err(Refusal::new(Reason::PeerUnreachable, detail))
            }
        }
    }

    async fn try_dial(
        &self,
        address: &Arc<str>,
        reach: Reach,
        config: Arc<ClientConfig>,
        not_after: Option<SystemTime>,
        watch: Watch,
    ) -> Result<Arc<Tunnel>, Refusal> {
        let unreachable =
            |error: &dyn fmt::Display| Refusal::new(Reason::PeerUnreachable, format!("{address}: {error}"));
        let tcp = reach.connect(address).await.map_err(|error| unreachable(&error))?;
        socket::prepare(&tcp);
        let backlog = socket::Backlog::of(&tcp);
        let heard = LastHeard::now();
        let name = server_name(address);
        // Below TLS, which has a buffer of its own: what the kernel takes is what counts.
        let (tls, peer) = tombolo_mtls::connect(Listening::new(tcp, Arc::clone(&heard)), config, name)
            .await
            .map_err(|error| Refusal::handshake(&error, address))?;
        let agreed = Tls::of(tls.get_ref().1);
        let replica = key_of(tls.get_ref().1.peer_certificates());
        let windows = self.budget.windows();
        let (send, connection) = client_builder(&self.limits, windows.told())
            .handshake::<_, Bytes>(tls)
            .await
            .map_err(|error| unreachable(&error))?;
        // TLS 1.3 tells a client nothing of its own certificate's fate. The first answer does: wait for the peer's
        // settings, as a ping behind them, before anything relies on the tunnel.
        let ticket = self.conns.admit(Kind::Tunnel, self.conns.number())?;
        ticket.describe(format!("tunnel to {address}"));
        ticket.relies_on(&peer, self.bundle.get().as_deref())?;
        let state = Arc::new(State {
            streams: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            closed: CancellationToken::new(),
            silent: watch::Sender::new(false),
            heard,
            turn: AtomicU64::new(0),
        });
        let (up, confirmed) = tokio::sync::oneshot::channel();
        let looks = Looks { timing: self.timing, watch, backlog };
        task::spawn("tunnel", drive(connection, state.clone(), ticket, looks, windows, up));
        match confirmed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refused_late(address, error)),
            Err(_) => return Err(unreachable(&"the connection ended at once")),
        }
        let address = address.clone();
        let queue = self.limits.send_buffer;
        Ok(Arc::new(Tunnel { send, state, peer, not_after, tls: agreed, address, replica, queue }))
    }
}

/// The connection broke right after the handshake: mostly the peer refusing this side's certificate.
fn refused_late(address: &str, error: h2::Error) -> Refusal {
    if error.is_io()
        && let Some(error) = error.into_io()
    {
        let broken = tombolo_mtls::HandshakeError::of(error);
        return Refusal::handshake(&broken, address);
    }
    Refusal::new(Reason::PeerUnreachable, format!("{address}: the peer ended the tunnel at once"))
}

pub(crate) fn server_name(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // It decides nothing (the identity does), so what is no name may be replaced.
    match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into())),
    }
}

/// How a tunnel's silence is found.
struct Looks {
    timing: Timing,
    watch: Watch,
    backlog: Option<socket::Backlog>,
}

impl Looks {
    /// It is asked now: what was taken before says nothing of what comes.
    fn ask(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            let _ = backlog.moves(false);
        }
    }

    /// How long nothing was heard of a peer that was asked then: what came since is as good as an answer, and what was taken.
    fn silence(&mut self, asked: Instant, state: &State) -> Duration {
        if self.backlog.as_mut().is_some_and(|backlog| backlog.moves(state.heard.is_blocked())) {
            state.heard.note();
        }
        asked.elapsed().min(state.heard.ago())
    }

    /// Whether a tunnel that was silent for so long, and asked all the while, has ended.
    fn is_end(&self, silence: Duration) -> bool {
        match self.watch {
            // a beat is as long as that, but for the odd millisecond
            Watch::Address => silence >= self.timing.keepalive.mul_f64(0.9),
            Watch::Tunnel => silence >= self.timing.keepalive,
        }
    }
}

/// Runs a tunnel's connection to its end.
async fn drive<T>(
    mut connection: client::Connection<T, Bytes>,
    state: Arc<State>,
    ticket: crate::conns::Ticket,
    mut looks: Looks,
    mut windows: Windows,
    up: tokio::sync::oneshot::Sender<Result<(), h2::Error>>,
) where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let timing = looks.timing;
    let _closed = state.closed.clone().drop_guard();
    let mut pings = connection.ping_pong();
    let mut beats = interval(match looks.watch {
        Watch::Address => timing.keepalive,
        Watch::Tunnel => timing.probe,
    });
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // a ping without an answer yet
    let mut asked: Option<Instant> = None;
    let mut idle_since = Instant::now();
    let mut up = Some(up);
    loop {
        tokio::select! {
            biased;
            reason = ticket.ended() => {
                tracing::info!(%reason, "tunnel closed");
                return;
            }
            result = &mut connection => {
                state.retired.store(true, Ordering::SeqCst);
                match (up.take(), result) {
                    (Some(up), Err(error)) => drop(up.send(Err(error))),
                    (_, Err(error)) => tracing::debug!(%error, "tunnel ended"),
                    (_, Ok(())) => {}
                }
                return;
            }
            pong = pong(&mut pings), if asked.is_some() => {
                if let Err(error) = pong {
                    tracing::debug!(%error, "tunnel's keep-alive failed");
                    return;
                }
                asked = None;
                state.set_silent(None);
                if let Some(up) = up.take() {
                    let _ = up.send(Ok(()));
                }
            }
            window = windows.change() => {
                let taken = connection.set_initial_window_size(window).is_ok();
                windows.tell(window, taken);
            }
            _ = beats.tick() => {
                match (asked, &mut pings) {
                    (Some(at), _) => {
                        let silence = looks.silence(at, &state);
                        if looks.is_end(silence) {
                            tracing::info!("tunnel does not answer; closed");
                            return;
                        }
                        if looks.watch == Watch::Tunnel {
                            state.set_silent((silence >= timing.dead).then_some(silence));
                        }
                    }
                    (None, Some(pings)) => {
                        looks.ask();
                        asked = pings.send_ping(h2::Ping::opaque()).is_ok().then(Instant::now);
                    }
                    (None, None) => {}
                }
                if state.streams.load(Ordering::SeqCst) > 0 {
                    idle_since = Instant::now();
                } else if idle_since.elapsed() >= timing.idle || state.retired.load(Ordering::SeqCst) {
                    // Retire first, then look again: an opener counts itself first and then looks at `retired`.
                    state.retired.store(true, Ordering::SeqCst);
                    if state.streams.load(Ordering::SeqCst) == 0 {
                        return;
                    }
                }
            }
        }
    }
}

async fn pong(pings: &mut Option<h2::PingPong>) -> Result<(), h2::Error> {
    match pings {
        Some(pings) => std::future::poll_fn(|cx| pings.poll_pong(cx)).await.map(drop),
        None => std::future::pending().await,
    }
}

impl State {
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
