//! The UDP socket. Bound to every address of a machine (`0.0.0.0`, `::`), it keeps the one at which a packet came, and
//! answers from there: clients take an answer only from the address that they asked.

use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo},
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};
use tokio::{io::Interest, net::UdpSocket};

#[derive(Debug)]
pub(super) struct Socket {
    socket: UdpSocket,
    everywhere: bool,
}

/// Where a packet came from, and at which address.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) client: SocketAddr,
    local: Local,
}

#[derive(Clone, Copy)]
enum Local {
    /// The only one there is.
    Bound,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Socket {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let everywhere = address.ip().is_unspecified();
        if everywhere && address.is_ipv4() {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        } else if everywhere {
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket, everywhere })
    }

    /// The next packet. Cancel safe.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Way)> {
        if !self.everywhere {
            let (length, client) = self.socket.recv_from(buffer).await?;
            return Ok((length, Way { client, local: Local::Bound }));
        }
        let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
        let receive = || {
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
            let client = message.address.and_then(socket_address);
            let mut local = Local::Bound;
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info),
                    ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
                    _ => {}
                }
            }
            Ok((message.bytes, client, local))
        };
        let (length, client, local) = self.socket.async_io(Interest::READABLE, receive).await?;
        let client = client.ok_or_else(|| io::Error::other("a packet without a sender"))?;
        Ok((length, Way { client, local }))
    }

    /// Answers on the way that a question came.
    pub(super) async fn send(&self, bytes: &[u8], way: Way) -> io::Result<()> {
        let info = match way.local {
            Local::Bound => return self.socket.send_to(bytes, way.client).await.map(drop),
            // The interface is left to the routes, as it is for any answer.
            Local::V4(info) => Local::V4(libc::in_pktinfo { ipi_ifindex: 0, ..info }),
            v6 @ Local::V6(_) => v6,
        };
        let control = match &info {
            Local::Bound => None,
            Local::V4(info) => Some(ControlMessage::Ipv4PacketInfo(info)),
            Local::V6(info) => Some(ControlMessage::Ipv6PacketInfo(info)),
        };
        let client = SockaddrStorage::from(way.client);
        let send = || {
            let (fd, parts) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
            sendmsg(fd, &parts, control.as_slice(), MsgFlags::empty(), Some(&client))?;
            Ok(())
        };
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

fn socket_address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
