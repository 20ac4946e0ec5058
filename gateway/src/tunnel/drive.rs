//! Runs the connection of a tunnel that was dialled, and looks after its silence.

use super::State;
use crate::{budget::Windows, config::Timing, conns::Ticket, reason::Reason, seldom::Seldom, socket};
use bytes::Bytes;
use h2::client;
use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};
use tombolo_mtls::Cork;

/// How a tunnel is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// By what is dialled: it has one gateway behind it, and a prober of its own.
    Address,
    /// By itself: behind an address there may be several gateways, of which one may be dead.
    Tunnel,
}

/// How a tunnel's silence is found.
pub(super) struct Looks {
    timing: Timing,
    watch: Watch,
    backlog: Option<socket::Backlog>,
}

impl Looks {
    pub(super) const fn new(timing: Timing, watch: Watch, backlog: Option<socket::Backlog>) -> Self {
        Self { timing, watch, backlog }
    }

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

/// What concerns a tunnel, apart from its bytes.
enum Event {
    Ended(Reason),
    Pong(Result<(), h2::Error>),
    Window(u32),
    Beat,
}

/// Runs a tunnel's connection to its end.
pub(super) async fn drive<T, U>(
    (mut connection, cork): (client::Connection<T, Bytes>, Cork<U>),
    state: Arc<State>,
    ticket: Ticket,
    mut looks: Looks,
    mut windows: Windows,
    up: oneshot::Sender<Result<(), h2::Error>>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
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
        let ended = async { Event::Ended(ticket.ended().await) };
        let event = async {
            tokio::select! {
                biased;
                pong = pong(&mut pings), if asked.is_some() => Event::Pong(pong),
                window = windows.change() => Event::Window(window),
                _ = beats.tick() => Event::Beat,
            }
        };
        let bytes = poll_fn(|cx| cork.poll(cx, |cx| Pin::new(&mut connection).poll(cx)));
        let event = {
            let (ended, event) = (pin!(ended), pin!(event));
            tokio::select! {
                biased;
                ended = Seldom::new(ended) => ended,
                // before the beat: what came while this process stood still is an answer
                result = bytes => {
                    state.retired.store(true, Ordering::SeqCst);
                    match (up.take(), result) {
                        (Some(up), Err(error)) => drop(up.send(Err(error))),
                        (_, Err(error)) => tracing::debug!(%error, "tunnel ended"),
                        (_, Ok(())) => {}
                    }
                    return;
                }
                event = Seldom::new(event) => event,
            }
        };
        match event {
            Event::Ended(reason) => {
                tracing::info!(%reason, "tunnel closed");
                return;
            }
            Event::Pong(Err(error)) => {
                tracing::debug!(%error, "tunnel's keep-alive failed");
                return;
            }
            Event::Pong(Ok(())) => {
                asked = None;
                state.set_silent(None);
                if let Some(up) = up.take() {
                    let _ = up.send(Ok(()));
                }
            }
            Event::Window(window) => {
                let taken = connection.set_initial_window_size(window).is_ok();
                windows.tell(window, taken);
            }
            Event::Beat => {
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
                // What its streams have said goes out, also where the last of them is gone.
                if state.streams.load(Ordering::SeqCst) > 0 || !cork.is_clear() {
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
        Some(pings) => poll_fn(|cx| pings.poll_pong(cx)).await.map(drop),
        None => pending().await,
    }
}
