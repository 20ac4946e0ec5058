//! A relay of TCP connections that can go silent without closing anything.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A relay of TCP connections that can go silent without closing anything.
pub(crate) struct Wire {
    pub(crate) address: String,
    taken: Arc<AtomicUsize>,
    silent: tokio::sync::watch::Sender<bool>,
}

impl Wire {
    pub(crate) async fn to(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let (silent, state) = tokio::sync::watch::channel(false);
        tombolo_runtime::task::spawn("wire", async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let far = TcpStream::connect(target).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tombolo_runtime::task::spawn("wire-up", relay(near_read, far_write, state.clone()));
                tombolo_runtime::task::spawn("wire-down", relay(far_read, near_write, state.clone()));
            }
        });
        Self { address, taken, silent }
    }
    /// Connections taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
    pub(crate) fn cut(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

pub(crate) async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut silent: tokio::sync::watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if silent.wait_for(|silent| !silent).await.is_err() || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

/// A slow link: of what is sent through it, so many bytes a second get to the other end; what comes back is as fast as ever.
pub(crate) struct Slow {
    pub(crate) address: String,
    taken: Arc<AtomicUsize>,
}

impl Slow {
    pub(crate) async fn to(target: std::net::SocketAddr, bytes_a_second: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = socket2::SockRef::from(&listener);
        // As on a link, and not as on a loopback: small segments, and little that waits at the other end.
        socket.set_tcp_mss(1448).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        tombolo_runtime::task::spawn("slow", async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let far = TcpStream::connect(target).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let (_, never) = tokio::sync::watch::channel(false);
                tombolo_runtime::task::spawn("slow-up", slowly(near_read, far_write, bytes_a_second));
                tombolo_runtime::task::spawn("slow-down", relay(far_read, near_write, never));
            }
        });
        Self { address, taken }
    }

    /// Connections taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

async fn slowly(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    bytes_a_second: usize,
) {
    const A_SECOND: u32 = 50;
    let mut buffer = vec![0; bytes_a_second / A_SECOND as usize];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1) / A_SECOND).await;
    }
}
