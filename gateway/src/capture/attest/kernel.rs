//! Asks the kernel who owns the other end of a connection on this machine (`NETLINK_SOCK_DIAG`, sock_diag(7)).
//!
//! The question is about the *client's* socket: its local address is our peer address. The kernel finds it by the
//! four addresses, one message up and one down; nothing is listed.

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_LISTEN},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use thiserror::Error;

/// What the kernel knows of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketOwner {
    /// The user id that made it.
    pub(super) uid: u32,
    /// Its inode, as it stands in `/proc/<pid>/fd`. Never zero.
    pub(super) inode: u32,
    /// The kernel's own number for it, which no other socket gets.
    pub(super) cookie: [u8; 8],
}

/// Why the kernel has no answer.
#[derive(Debug, Error)]
pub(super) enum KernelError {
    /// No such socket, or its process closed it already.
    #[error("the caller's socket is gone")]
    Gone,
    /// The question could not be asked.
    #[error("the kernel does not tell who owns a socket (is inet_diag there?)")]
    Io(#[from] io::Error),
    /// The answer makes no sense.
    #[error("the kernel's answer about a socket can't be read: {0}")]
    Answer(String),
}

/// The owner of the socket at `client` that is connected to `server`.
///
/// Blocks for the time of two system calls.
///
/// # Errors
/// [`KernelError::Gone`] where there is no such connected socket with a process behind it. A closed socket on its
/// way out (`TIME_WAIT`) says uid 0 with no inode, and a lookup falls back to a listener on the same port: both are
/// "gone", never "root".
pub(super) fn owner(client: SocketAddr, server: SocketAddr) -> Result<SocketOwner, KernelError> {
    let scope = match client {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let id = SocketId {
        source_address: client.ip().to_canonical(),
        source_port: client.port(),
        destination_address: server.ip().to_canonical(),
        destination_port: server.port(),
        interface_id: scope,
        cookie: [0xff; 8],
    };
    let family = match id.source_address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let response = match ask(family, id.clone())? {
        SockDiagMessage::InetResponse(response) => response,
        other => return Err(KernelError::Answer(format!("{other:?}"))),
    };
    let header = response.header;
    let same = header.socket_id.source_port == id.source_port
        && header.socket_id.destination_port == id.destination_port
        && header.socket_id.source_address.to_canonical() == id.source_address
        && header.socket_id.destination_address.to_canonical() == id.destination_address;
    if !same || header.state == TCP_LISTEN || header.inode == 0 {
        return Err(KernelError::Gone);
    }
    Ok(SocketOwner { uid: header.uid, inode: header.inode, cookie: header.socket_id.cookie })
}

fn ask(family: u8, socket_id: SocketId) -> Result<SockDiagMessage, KernelError> {
    const NOT_FOUND: i32 = nix::libc::ENOENT;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let message = NetlinkMessage::<SockDiagMessage>::deserialize(&answer)
        .map_err(|error| KernelError::Answer(error.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        NetlinkPayload::Error(error) if error.raw_code() == -NOT_FOUND => Err(KernelError::Gone),
        NetlinkPayload::Error(error) => Err(KernelError::Io(error.to_io())),
        other => Err(KernelError::Answer(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair(bind: &str) -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind(bind).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    }

    #[test]
    fn own_socket_v4_and_v6() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (_listener, client, server) = pair(bind);
            let found = owner(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap();
            assert_eq!(found.uid, nix::unistd::getuid().as_raw(), "{bind}");
            let link =
                std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&client)))
                    .unwrap();
            assert_eq!(
                link.to_str().unwrap(),
                format!("socket:[{}]", found.inode),
                "{bind}: the client's, not ours"
            );
        }
    }

    #[test]
    fn a_v6_socket_that_called_a_v4_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let found = owner(server.peer_addr().unwrap(), server.local_addr().unwrap()).unwrap();
        assert_eq!(found.uid, nix::unistd::getuid().as_raw());
    }

    #[test]
    fn a_closed_caller_is_gone_not_root() {
        let (_listener, client, server) = pair("127.0.0.1:0");
        let peer = server.peer_addr().unwrap();
        drop(client);
        assert!(matches!(owner(peer, server.local_addr().unwrap()), Err(KernelError::Gone)));
    }

    #[test]
    fn a_listener_is_not_a_caller() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = listener.local_addr().unwrap();
        assert!(matches!(owner(fake, "127.0.0.1:9".parse().unwrap()), Err(KernelError::Gone)));
    }
}
