//! A wire between two programs, in the hands of a test: slow, or with nothing arriving though both ends are open.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tombolo_runtime::task;

/// What is read at once.
const PIECE: usize = 16 << 10;
/// Pieces of one connection that are on their way.
const UNDER_WAY: usize = 256;

/// How a direction of a wire carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// At once.
    #[default]
    Open,
    /// Each byte takes so long, and a connection gets so many through in a second.
    Slow {
        /// On the way.
        delay: Duration,
        /// Bytes a second.
        rate: u32,
    },
    /// Nothing arrives, not even an end. What was sent meanwhile arrives afterwards, as TCP has it.
    Held,
}

/// A wire. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Wire {
    up: watch::Sender<Flow>,
    down: watch::Sender<Flow>,
    opened: Arc<AtomicUsize>,
    at: Option<SocketAddr>,
}

impl Wire {
    fn new(at: Option<SocketAddr>) -> Self {
        let flow = || watch::Sender::new(Flow::Open);
        Self { up: flow(), down: flow(), opened: Arc::default(), at }
    }

    /// From a TCP address to another one.
    pub(super) async fn tcp(from: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(from).await.unwrap();
        let this = Self::new(Some(listener.local_addr().unwrap()));
        let wire = this.clone();
        task::spawn("wire", async move {
            while let Ok((near, _)) = listener.accept().await {
                let _ = near.set_nodelay(true);
                wire.carry(near.into_split(), async move {
                    let far = TcpStream::connect(to).await?;
                    far.set_nodelay(true)?;
                    Ok(far.into_split())
                });
            }
        });
        this
    }

    /// From a unix socket to another one.
    pub(super) fn unix(from: PathBuf, to: PathBuf) -> Self {
        let listener = UnixListener::bind(from).unwrap();
        let this = Self::new(None);
        let wire = this.clone();
        task::spawn("wire", async move {
            while let Ok((near, _)) = listener.accept().await {
                let to = to.clone();
                wire.carry(near.into_split(), async { Ok(UnixStream::connect(to).await?.into_split()) });
            }
        });
        this
    }

    /// Where it begins; a wire of unix sockets has no address.
    ///
    /// # Panics
    /// For one of those.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.at.expect("a wire of TCP")
    }

    /// How it carries: what is sent by who dials, and by who is dialled.
    pub fn set(&self, up: Flow, down: Flow) {
        self.up.send_replace(up);
        self.down.send_replace(down);
    }

    /// Connections that were made through it, from the beginning.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn carry<R, W, T, V>(
        &self,
        (near_reads, near_writes): (R, W),
        far: impl Future<Output = io::Result<(T, V)>> + Send + 'static,
    ) where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + Unpin + Send + 'static,
        V: AsyncWrite + Unpin + Send + 'static,
    {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (up, down) = (self.up.subscribe(), self.down.subscribe());
        task::spawn("connection", async move {
            let (far_reads, far_writes) = far.await?;
            // An error of one direction ends both, as a reset does.
            tokio::try_join!(pass(near_reads, far_writes, up), pass(far_reads, near_writes, down)).map(drop)
        });
    }
}

/// One direction of one connection, to its end.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let (send, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut arriving = flow.clone();
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let len = from.read(&mut buffer).await?;
            let flow = *flow.wait_for(|flow| *flow != Flow::Held).await.map_err(io::Error::other)?;
            let due = match flow {
                Flow::Slow { delay, rate } => {
                    let bytes = u32::try_from(len).unwrap_or(u32::MAX);
                    sleep(Duration::from_secs(1) * bytes / rate.max(1)).await;
                    Instant::now() + delay
                }
                Flow::Open | Flow::Held => Instant::now(),
            };
            let piece = buffer.get(..len).unwrap_or_default().to_vec();
            if send.send((due, piece)).await.is_err() || len == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = queue.recv().await {
            sleep_until(due).await;
            arriving.wait_for(|flow| *flow != Flow::Held).await.map_err(io::Error::other)?;
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}
