//! Probes one address: a tunnel of its own, kept, and a ping on it again and again.
//!
//! A tunnel of its own because a ping behind megabytes of an application's bytes measures those. A new one after each
//! rotation of this gateway's certificate, and every few minutes: a tunnel that stands says nothing of whether either
//! side would still accept the other, and the pool's next dial needs just that.

use super::state::Event;
use crate::{
    config::Timing,
    conns::{Kind, Ticket},
    pool::Key,
    reason::Reason,
    state::Shared,
    tunnel::ALPN,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tombolo_mtls::{Credentials, Expect, client_config};

/// The longest pause between two attempts to reach a dead address.
const LONGEST: Duration = Duration::from_secs(2);

/// Probes until `stop`. `key` says who is expected where.
pub(crate) async fn run(shared: Arc<Shared>, key: Key, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = forever(&shared, &key) => {}
    }
    shared.health.forget(&key.cluster, &key.address);
}

async fn forever(shared: &Shared, key: &Key) {
    let timing = shared.config.timing;
    let mut pause = timing.probe;
    let mut demand = shared.health.demand();
    loop {
        demand.mark_unchanged();
        let begin = Instant::now();
        let error = probe(shared, key).await;
        tell(shared, key, Event::Failed(error));
        // One that worked for a while is tried again at once, for instance after its restart.
        pause = if begin.elapsed() > timing.dead * 4 { timing.probe } else { (pause * 2).min(LONGEST) };
        // Never a storm, also where many connections ask for it.
        sleep(timing.probe.mul_f64(0.1 + rand::random::<f64>() / 10.0)).await;
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
            _ = demand.changed() => {}
        }
    }
}

/// Connects and pings until that fails; says how.
async fn probe(shared: &Shared, key: &Key) -> String {
    let timing = shared.config.timing;
    let Some(credentials) = shared.credentials.own() else {
        sleep(timing.probe).await;
        return "this gateway has no certificate yet".to_owned();
    };
    credentials.wait_ready().await;
    let mut rotated = credentials.subscribe();
    rotated.mark_unchanged();
    let mut line = match Line::dial(shared, key, &credentials).await {
        Ok(line) => line,
        Err(error) => return error,
    };
    loop {
        let renewed = async {
            tokio::select! {
                _ = rotated.changed() => {}
                () = sleep(timing.rehandshake.mul_f64(0.75 + rand::random::<f64>() / 4.0)) => {}
            }
            if let Ok(line) = Line::dial(shared, key, &credentials).await {
                return Ok(line);
            }
            // One that fails while the old tunnel answers may be a moment's; two are a peer that takes no new ones.
            sleep(timing.probe).await;
            Line::dial(shared, key, &credentials).await
        };
        // The new tunnel first, then the old one goes.
        line = tokio::select! {
            biased;
            error = line.keep(shared, key) => return error,
            renewed = renewed => match renewed {
                Ok(line) => line,
                Err(error) => return format!("it answers, but takes no new tunnel: {error}"),
            },
        };
    }
}

/// A prober's tunnel.
struct Line {
    connection: h2::client::Connection<TlsStream<TcpStream>, Bytes>,
    pings: h2::PingPong,
    ticket: Ticket,
    // The connection ends with the last of these.
    _send: h2::client::SendRequest<Bytes>,
}

impl Line {
    /// A new tunnel, with an answer to its first ping: that alone says that the peer took this side's certificate.
    async fn dial(shared: &Shared, key: &Key, credentials: &Credentials) -> Result<Self, String> {
        // The first handshake of a far peer needs three round trips; it gets longer than a ping.
        let patience = shared.config.timing.dead * 4;
        match timeout(patience, Self::try_dial(shared, key, credentials)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no handshake within {patience:?}")),
        }
    }

    async fn try_dial(shared: &Shared, key: &Key, credentials: &Credentials) -> Result<Self, String> {
        let expect = Expect::Gateway { cluster: Some(key.cluster.clone()), role: key.role };
        let config = client_config(&shared.bundle, credentials, expect, &[ALPN]);
        let tcp = TcpStream::connect(&*key.address).await.map_err(|error| error.to_string())?;
        crate::socket::prepare(&tcp);
        let name = crate::tunnel::server_name(&key.address);
        let (tls, peer) = tombolo_mtls::connect(tcp, config, name)
            .await
            .map_err(|error| tombolo_runtime::telemetry::chain(&error))?;
        let (send, mut connection) = crate::tunnel::client_builder(&shared.config.limits)
            .handshake::<_, Bytes>(tls)
            .await
            .map_err(|error| error.to_string())?;
        let ticket =
            shared.conns.admit(Kind::Tunnel, shared.conns.number()).map_err(|refusal| refusal.to_string())?;
        ticket.relies_on(&peer, shared.bundle.get().as_deref()).map_err(|refusal| refusal.to_string())?;
        let mut pings = connection.ping_pong().ok_or("no pings")?;
        tokio::select! {
            biased;
            result = &mut connection => return Err(ended(result)),
            pong = pings.ping(h2::Ping::opaque()) => drop(pong.map_err(|error| error.to_string())?),
        }
        Ok(Self { connection, pings, ticket, _send: send })
    }

    /// Pings until the tunnel fails; says how.
    async fn keep(&mut self, shared: &Shared, key: &Key) -> String {
        let Self { connection, pings, ticket, .. } = self;
        tokio::select! {
            biased;
            reason = ticket.ended() => match reason {
                Reason::Revoked => "revoked".to_owned(),
                reason => reason.to_string(),
            },
            result = connection => ended(result),
            error = pinging(&shared.config.timing, pings, |event| tell(shared, key, event)) => error,
        }
    }
}

fn ended(result: Result<(), h2::Error>) -> String {
    match result {
        Ok(()) => "the peer ended the tunnel".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// What answers pings.
trait Echo {
    /// One ping, there and back.
    fn echo(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

impl Echo for h2::PingPong {
    async fn echo(&mut self) -> Result<(), String> {
        self.ping(h2::Ping::opaque()).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Pings until one fails or is not answered in time; says which.
async fn pinging(timing: &Timing, line: &mut impl Echo, tell: impl Fn(Event)) -> String {
    loop {
        let begin = Instant::now();
        match timeout(timing.dead, line.echo()).await {
            Ok(Ok(())) => tell(Event::Answered(begin.elapsed())),
            Ok(Err(error)) => return error,
            Err(_) => return format!("no answer to a ping within {:?}", timing.dead),
        }
        sleep(timing.probe.saturating_sub(begin.elapsed())).await;
    }
}

fn tell(shared: &Shared, key: &Key, event: Event) {
    let error = match &event {
        Event::Failed(error) => error.clone(),
        _ => String::new(),
    };
    match shared.health.on(&key.cluster, &key.address, event) {
        Some(true) => {
            tracing::info!(cluster.name = %key.cluster, address = %key.address, "peer is in rotation");
        }
        Some(false) => {
            tracing::warn!(cluster.name = %key.cluster, address = %key.address, error, "peer is out of rotation");
            shared.pool.retire(&key.address);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, future::pending};

    /// Answers so many pings, each after a while, and then no more.
    struct Mute(u32);

    impl Echo for Mute {
        async fn echo(&mut self) -> Result<(), String> {
            if self.0 == 0 {
                return pending().await;
            }
            self.0 -= 1;
            sleep(Duration::from_millis(40)).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_found_within_a_second() {
        let timing = Timing::default();
        let answered = Cell::new((0, Instant::now()));
        let tell = |event| {
            assert_eq!(event, Event::Answered(Duration::from_millis(40)));
            answered.set((answered.get().0 + 1, Instant::now()));
        };
        let error = pinging(&timing, &mut Mute(3), tell).await;
        let (count, last) = answered.get();
        assert_eq!((count, error.as_str()), (3, "no answer to a ping within 500ms"));
        assert!(last.elapsed() < Duration::from_secs(1), "{:?}", last.elapsed());
        assert_eq!(timing.probe, Duration::from_millis(250), "what the architecture says");
    }
}
