//! What cluster-2 serves: one small server per way to use TCP, and a true PostgreSQL. Cluster-3 serves one of them, too.

use super::manifest::{account, service};
use sha2::{Digest as _, Sha256};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{self, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
};
use tombolo_runtime::task;
use tombolo_testkit::postgres::Database;

/// What a reset is sent after.
pub const LAST_WORDS: usize = 300_000;
/// The word of the greeter in cluster-2, and of the one in cluster-3.
pub const NEAR: &str = "hello\n";
/// See [`NEAR`].
pub const FAR: &str = "hello from afar\n";

/// What the clusters serve.
pub struct Servers {
    all: Vec<(&'static str, u16, SocketAddrV4)>,
    far: Vec<(&'static str, SocketAddrV4)>,
    /// What `db` leads to.
    pub database: Database,
}

impl Servers {
    /// Starts all of it, at the address of cluster-2 and at that of cluster-3.
    pub async fn start(ip: Ipv4Addr, far: Ipv4Addr) -> Self {
        let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
        let (_, socket) = database.url().split_once("?host=").unwrap();
        let socket = PathBuf::from(socket).join(".s.PGSQL.5432");
        let all = vec![
            ("greet", 7000, serve(ip, |stream| greet(stream, NEAR)).await),
            ("echo", 7000, serve(ip, echo).await),
            ("mirror", 7000, serve(ip, echo).await),
            ("count", 7000, serve(ip, count).await),
            ("blob", 7000, serve(ip, blob).await),
            ("sum", 7000, serve(ip, sum).await),
            ("reset", 7000, serve(ip, reset).await),
            // The database of a test listens on a unix socket only.
            ("db", 5432, serve(ip, move |stream| bridge(stream, socket.clone())).await),
        ];
        let far = vec![
            ("greet", serve(far, |stream| greet(stream, FAR)).await),
            ("mirror", serve(far, echo).await),
        ];
        Self { all, far, database }
    }

    /// What cluster-2 serves.
    #[must_use]
    pub fn manifests(&self) -> String {
        let services = self.all.iter().map(|(name, port, at)| service(name, *port, *at));
        Self::account() + &services.collect::<String>()
    }

    /// What cluster-3 serves.
    #[must_use]
    pub fn far_manifests(&self) -> String {
        let services = self.far.iter().map(|(name, at)| service(name, 7000, *at));
        Self::account() + &services.collect::<String>()
    }

    fn account() -> String {
        account("server", &std::env::current_exe().unwrap().canonicalize().unwrap())
    }
}

async fn serve<F: Future<Output = io::Result<()>> + Send + 'static>(
    ip: Ipv4Addr,
    handle: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddrV4 {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("{ip} is IPv4") };
    task::spawn("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            task::spawn("connection", handle(stream));
        }
    });
    address
}

/// Speaks first, and waits for nothing.
async fn greet(mut stream: TcpStream, word: &str) -> io::Result<()> {
    stream.write_all(word.as_bytes()).await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

/// Answers only when the client has said all: in sorted lines, and how many.
async fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    stream.write_all(format!("{}\n{} bytes\n", lines.join("\n"), text.len()).as_bytes()).await?;
    stream.shutdown().await
}

/// Deterministic bytes that no period of a buffer repeats.
pub fn fill(buffer: &mut [u8], state: &mut u64) {
    for word in buffer.chunks_exact_mut(8) {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Sends as many bytes as asked for on the first line, then their checksum.
async fn blob(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut left: usize = line.trim().parse().map_err(io::Error::other)?;
    let (mut hash, mut state, mut buffer) = (Sha256::new(), 1, vec![0; 1 << 18]);
    while left > 0 {
        let chunk = &mut buffer[..left.min(1 << 18)];
        fill(chunk, &mut state);
        hash.update(&chunk);
        stream.write_all(chunk).await?;
        left -= chunk.len();
    }
    stream.write_all(&hash.finalize()).await?;
    stream.shutdown().await
}

/// Answers with the checksum of all that came.
async fn sum(mut stream: TcpStream) -> io::Result<()> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
    }
    stream.write_all(&hash.finalize()).await?;
    stream.shutdown().await
}

/// Sends data, and resets when the client says that it has it.
async fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&vec![b'x'; LAST_WORDS]).await?;
    // The client's word that it has all: what a reset overtakes in this server's own kernel is lost without any gateway, too.
    stream.read_u8().await?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

async fn bridge(mut stream: TcpStream, socket: PathBuf) -> io::Result<()> {
    let mut database = UnixStream::connect(socket).await?;
    io::copy_bidirectional(&mut stream, &mut database).await.map(drop)
}
