//! One bound socket and the task that accepts from it.

use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tombolo_runtime::task;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a listener rests when the process can't take a connection (no descriptors left).
const REST: Duration = Duration::from_millis(50);

/// What is done with a connection: it must return at once.
pub(super) type Accept = Arc<dyn Fn(TcpStream, SocketAddr) + Send + Sync>;

/// A bound socket, accepting until it is closed.
#[derive(Debug)]
pub(super) struct Listener {
    local: SocketAddr,
    socket: OwnedFd,
    accepting: JoinHandle<()>,
}

impl Listener {
    /// Binds, and accepts from now on.
    ///
    /// # Errors
    /// As bind(2): the address is taken, or is none of this machine.
    pub(super) fn bind(address: SocketAddr, accept: Accept) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // a restart must not wait for the connections of the process before
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        crate::socket::prepare(&socket);
        crate::socket::bound(&socket);
        let handle = socket.try_clone()?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        let accepting = task::spawn("capture", async move {
            loop {
                match listener.accept().await {
                    Ok((stream, client)) => accept(stream, client),
                    // the caller gave up before it was its turn
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%local, %error, "a captured connection can't be taken");
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        });
        Ok(Self { local, socket: handle.into(), accepting })
    }

    /// The address it is bound to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The socket.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Closes the socket, and returns when it is closed. What was accepted goes on.
    pub(super) async fn close(mut self) {
        self.accepting.abort();
        // the answer is that it was stopped, which is what was asked
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
