//! How a connection to the sender is made.

use futures::stream::{FuturesUnordered, StreamExt as _};
use rustls::pki_types::ServerName;
use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use tombolo_mtls::{HandshakeError, connect_pinned};

/// After so long without an answer it is dialled once more, beside: a first packet that was lost is sent again after 1, 3 and 7 s only, and a
/// link that is whole again is to be found by the next one. Not a second: two of them would get through in one moment.
const BESIDE: Duration = Duration::from_millis(800);
/// Dials under way, at most. None of them costs the other side anything before one gets through.
const DIALS: usize = 5;
/// How long it is dialled.
const REACH: Duration = Duration::from_secs(4);

/// Why no connection could be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The socket could not be opened.
    #[error("could not connect to {to}")]
    Socket {
        /// Where to.
        to: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else than the agent listens at the socket.
    #[error(
        "{to} is held by user {found}, not by {}: stop whoever listens there, or name the agent's user (--agent-uid)",
        expected.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ")
    )]
    Stranger {
        /// The socket.
        to: String,
        /// The user who listens.
        found: u32,
        /// The users who may.
        expected: BTreeSet<u32>,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {to} failed")]
    Handshake {
        /// With whom.
        to: String,
        /// What is wrong.
        #[source]
        source: HandshakeError,
    },
    /// Not a host name or address.
    #[error("{host:?} is neither a host name nor an address")]
    Host {
        /// The text.
        host: String,
    },
}

/// Makes connections to one sender.
pub trait Connector: Send + Sync + 'static {
    /// The connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// `http` or `https`, for the requests.
    const SCHEME: &'static str;

    /// The authority of the requests, as `controller.example.com:7443`.
    fn authority(&self) -> &str;

    /// Makes a connection. Cancel-safe: dropping it closes what was opened.
    fn connect(&self) -> impl Future<Output = Result<Self::Io, ConnectError>> + Send;
}

/// To a unix socket, in clear: the kernel says who is at the other end.
#[derive(Clone, Debug)]
pub struct UnixConnector {
    path: PathBuf,
    users: BTreeSet<u32>,
}

impl UnixConnector {
    /// To the socket at this path, held by root or by the user of this process.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::held_by(path, [0, nix::unistd::geteuid().as_raw()])
    }

    /// To the socket at this path, held by one of these users.
    pub fn held_by(path: impl Into<PathBuf>, users: impl IntoIterator<Item = u32>) -> Self {
        Self { path: path.into(), users: users.into_iter().collect() }
    }

    /// This user may hold it, too.
    #[must_use]
    pub fn or_held_by(mut self, user: Option<u32>) -> Self {
        self.users.extend(user);
        self
    }
}

impl Connector for UnixConnector {
    type Io = UnixStream;
    const SCHEME: &'static str = "http";

    fn authority(&self) -> &str {
        "agent"
    }

    async fn connect(&self) -> Result<UnixStream, ConnectError> {
        let to = || self.path.display().to_string();
        let failed = |source| ConnectError::Socket { to: to(), source };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        // Whoever can write to the folder can put a socket there, and would be told what the agent is told.
        let found = stream.peer_cred().map_err(failed)?.uid();
        if !self.users.contains(&found) {
            return Err(ConnectError::Stranger { to: to(), found, expected: self.users.clone() });
        }
        Ok(stream)
    }
}

/// Over TCP and TLS, with whatever trust and certificate the configuration has.
#[derive(Clone)]
pub struct TlsConnector {
    authority: String,
    name: ServerName<'static>,
    config: Arc<rustls::ClientConfig>,
}

impl TlsConnector {
    /// To `host:port`. `config` decides whom to believe; its ALPN must offer `h2`.
    ///
    /// # Errors
    /// [`ConnectError::Host`] where the host is neither a name nor an address.
    pub fn new(host: &str, port: u16, config: Arc<rustls::ClientConfig>) -> Result<Self, ConnectError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| ConnectError::Host { host: host.to_owned() })?;
        let authority =
            if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") };
        Ok(Self { authority, name, config })
    }
}

impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConnector").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Connector for TlsConnector {
    type Io = TlsStream<TcpStream>;
    const SCHEME: &'static str = "https";

    fn authority(&self) -> &str {
        &self.authority
    }

    async fn connect(&self) -> Result<Self::Io, ConnectError> {
        let to = || self.authority.clone();
        let tcp = timeout(REACH, reach(|| TcpStream::connect(&self.authority)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnectError::Socket { to: to(), source })?;
        tcp.set_nodelay(true).map_err(|source| ConnectError::Socket { to: to(), source })?;
        connect_pinned(tcp, Arc::clone(&self.config), self.name.clone())
            .await
            .map_err(|source| ConnectError::Handshake { to: to(), source })
    }
}

/// The first of several dials that gets through, or is answered with an error.
async fn reach<T, F: Future<Output = io::Result<T>>>(dial: impl Fn() -> F) -> io::Result<T> {
    let mut dials = FuturesUnordered::new();
    loop {
        if dials.len() < DIALS {
            dials.push(dial());
        }
        tokio::select! {
            Some(answer) = dials.next() => return answer,
            () = sleep(BESIDE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_link_that_is_whole_again_is_found_within_a_second() {
        let (began, dials) = (Instant::now(), Cell::new(0));
        // Whole after 2.2 s: what was sent before is lost.
        let whole = began + Duration::from_millis(2200);
        let dial = || {
            dials.set(dials.get() + 1);
            async move {
                if Instant::now() < whole {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        };
        reach(dial).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(3300), "{:?}", began.elapsed());
        assert_eq!(dials.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer_and_dials_are_bounded() {
        let (began, dials) = (Instant::now(), Cell::new(0));
        let refused = reach(|| async { Err::<(), _>(io::ErrorKind::ConnectionRefused.into()) }).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let dial = || {
            dials.set(dials.get() + 1);
            std::future::pending::<io::Result<()>>()
        };
        assert!(timeout(BESIDE * 20, reach(dial)).await.is_err());
        assert_eq!(dials.get(), DIALS);
    }
}
