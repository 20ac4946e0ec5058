//! Names of others: asked for at another server, whose answer goes back as it came.
//!
//! The records of a response are not decoded and written again: what a newer server says in types that we don't
//! know passes byte for byte. Only what belongs to the hop is ours: the id, the EDNS record, and the letters' case
//! in the question. A response is taken if it comes from the server's address to the query's own random port, with
//! the query's random id and question; anything else on that port is passed over.

use super::{
    explain::{Explanation, Why},
    message::{Request, Transport, UDP_PAYLOAD},
    trail::ServerId,
    wire,
};
use hickory_proto::{
    ProtoError,
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
};
use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// The option `--dns-forward`: where names of others are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardTo {
    /// Nowhere: they are refused.
    Refuse,
    /// At this server.
    Server(SocketAddr),
}

impl FromStr for ForwardTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "refuse" {
            return Ok(Self::Refuse);
        }
        let wrong = |why| format!("{text:?} {why}; give the resolver's IP:PORT, as 192.0.2.53:53, or refuse");
        let server: SocketAddr = text.parse().map_err(|_| wrong("is no address with a port"))?;
        if server.port() == 0 || server.ip().is_unspecified() {
            return Err(wrong("can't be asked"));
        }
        Ok(Self::Server(server))
    }
}

impl fmt::Display for ForwardTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Server(server) => server.fmt(f),
        }
    }
}

/// The bounds of forwarding.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long to wait for a datagram, for each of two tries.
    pub udp_timeout: Duration,
    /// How long connection, query and response may take over TCP.
    pub tcp_timeout: Duration,
    /// Queries at a time.
    pub in_flight: usize,
    /// Of these, how many may ask the same. More means a loop through a forwarder that drops our trail.
    pub same_question: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            udp_timeout: Duration::from_millis(1500),
            tcp_timeout: Duration::from_secs(4),
            in_flight: 1024,
            same_question: 64,
        }
    }
}

/// Tries over UDP: datagrams get lost.
const TRIES: usize = 2;

/// Why the other server's answer can't be given.
#[derive(Debug, Error)]
pub(super) enum ForwardError {
    /// The query came back to this server.
    #[error(
        "forwarding loop: this query came back through {server}; --dns-forward must name a server that does not forward here"
    )]
    Loop {
        /// The server forwarded to.
        server: SocketAddr,
    },
    /// The query passed too many servers.
    #[error(
        "forwarding loop: the query passed too many Tombolo agents before {server}; check their --dns-forward"
    )]
    TrailTooLong {
        /// The server forwarded to.
        server: SocketAddr,
    },
    /// The same question too many times at once.
    #[error(
        "forwarding loop suspected: too many of the same question wait for {server}; check that it does not forward here"
    )]
    SameQuestion {
        /// The server forwarded to.
        server: SocketAddr,
    },
    /// Too many queries at once.
    #[error("too many queries wait for {server}; ask again")]
    Overloaded {
        /// The server forwarded to.
        server: SocketAddr,
    },
    /// No answer in time.
    #[error("no answer from {server} in time; check that it runs")]
    Timeout {
        /// The server asked.
        server: SocketAddr,
    },
    /// The network said no.
    #[error("{server} can't be reached ({source}); check --dns-forward")]
    Network {
        /// The server asked.
        server: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The response is not DNS.
    #[error("{server} sent a response that can't be read")]
    Malformed {
        /// The server asked.
        server: SocketAddr,
    },
    /// The query has no form on the wire.
    #[error("the query can't be written")]
    Unwritable(#[from] ProtoError),
}

impl ForwardError {
    /// What to tell the client.
    #[must_use]
    pub(super) fn explanation(&self) -> Explanation {
        let why = match self {
            Self::Timeout { .. } => Why::NoReachableAuthority,
            Self::Network { .. } | Self::Malformed { .. } => Why::NetworkError,
            Self::Loop { .. } | Self::TrailTooLong { .. } | Self::SameQuestion { .. } => Why::Other,
            Self::Overloaded { .. } | Self::Unwritable(_) => Why::Other,
        };
        Explanation::new(why, self.to_string())
    }
}

/// A response to give to the client.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// The code in them.
    pub(super) code: ResponseCode,
}

impl Forwarded {
    /// Whether it says that there is something.
    pub(super) fn is_positive(&self) -> bool {
        let answers = self.bytes.get(6..8).is_some_and(|count| count != [0, 0]);
        self.code == ResponseCode::NoError && answers
    }
}

/// The client of the server that names of others are forwarded to.
#[derive(Debug)]
pub(super) struct Forwarder {
    server: SocketAddr,
    id: ServerId,
    limits: Limits,
    permits: Semaphore,
    asked: Mutex<HashMap<Vec<u8>, usize>>,
}

impl Forwarder {
    /// A client of `server`.
    #[must_use]
    pub(super) fn new(server: SocketAddr, limits: Limits) -> Self {
        let permits = Semaphore::new(limits.in_flight);
        Self { server, id: ServerId::random(), limits, permits, asked: Mutex::default() }
    }

    /// Asks the server, over the transport that the client uses: so a truncated response is the client's to retry.
    ///
    /// # Errors
    /// A [`ForwardError`], for the client to be told.
    pub(super) async fn forward(&self, request: &Request) -> Result<Forwarded, ForwardError> {
        let server = self.server;
        if request.trail.has(self.id) {
            return Err(ForwardError::Loop { server });
        }
        if request.trail.is_full() {
            return Err(ForwardError::TrailTooLong { server });
        }
        let Ok(_permit) = self.permits.try_acquire() else { return Err(ForwardError::Overloaded { server }) };
        let Some(_turn) = Turn::take(self, request) else {
            return Err(ForwardError::SameQuestion { server });
        };

        let response = match self.exchange(request, self.query(request, Marked::Yes)?).await? {
            // A server that knows no EDNS at all: ask it in its own way.
            response if response.rejects_edns() => {
                self.exchange(request, self.query(request, Marked::No)?).await?
            }
            response => response,
        };
        response.finish(request).ok_or(ForwardError::Malformed { server })
    }

    /// The query to send. Its id is random.
    fn query(&self, request: &Request, marked: Marked) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.authentic_data = request.metadata.authentic_data;
        message.add_query(request.question.clone());
        if marked == Marked::Yes {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(request.limit()).unwrap_or(UDP_PAYLOAD).min(UDP_PAYLOAD));
            edns.set_dnssec_ok(request.edns.is_some_and(|client| client.dnssec_ok));
            edns.options_mut().insert(request.trail.option(self.id));
            message.set_edns(edns);
        }
        message.to_vec()
    }

    async fn exchange(&self, request: &Request, query: Vec<u8>) -> Result<wire::Response, ForwardError> {
        let server = self.server;
        let network = |source| ForwardError::Network { server, source };
        match request.transport {
            Transport::Tcp => match timeout(self.limits.tcp_timeout, self.over_tcp(&query)).await {
                Ok(result) => result.map_err(network)?.ok_or(ForwardError::Malformed { server }),
                Err(_) => Err(ForwardError::Timeout { server }),
            },
            Transport::Udp => {
                for _ in 0..TRIES {
                    // A socket of its own for each try: the kernel picks a random port.
                    if let Ok(result) = timeout(self.limits.udp_timeout, self.over_udp(&query)).await {
                        return result.map_err(network);
                    }
                }
                Err(ForwardError::Timeout { server })
            }
        }
    }

    async fn over_udp(&self, query: &[u8]) -> io::Result<wire::Response> {
        let any = if self.server.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(self.server).await?;
        socket.send(query).await?;
        // More than the query says that we take.
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Some(response) = wire::Response::read(&buffer[..length], query) {
                return Ok(response);
            }
        }
    }

    async fn over_tcp(&self, query: &[u8]) -> io::Result<Option<wire::Response>> {
        let mut stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&wire::framed(query)).await?;
        let length = stream.read_u16().await?;
        let mut response = vec![0; usize::from(length)];
        stream.read_exact(&mut response).await?;
        Ok(wire::Response::read(&response, query))
    }
}

/// Whether a query carries EDNS, and with it our trail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    Yes,
    No,
}

/// A place among those who ask the same.
struct Turn<'a> {
    forwarder: &'a Forwarder,
    question: Vec<u8>,
}

impl<'a> Turn<'a> {
    fn take(forwarder: &'a Forwarder, request: &Request) -> Option<Self> {
        let question = &request.question;
        let mut key: Vec<u8> =
            question.name().iter().flat_map(|label| [label, b"."]).flatten().copied().collect();
        key.make_ascii_lowercase();
        key.extend(u16::from(question.query_type()).to_be_bytes());
        let mut asked = forwarder.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.entry(key.clone()).or_default();
        if *count >= forwarder.limits.same_question {
            return None;
        }
        *count += 1;
        drop(asked);
        Some(Self { forwarder, question: key })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut asked = self.forwarder.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = asked.get_mut(&self.question) {
            *count -= 1;
            if *count == 0 {
                asked.remove(&self.question);
            }
        }
    }
}
