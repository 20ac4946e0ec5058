//! What tokio's sockets do not offer.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{io, net::SocketAddr, os::fd::AsRawFd as _, time::Duration};
use tokio::net::TcpStream;

/// A machine that vanished is found after about a minute and a half of silence.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Small writes go out at once, and a peer that vanished is found. Errors do not matter: the connection works without.
pub(crate) fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
}

/// Closing it will send RST in place of FIN, and forget what was not sent.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Closes a connection that is refused: the application sees a reset, not an orderly empty answer.
pub(crate) fn refuse(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

/// Connects to an application. The flag says that it has already reset the connection: one that was refused fails, one
/// that was made and reset at once may have bytes to read.
///
/// # Errors
/// Those of `connect(2)`.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<(TcpStream, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        None => Ok((stream, false)),
        Some(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok((stream, true)),
        Some(error) => Err(error),
    }
}

mod ioctl {
    nix::ioctl_read_bad!(outq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// Bytes given to the kernel that the other side has not acknowledged; zero where the kernel does not say.
pub(crate) fn unsent(stream: &TcpStream) -> usize {
    let mut queued = 0;
    #[expect(unsafe_code, reason = "SIOCOUTQ has no safe wrapper; the pointer lives for the whole call")]
    // SAFETY: the file descriptor is open as long as `stream` is borrowed, and `queued` is a valid c_int.
    let result = unsafe { ioctl::outq(stream.as_raw_fd(), &raw mut queued) };
    match result {
        Ok(_) => usize::try_from(queued).unwrap_or(0),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    #[tokio::test]
    async fn a_refusal_is_told_from_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (made, accepted) = tokio::join!(connect(address), listener.accept());
        let (made, reset) = made.unwrap();
        assert!(!reset && made.peer_addr().unwrap() == address);
        // Made by the kernel, and reset by the application before this side looks.
        let mut late = accepted.unwrap().0;
        late.write_all(b"x").await.unwrap();
        refuse(late);
        drop(listener);
        assert_eq!(connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
