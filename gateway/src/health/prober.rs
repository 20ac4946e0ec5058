//! Probes one address: a tunnel of its own, kept, and a ping on it again and again.
//!
//! A tunnel of its own because a ping behind megabytes of an application's bytes measures those. A new one after each
//! rotation of the certificate that is shown, and every minute: a tunnel that stands says nothing of whether either side
//! would still accept the other, and the pool's next dial needs just that.

use super::state::{Event, Failure};
use crate::{
    config::Timing,
    conns::{Kind, Ticket},
    pool::Key,
    reach::Forbidden,
    state::Shared,
    tunnel::ALPN,
};
use bytes::Bytes;
use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tombolo_model::GatewayRole;
use tombolo_mtls::{Credentials, Expect, HandshakeError, VerifyError, client_config};

/// The longest pause between two attempts to reach a dead address: one that is reached again is in use within two seconds, an attempt that
/// was made the moment before, in vain, included.
const LONGEST: Duration = Duration::from_millis(1250);

/// How long an address is believed by its other tunnels while no probe gets through: until a gateway that hangs behind it is
/// known to do so by whatever leads there.
const OTHERS: Duration = Duration::from_secs(5);

/// An egress gateway that no call went to for so long is asked less often.
const QUIET: Duration = Duration::from_secs(30);

/// Probes until `stop`. `key` says who is expected where.
pub(crate) async fn run(shared: Arc<Shared>, key: Key, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = forever(&shared, &key) => {}
    }
    shared.health_of(key.role).forget(&key.cluster, &key.address);
}

async fn forever(shared: &Shared, key: &Key) {
    let timing = shared.config.timing;
    let mut pause = timing.probe;
    // How long the last ping that was answered took, in microseconds; 0 while a probe has none.
    let heard = AtomicU64::new(0);
    let mut demand = shared.health_of(key.role).demand();
    loop {
        demand.mark_unchanged();
        let mut begin = Instant::now();
        let mut ended = probe(shared, key, timing.dead * 4, &heard).await;
        // When the last probe that got through ended, and its time there and back.
        let mut good: Option<(Instant, Duration)> = None;
        loop {
            let worked = begin.elapsed() > timing.dead * 4;
            let rtt = heard.swap(0, Ordering::Relaxed);
            if rtt > 0 {
                good = Some((Instant::now(), Duration::from_micros(rtt)));
            }
            // A tunnel that worked may end for a reason that says nothing of the peer (no stream used it): dial again, and
            // only where that fails, soon, the peer is dead.
            let again = worked && matches!(ended, Ended::Closed(_));
            // Behind the address there may be several gateways: one that ended or hangs is not all of them.
            let others = matches!(ended, Ended::Closed(_) | Ended::Silent(_))
                && key.role == GatewayRole::Ingress
                && good.is_some_and(|(at, _)| at.elapsed() < OTHERS)
                && shared.pool.lives(&key.address, timing.dead);
            if !again && !others {
                break;
            }
            if !worked {
                // many probe one address: not all of them at once
                sleep(timing.probe.mul_f64(0.5 + rand::random::<f64>())).await;
            }
            begin = Instant::now();
            // A handshake needs three round trips and more: a far peer is not dead for that.
            let far = good.map_or(Duration::ZERO, |(_, rtt)| rtt * 4);
            ended = probe(shared, key, far.clamp(timing.dead, timing.dead * 4), &heard).await;
        }
        let (Ended::Closed(error) | Ended::Silent(error) | Ended::Refused(error)) = ended;
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

/// Why a probe's tunnel is no more.
enum Ended {
    /// The connection ended.
    Closed(Failure),
    /// Nobody answers there, or somebody else does.
    Silent(Failure),
    /// Who answered is not to be believed any more.
    Refused(Failure),
}

/// Connects, within `patience`, and pings until that fails.
async fn probe(shared: &Shared, key: &Key, patience: Duration, heard: &AtomicU64) -> Ended {
    let timing = shared.config.timing;
    // An egress gateway takes tunnels of workloads alone.
    let known = || match key.role {
        GatewayRole::Egress => shared.credentials.any(),
        GatewayRole::Ingress | GatewayRole::Sidecar | GatewayRole::Node => shared.credentials.own(),
    };
    let credentials = loop {
        match known() {
            Some(credentials) => break credentials,
            None => sleep(timing.probe).await,
        }
    };
    credentials.wait_ready().await;
    let mut rotated = credentials.subscribe();
    rotated.mark_unchanged();
    // The first handshake of a far peer needs three round trips; it gets longer than a ping. The own gateways are near.
    let patience = if key.role == GatewayRole::Egress { timing.dead } else { patience };
    let mut line = match Line::dial(shared, key, &credentials, patience).await {
        Ok(line) => line,
        Err(error) => return Ended::Silent(error),
    };
    loop {
        // What was true of the last handshake need not be of the next: with other certificates, or after a while.
        let renewed = async {
            tokio::select! {
                Ok(()) = rotated.changed() => {}
                () = sleep(timing.proof.mul_f64(0.75 + rand::random::<f64>() / 4.0)) => {}
            }
            if let Ok(line) = Line::dial(shared, key, &credentials, patience).await {
                return Ok(line);
            }
            // One that fails while the old tunnel answers may be a moment's; two are a peer that takes no new ones.
            sleep(timing.probe).await;
            Line::dial(shared, key, &credentials, patience).await
        };
        // The old one is pinged until the new one stands, so that a silence is found as soon as ever.
        line = tokio::select! {
            biased;
            ended = line.keep(shared, key, heard) => return ended,
            renewed = renewed => match renewed {
                Ok(line) => line,
                Err(mut failure) => {
                    failure.cause = format!("it answers, but takes no new tunnel: {}", failure.cause);
                    return Ended::Silent(failure);
                }
            },
        };
    }
}

/// A prober's tunnel.
struct Line {
    connection: h2::client::Connection<TlsStream<TcpStream>, Bytes>,
    pings: Pings,
    ticket: Ticket,
    // The connection ends with the last of these.
    _send: h2::client::SendRequest<Bytes>,
}

impl Line {
    /// A new tunnel, with an answer to its first ping: that alone says that the peer took this side's certificate.
    async fn dial(
        shared: &Shared,
        key: &Key,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Self, Failure> {
        match timeout(patience, Self::try_dial(shared, key, credentials)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::hidden(format!("no handshake within {patience:?}"))),
        }
    }

    async fn try_dial(shared: &Shared, key: &Key, credentials: &Credentials) -> Result<Self, Failure> {
        let expect = Expect::Gateway { cluster: Some(key.cluster.clone()), role: key.role };
        let config = client_config(&shared.bundle, credentials, expect, &[ALPN]);
        let reach = shared.pool.reach(key);
        let tcp = reach.connect(&key.address).await.map_err(|error| missed(&key.address, &error))?;
        crate::socket::prepare(&tcp);
        let name = crate::tunnel::server_name(&key.address);
        let (tls, peer) = tombolo_mtls::connect(tcp, config, name).await.map_err(|error| mistaken(&error))?;
        // Who is there is a gateway of ours: what it does now, everybody may know.
        let (send, mut connection) =
            crate::tunnel::client_builder(&shared.config.limits, shared.budget.windows().told())
                .handshake::<_, Bytes>(tls)
                .await
                .map_err(|error| Failure::tellable(error.to_string()))?;
        let refused = |refusal: crate::error::Refusal| Failure::tellable(refusal.to_string());
        let ticket = shared.conns.admit(Kind::Tunnel, shared.conns.number()).map_err(refused)?;
        ticket.relies_on(&peer, shared.bundle.get().as_deref()).map_err(refused)?;
        let mut pings = Pings {
            pings: connection.ping_pong().ok_or_else(|| Failure::tellable("no pings"))?,
            calls: (key.role == GatewayRole::Egress).then(|| shared.calls()),
            longest: shared.config.timing.keepalive,
        };
        tokio::select! {
            biased;
            result = &mut connection => return Err(how(result)),
            // The connection says how it ended.
            () = pings.echo() => {}
        }
        Ok(Self { connection, pings, ticket, _send: send })
    }

    /// Pings until the tunnel fails.
    async fn keep(&mut self, shared: &Shared, key: &Key, heard: &AtomicU64) -> Ended {
        let tell = |event| {
            if let Event::Answered(took) = event {
                heard.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
            }
            tell(shared, key, event);
        };
        let Self { connection, pings, ticket, .. } = self;
        tokio::select! {
            biased;
            reason = ticket.ended() => Ended::Refused(Failure::tellable(reason.to_string())),
            result = connection => Ended::Closed(how(result)),
            error = pinging(&shared.config.timing, pings, tell) => Ended::Silent(Failure::tellable(error)),
        }
    }
}

fn how(result: Result<(), h2::Error>) -> Failure {
    let how = result.map_or_else(|error| error.to_string(), |()| "the peer ended the tunnel".to_owned());
    Failure::tellable(how)
}

/// Nothing was reached, or nothing was tried. Where the peer wrote the address itself, a rule about it is no news of any network; where
/// it wrote a name, what that leads to here is.
fn missed(address: &str, error: &std::io::Error) -> Failure {
    let literal = address.parse::<SocketAddr>().is_ok();
    let rule = literal && error.get_ref().is_some_and(|inner| inner.is::<Forbidden>());
    Failure { cause: error.to_string(), tellable: rule }
}

/// Something was reached. Only of what showed a certificate of ours more is told than that it is no gateway.
fn mistaken(error: &HandshakeError) -> Failure {
    let ours = matches!(
        error,
        HandshakeError::Refused(
            VerifyError::NotExpected { .. }
                | VerifyError::Revoked
                | VerifyError::Expired
                | VerifyError::NotYetValid
        )
    );
    Failure { cause: tombolo_runtime::telemetry::chain(error), tellable: ours }
}

/// What answers pings.
trait Echo {
    /// One ping, there and back; for ever where the connection ended.
    fn echo(&mut self) -> impl Future<Output = ()> + Send;
    /// A rest before the next one, where nobody needs it soon.
    fn rest(&mut self) -> impl Future<Output = ()> + Send;
}

/// The pings of a tunnel.
struct Pings {
    pings: h2::PingPong,
    /// The last call, where the peer is asked less often without any.
    calls: Option<watch::Receiver<Instant>>,
    /// The longest rest.
    longest: Duration,
}

impl Echo for Pings {
    async fn rest(&mut self) {
        if let Some(calls) = &mut self.calls
            && calls.borrow_and_update().elapsed() > QUIET
        {
            let _ = timeout(self.longest, calls.changed()).await;
        }
    }

    async fn echo(&mut self) {
        if self.pings.ping(h2::Ping::opaque()).await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Pings until one is not answered in time; says so.
async fn pinging(timing: &Timing, line: &mut impl Echo, tell: impl Fn(Event)) -> String {
    loop {
        let begin = Instant::now();
        if timeout(timing.dead, line.echo()).await.is_err() {
            return format!("no answer to a ping within {:?}", timing.dead);
        }
        tell(Event::Answered(begin.elapsed()));
        line.rest().await;
        sleep(timing.probe.saturating_sub(begin.elapsed())).await;
    }
}

fn tell(shared: &Shared, key: &Key, event: Event) {
    let error = match &event {
        Event::Failed(failure) => failure.cause.clone(),
        _ => String::new(),
    };
    match shared.health_of(key.role).on(&key.cluster, &key.address, event) {
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
    use crate::reach::Reach;
    use std::cell::Cell;

    /// Answers so many pings, each after a while, and then no more.
    struct Mute(u32);

    impl Echo for Mute {
        async fn rest(&mut self) {}

        async fn echo(&mut self) {
            if self.0 == 0 {
                pending::<()>().await;
            }
            self.0 -= 1;
            sleep(Duration::from_millis(40)).await;
        }
    }

    #[test]
    fn what_a_name_leads_to_is_told_to_nobody() {
        let rule = Reach::Peer { loopback: false, never: [].into() };
        let rule = rule.check("127.0.0.1".parse().unwrap()).unwrap_err();
        let error = std::io::Error::new(std::io::ErrorKind::PermissionDenied, rule);
        for (address, tellable) in
            [("127.0.0.1:15443", true), ("[::1]:15443", true), ("db.corp.example.com:15443", false)]
        {
            assert_eq!(missed(address, &error).tellable, tellable, "{address}");
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
