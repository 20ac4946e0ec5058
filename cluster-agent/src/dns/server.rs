//! The sockets. They carry packets to [`respond`](super::respond::respond) and its bytes back.
//!
//! Why not hickory's own server around its codec: it answers each query of a TCP connection only after the one
//! before (a slow forwarded name would hold up ours), sets no bound on connections, answers malformed responses
//! with an error (two such servers talk for ever), drops the EDNS record of a truncated response, and can only
//! write records that it decoded. So the codec is hickory's, and the loops are here.

use super::{
    answer::Settings,
    explain::{Explanation, Why},
    message::{Request, Transport},
    metrics::Metrics,
    reader::ZoneReader,
    respond::{Others, Source, Step, not_ready, respond},
    tcp,
    udp::{Socket, Way},
    upstream::{ForwardTo, Forwarder, Limits},
};
use futures::{StreamExt, stream::FuturesUnordered};
use hickory_proto::op::ResponseCode;
use nix::ifaddrs::getifaddrs;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tombolo_model::Special;

/// How a DNS server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens, UDP and TCP. Port 0 takes a free one, the same for both.
    pub listen: SocketAddr,
    /// What becomes of names of others.
    pub forward: ForwardTo,
    /// How long answers may be kept, in whole seconds.
    pub ttl: Duration,
    /// How long "there is no such name" may be kept, in whole seconds.
    pub negative_ttl: Duration,
    /// The bounds of forwarding.
    pub limits: Limits,
    /// The bounds of TCP.
    pub tcp: TcpLimits,
}

/// The bounds of DNS over TCP.
#[derive(Clone, Copy, Debug)]
pub struct TcpLimits {
    /// Connections at a time. Of more, somebody who has fewer than others gets the oldest idle one of whoever has most.
    pub connections: usize,
    /// Of these, for each client (each /64 in IPv6).
    pub each: usize,
    /// How long a connection may say nothing, and how long it may take to accept what it asked for.
    pub idle: Duration,
    /// Forwarded queries at a time, for each connection; while there are so many, no more are read.
    pub pipelined: usize,
}

impl Config {
    /// A server here, with the usual bounds.
    #[must_use]
    pub fn new(listen: SocketAddr, forward: ForwardTo) -> Self {
        let ttl = Duration::from_secs(5);
        let tcp = TcpLimits { connections: 256, each: 64, idle: Duration::from_secs(10), pipelined: 16 };
        Self { listen, forward, ttl, negative_ttl: ttl, limits: Limits::default(), tcp }
    }
}

/// Why a DNS server can't start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address can't be had.
    #[error("can't listen on {address} for DNS; give another --dns, or end what listens there")]
    Address {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// Its own address as the server to forward to.
    #[error(
        "--dns-forward {address} is this server itself; name the resolver that the machine used before, or refuse"
    )]
    ForwardsToItself {
        /// The address.
        address: SocketAddr,
    },
}

/// A DNS server with its sockets bound.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    udp: Socket,
    tcp: TcpListener,
    address: SocketAddr,
}

/// What every query needs.
#[derive(Debug)]
pub(super) struct Shared {
    zones: ZoneReader,
    settings: Settings,
    forwarder: Option<Forwarder>,
    pub(super) limits: TcpLimits,
    pub(super) metrics: Metrics,
}

/// Ports to try until one is free for both UDP and TCP.
const PORT_TRIES: usize = 32;

impl Server {
    /// Binds the sockets.
    ///
    /// # Errors
    /// A [`BindError`]: the address can't be had, or names of others would be forwarded to it.
    pub async fn bind(config: Config, zones: ZoneReader, metrics: Metrics) -> Result<Self, BindError> {
        let wanted = config.listen;
        let (udp, tcp, address) =
            bind(wanted).await.map_err(|source| BindError::Address { address: wanted, source })?;
        let forwarder = match config.forward {
            ForwardTo::Server(server) if is_own(address, server) => {
                return Err(BindError::ForwardsToItself { address: server });
            }
            ForwardTo::Server(server) => Some(Forwarder::new(server, config.limits)),
            ForwardTo::Refuse => None,
        };
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let settings = Settings {
            ttl_s: seconds(config.ttl),
            negative_ttl_s: seconds(config.negative_ttl),
            addresses: reached_at(address.ip()),
            ..Settings::default()
        };
        let shared = Arc::new(Shared { zones, settings, forwarder, limits: config.tcp, metrics });
        Ok(Self { shared, udp, tcp, address })
    }

    /// Where it listens, UDP and TCP alike.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`; then takes no more questions, answers those that it has, and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let token = CancellationToken::new();
        let signal = async {
            stop.await;
            token.cancel();
        };
        tokio::join!(
            signal,
            serve_udp(&self.shared, &self.udp, &token),
            tcp::serve(&self.shared, &self.tcp, &token),
        );
    }
}

impl Shared {
    /// Decides what to do with a packet, and counts it. None where nothing is to be done.
    pub(super) fn step(&self, packet: &[u8], transport: Transport) -> Option<Next> {
        let zone = self.zones.get();
        let others = if self.forwarder.is_some() { Others::Forwarded } else { Others::Refused };
        // The codec reads what anybody sends. Should it ever break off, one packet is lost, not the server.
        let step = catch_unwind(AssertUnwindSafe(|| {
            respond(zone.as_deref(), &self.settings, others, packet, transport, rand::random())
        }));
        match step {
            Ok(Step::Ignore(why)) => {
                self.metrics.ignored(why);
                None
            }
            Ok(Step::Say { bytes, kind, code, source }) => {
                self.metrics.answered(kind, code, source);
                (!bytes.is_empty()).then_some(Next::Send(bytes))
            }
            Ok(Step::Forward { request, foreign }) => Some(Next::Forward(request, foreign)),
            Err(_) => {
                self.metrics.panicked();
                tracing::error!(
                    packet.bytes = packet.len(),
                    "a DNS packet broke its handler; please report this"
                );
                None
            }
        }
    }

    /// Asks the other server, and gives its answer or why there is none. What may be a name of ours (not `foreign`) is not
    /// denied in its words: resolvers would keep that.
    pub(super) async fn forward(&self, request: &Request, foreign: bool) -> Vec<u8> {
        let kind = Some(request.question.query_type());
        let Some(forwarder) = &self.forwarder else {
            return request.fail(ResponseCode::Refused, Explanation::new(Why::NotAuthoritative, ""));
        };
        let start = Instant::now();
        let result = forwarder.forward(request).await;
        self.metrics.forwarded(start.elapsed());
        match result {
            Ok(forwarded) if !foreign && !forwarded.is_positive() => {
                self.metrics.answered(kind, ResponseCode::ServFail, Source::Refused);
                request.fail(ResponseCode::ServFail, not_ready())
            }
            Ok(forwarded) => {
                self.metrics.answered(kind, forwarded.code, Source::Forward);
                forwarded.bytes
            }
            Err(error) => {
                self.metrics.answered(kind, ResponseCode::ServFail, Source::Forward);
                tracing::debug!(error = %error, "a forwarded DNS query failed");
                request.fail(ResponseCode::ServFail, error.explanation())
            }
        }
    }
}

/// What is left to do for a packet.
pub(super) enum Next {
    /// Send this.
    Send(Vec<u8>),
    /// Ask the other server; whether the name is known to be none of ours.
    Forward(Box<Request>, bool),
}

async fn serve_udp(shared: &Shared, socket: &Socket, stop: &CancellationToken) {
    // Longer than what the server says it takes; what is cut off here is malformed.
    let mut buffer = [0; 4096];
    let mut forwards = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(answer) = forwards.next() => send(socket, answer).await,
            received = socket.receive(&mut buffer) => match received {
                // Nobody can be answered at port 0.
                Ok((_, way)) if way.client.port() == 0 => {}
                Ok((length, way)) => match shared.step(&buffer[..length], Transport::Udp) {
                    Some(Next::Send(bytes)) => send(socket, (bytes, way)).await,
                    Some(Next::Forward(request, foreign)) => {
                        forwards.push(async move { (shared.forward(&request, foreign).await, way) });
                    }
                    None => {}
                },
                Err(error) => {
                    tracing::warn!(%error, "receiving DNS over UDP failed");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
    while let Some(answer) = forwards.next().await {
        send(socket, answer).await;
    }
}

async fn send(socket: &Socket, (bytes, way): (Vec<u8>, Way)) {
    if let Err(error) = socket.send(&bytes, way).await {
        tracing::debug!(%error, client = %way.client, "sending a DNS answer failed");
    }
}

async fn bind(wanted: SocketAddr) -> io::Result<(Socket, TcpListener, SocketAddr)> {
    let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = TcpListener::bind(wanted).await?;
        let address = tcp.local_addr()?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok((Socket::new(udp)?, tcp, address)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// Whether a packet to `server` comes to `own`.
fn is_own(own: SocketAddr, server: SocketAddr) -> bool {
    // An address of this machine is one that can be bound.
    let here = || std::net::UdpSocket::bind((server.ip(), 0)).is_ok();
    own.port() == server.port() && (own.ip() == server.ip() || own.ip().is_unspecified() && here())
}

/// Where clients reach a server that listens there: each address of the machine that other machines can have a route to, where it
/// listens at all of them.
fn reached_at(listen: IpAddr) -> Vec<IpAddr> {
    if !listen.is_unspecified() {
        return vec![listen];
    }
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "the addresses of this machine can't be listed; NS records have none");
            return Vec::new();
        }
    };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    });
    let public = |ip: &IpAddr| Special::may_be_of_machine(*ip) && (ip.is_ipv4() || listen.is_ipv6());
    addresses.filter(public).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_reached_at_those_of_the_machine() {
        assert_eq!(
            reached_at(IpAddr::from([127, 0, 0, 1])),
            [IpAddr::from([127, 0, 0, 1])],
            "as it was told"
        );
        let all = reached_at(IpAddr::from([0, 0, 0, 0]));
        assert!(all.iter().all(|ip| ip.is_ipv4() && !ip.is_loopback() && !ip.is_unspecified()), "{all:?}");
        // the one that the machine would call others from, where it has a way out
        let way = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect("192.0.2.1:9")?;
            socket.local_addr()
        });
        if let Ok(way) = way {
            assert!(all.contains(&way.ip()), "{all:?} without {way}");
        }
    }
}
