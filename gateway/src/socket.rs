//! What tokio's sockets do not offer.

use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};
use tokio::net::TcpStream;

/// A machine that vanished is found after about a minute and a half of silence.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Small writes go out at once, and a peer that vanished is found. Errors do not matter: the connection works without. What is
/// accepted has it from the socket that listens.
pub(crate) fn prepare(stream: &impl AsFd) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
}

/// The kernel takes megabytes for one who read fast once. While an application reads nothing, it keeps so much for it.
const UNSENT: u32 = 256 << 10;

/// What the other side has no room for waits here in a small part only.
pub(crate) fn bound(stream: &impl AsFd) {
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
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
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
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
    nix::ioctl_read_bad!(outq, super::libc::TIOCOUTQ, super::libc::c_int);
}

/// Bytes given to the kernel that the other side has not acknowledged; zero where the kernel does not say.
pub(crate) fn unsent(stream: &impl AsFd) -> usize {
    let mut queued = 0;
    #[expect(unsafe_code, reason = "SIOCOUTQ has no safe wrapper; the pointer lives for the whole call")]
    // SAFETY: the file descriptor is open as long as `stream` is borrowed, and `queued` is a valid c_int.
    let result = unsafe { ioctl::outq(stream.as_fd().as_raw_fd(), &raw mut queued) };
    match result {
        Ok(_) => usize::try_from(queued).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Bytes that the other side has acknowledged since the connection began; zero where the kernel does not say.
fn taken(stream: &impl AsFd) -> u64 {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "TCP_INFO has no safe wrapper; the pointers live for the whole call")]
    // SAFETY: the file descriptor is open as long as `stream` is borrowed; the kernel writes at most `length` bytes; all of
    // `tcp_info` are numbers, for which zeroes will do where it writes fewer.
    let info = unsafe {
        let at = info.as_mut_ptr().cast();
        libc::getsockopt(stream.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, at, &raw mut length);
        info.assume_init()
    };
    info.tcpi_bytes_acked
}

/// As much in the kernel is a backlog: more than calls that are just made put there.
const BACKLOG: usize = 64 << 10;

/// What the kernel says of a connection's bytes on their way.
#[derive(Debug)]
pub(crate) struct Backlog {
    socket: OwnedFd,
    taken: u64,
    waiting: usize,
}

impl Backlog {
    /// That of a connection, whoever owns it; none where there is no file descriptor left.
    pub(crate) fn of(stream: &TcpStream) -> Option<Self> {
        let socket = stream.as_fd().try_clone_to_owned().ok()?;
        Some(Self { socket, taken: 0, waiting: 0 })
    }

    /// Whether there is one (`blocked`: that the kernel takes no more is known), and the other side took some of it since the last
    /// look. The kernel tells a writer only when a third of its megabytes is free again.
    pub(crate) fn moves(&mut self, blocked: bool) -> bool {
        let (taken, waiting) = (taken(&self.socket), unsent(&self.socket));
        let moved = taken > std::mem::replace(&mut self.taken, taken);
        let before = std::mem::replace(&mut self.waiting, waiting);
        moved && (blocked || waiting.max(before) >= BACKLOG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tombolo_runtime::task;
    use tombolo_testkit::wait::until;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_accepted_is_prepared_as_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener);
        bound(&listener);
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let far = far.unwrap().0;
        let socket = SockRef::from(&far);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
        drop(near);
    }

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

    #[tokio::test]
    async fn a_backlog_that_is_taken_is_told_from_one_that_is_not_and_from_small_things() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut near, mut far) = (near.unwrap(), accepted.unwrap().0);
        let mut backlog = Backlog::of(&near).unwrap();
        near.write_all(b"a call").await.unwrap();
        let left = || async { unsent(&near) };
        until("acknowledged", LONG, left, |left| *left == 0).await;
        assert!(!backlog.moves(false), "the kernel takes it, whoever hangs");
        // as much as goes: no byte more for a while
        let (all, mut sent, mut quiet) = (vec![0; 1 << 20], 6, 0);
        while quiet < 20 {
            match near.try_write(&all) {
                Ok(more) => (sent, quiet) = (sent + more, 0),
                Err(_) => quiet += 1,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        backlog.moves(true);
        assert!(unsent(&near) >= BACKLOG && !backlog.moves(true), "nothing is taken");
        let reader = task::spawn("reader", async move { far.read_exact(&mut vec![0; sent]).await.map(drop) });
        until("progress", LONG, || std::future::ready(backlog.moves(false)), |moved| *moved).await;
        reader.await.unwrap().unwrap();
    }
}
