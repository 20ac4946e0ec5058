//! What tokio's sockets do not offer.

use socket2::{SockRef, TcpKeepalive};
use std::{os::fd::AsRawFd as _, time::Duration};
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
