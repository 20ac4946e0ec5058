//! Tunnels that others dial: who may come in, how many, and for how long.
//!
//! A handshake has a place of its own, for a bounded time, because nobody is known before it is done. Then a tunnel takes
//! one of the process's places and one of its peer's, so that no peer takes them all.

use super::stream_in;
use crate::{
    accesslog::{Direction, Record},
    authz,
    budget::Windows,
    conns::{Kind, Ticket},
    error::Refusal,
    load::Load,
    reason::Reason,
    seldom::Seldom,
    socket,
    state::Shared,
    tunnel::{self, ALPN},
};
use bytes::Bytes;
use h2::server::Connection;
use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tombolo_model::SpiffeId;
use tombolo_mtls::{Cork, Peer, Wire, server_config};
use tombolo_runtime::{drain::Watch, places::Source, task};

/// How long a peer that is told to go may take to hear it.
const GOODBYE: Duration = Duration::from_secs(1);
/// Over which time streams that were taken back are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// A tunnel that was taken.
pub(super) struct Incoming {
    pub(super) peer: Peer,
    pub(super) address: SocketAddr,
    taken_back: TakenBack,
}

impl Incoming {
    /// Its peer took a stream back before it was open.
    pub(super) fn taken_back(&self) {
        self.taken_back.one_more(Instant::now());
    }
}

/// Counts streams that were opened and taken back at once: each costs the peer nothing and this process a path.
struct TakenBack {
    most: u32,
    window: Mutex<(Instant, u32)>,
    flooded: CancellationToken,
}

impl TakenBack {
    fn new(most: u32) -> Self {
        Self { most, window: Mutex::new((Instant::now(), 0)), flooded: CancellationToken::new() }
    }

    fn one_more(&self, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.0) > WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        if window.1 > self.most {
            self.flooded.cancel();
        }
    }
}

/// What a tunnel holds while it lasts.
struct Held {
    windows: Windows,
    _place: OwnedSemaphorePermit,
    _of_peer: Load<SpiffeId>,
}

/// Takes tunnels until the draining begins, and then ends those it has in order.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, watch: Watch) {
    let limits = shared.config.limits;
    let room = Arc::new(Semaphore::new(limits.tunnels));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let origins = crate::load::Loads::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = watch.signaled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors mostly: give the others time to end.
                tracing::warn!(%error, "no tunnel taken");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = handshakes.clone().try_acquire_owned().ok();
        let of_origin = origins.try_add(&Source::of(address.ip()), limits.address_handshakes);
        let (Some(place), Some(of_origin)) = (place, of_origin) else {
            let refusal = Refusal::new(Reason::Overloaded, "too many handshakes are under way");
            refused(&shared, address, &refusal, shared.clock.now());
            socket::refuse(stream);
            continue;
        };
        let (shared, watch, room) = (shared.clone(), watch.clone(), room.clone());
        let lanes = shared.config.lanes.clone();
        lanes.serve(stream, move |stream| async move {
            let start = shared.clock.now();
            let taken = take(stream, address, &shared, &room).await;
            drop((place, of_origin));
            let ended = match taken {
                Ok((line, incoming, ticket, held)) => {
                    run(line, incoming, &ticket, held, &shared, &watch).await
                }
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = ended {
                refused(&shared, address, &refusal, start);
            }
        });
    }
}

/// Says in metrics and in the access log why a tunnel was not taken, or cut: nothing of it may ever reach a stream's line.
fn refused(shared: &Shared, address: SocketAddr, refusal: &Refusal, start: SystemTime) {
    shared.metrics.tunnel_refused(refusal.reason);
    let role = shared.config.role;
    let direction = if role.is_beside_applications() { Direction::Inbound } else { Direction::Transit };
    let mut record = Record::new(start, role, shared.conns.number(), direction);
    record.client = Some(address);
    record.reason = Some(refusal.reason);
    record.detail = Some(refusal.detail.clone());
    record.duration = shared.clock.now().duration_since(start).unwrap_or_default();
    shared.log.write(&record);
}

/// A tunnel, and what writes out what it gathers.
struct Line(Connection<Wire<TcpStream>, Bytes>, Cork<TcpStream>);
type Taken = (Line, Arc<Incoming>, Ticket, Held);

/// The handshakes, and whether this peer may come in.
async fn take(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    room: &Arc<Semaphore>,
) -> Result<Taken, Refusal> {
    let limits = &shared.config.limits;
    let deadline = Instant::now() + shared.config.timing.handshake;
    socket::prepare(&stream);
    // A node's proxy is dialled as soon as the agent knows of it, and its first certificate comes a moment after.
    let own = timeout_at(deadline, shared.credentials.wait_own()).await.ok().flatten();
    let own =
        own.ok_or_else(|| Refusal::new(Reason::NoCredentials, "this gateway has no certificate yet"))?;
    let config = server_config(&shared.bundle, &own, &[ALPN]);
    let late = |what: &str| Refusal::new(Reason::Timeout, format!("no {what} handshake in time"));
    let (tls, peer) = match timeout_at(deadline, tombolo_mtls::accept(stream, config)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            shared.metrics.handshake(false);
            return Err(Refusal::handshake(&error, "the caller"));
        }
        Err(_) => {
            shared.metrics.handshake(false);
            return Err(late("TLS"));
        }
    };
    shared.metrics.handshake(true);
    let ticket = shared.conns.admit(Kind::Tunnel, shared.conns.number())?;
    ticket.describe(format!("tunnel from {address}"));
    ticket.relies_on(&peer, shared.bundle.get().as_deref())?;
    {
        let table = shared.table.load();
        let itself =
            table.itself().ok_or_else(|| Refusal::new(Reason::NoRoute, "there is no snapshot yet"))?;
        authz::tunnel_peer(shared.config.role, itself, &peer.id)?;
    }
    let of_peer = shared.tunnel_loads.try_add(&peer.id, limits.peer_tunnels).ok_or_else(|| {
        let detail = format!("{} has {} tunnels here already", peer.id, limits.peer_tunnels);
        Refusal::new(Reason::Overloaded, detail)
    })?;
    let place = room.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(Reason::Overloaded, format!("{} tunnels are open already", limits.tunnels))
    })?;
    let windows = shared.budget.windows();
    let (wire, cork) = Wire::over(tls);
    let handshake = tunnel::server_builder(limits, windows.told()).handshake::<_, Bytes>(wire);
    let connection = match timeout_at(deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(Refusal::new(Reason::BadRequest, format!("no HTTP/2: {error}"))),
        Err(_) => return Err(late("HTTP/2")),
    };
    let taken_back = TakenBack::new(limits.cancelled);
    let incoming = Arc::new(Incoming { peer, address, taken_back });
    Ok((Line(connection, cork), incoming, ticket, Held { windows, _place: place, _of_peer: of_peer }))
}

/// What concerns a tunnel, apart from its bytes.
enum Event {
    Ended(Reason),
    Flooded,
    Draining,
    Window(u32),
    Look,
}

/// A tunnel to its end.
async fn run(
    Line(mut connection, cork): Line,
    incoming: Arc<Incoming>,
    ticket: &Ticket,
    mut held: Held,
    shared: &Arc<Shared>,
    watch: &Watch,
) -> Result<(), Refusal> {
    let timing = shared.config.timing;
    // A stream that its peer has forgotten may still be worked on: those that HTTP/2 counts are not all.
    let most = shared.config.limits.streams as usize;
    let streams = Arc::new(Semaphore::new(most));
    let mut look = interval(timing.idle_taken / 8);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut busy = Instant::now();
    let mut ending = false;
    loop {
        let event = async {
            tokio::select! {
                biased;
                reason = ticket.ended() => Event::Ended(reason),
                () = incoming.taken_back.flooded.cancelled() => Event::Flooded,
                () = watch.signaled(), if !ending => Event::Draining,
                window = held.windows.change() => Event::Window(window),
                _ = look.tick() => Event::Look,
            }
        };
        let event = {
            let event = pin!(event);
            let mut event = Seldom::new(event);
            loop {
                let accept = poll_fn(|cx| cork.poll(cx, |cx| connection.poll_accept(cx)));
                tokio::select! {
                    biased;
                    event = &mut event => break event,
                    accepted = accept => match accepted {
                        Some(Ok((request, respond))) => {
                            busy = Instant::now();
                            let (shared, incoming, watch) = (shared.clone(), incoming.clone(), watch.clone());
                            let place = streams.clone().try_acquire_owned().ok();
                            task::spawn_bare(async move {
                                let _held = watch;
                                stream_in(request, respond, place, &shared, &incoming).await;
                            });
                        }
                        // The peer is gone in order: its streams know.
                        None => return Ok(()),
                        Some(Err(error)) if error.is_io() => return Ok(()),
                        Some(Err(error)) => {
                            let detail = format!("{}: {error}", incoming.peer.id);
                            return Err(Refusal::new(Reason::BadRequest, detail));
                        }
                    },
                }
            }
        };
        match event {
            Event::Ended(reason) => {
                tracing::info!(%reason, peer.id = %incoming.peer.id, "tunnel closed");
                return Ok(());
            }
            Event::Flooded => {
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                let closed = poll_fn(|cx| cork.poll(cx, |cx| connection.poll_closed(cx)));
                let _ = timeout(GOODBYE, closed).await;
                let detail = format!("{} takes streams back as fast as it opens them", incoming.peer.id);
                return Err(Refusal::new(Reason::Overloaded, detail));
            }
            Event::Draining => {
                ending = true;
                connection.graceful_shutdown();
            }
            Event::Window(window) => {
                let taken = connection.set_initial_window_size(window).is_ok();
                held.windows.tell(window, taken);
            }
            Event::Look => {
                if streams.available_permits() < most {
                    busy = Instant::now();
                } else if !ending && busy.elapsed() >= timing.idle_taken {
                    tracing::debug!(peer.id = %incoming.peer.id, "tunnel without streams; told to end");
                    ending = true;
                    connection.graceful_shutdown();
                } else if ending && busy.elapsed() >= timing.idle_taken + timing.handshake {
                    // It was told, and did not go.
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_taken_back_are_counted_by_the_second() {
        let taken_back = TakenBack::new(3);
        let now = Instant::now();
        for second in 0..5 {
            (0..3).for_each(|_| taken_back.one_more(now + WINDOW * 2 * second));
        }
        assert!(!taken_back.flooded.is_cancelled());
        taken_back.one_more(now + WINDOW * 8);
        assert!(taken_back.flooded.is_cancelled());
    }
}
