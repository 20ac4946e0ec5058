//! Where a redirected connection meant to go, as connection tracking remembers it.

use nix::sys::socket::{
    getsockopt,
    sockopt::{Ip6tOriginalDst, OriginalDst},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

/// The destination that the caller dialled, before the redirect (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).
///
/// # Errors
/// As getsockopt(2): `ENOENT` where the connection is not tracked, so was not redirected.
pub(crate) fn destination(socket: &impl AsFd, local: SocketAddr) -> io::Result<SocketAddr> {
    // the numbers are in network byte order as they lie in memory
    match local.ip().to_canonical() {
        IpAddr::V4(_) => {
            let found = getsockopt(socket, OriginalDst)?;
            let ip = Ipv4Addr::from(found.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddr::from((ip, u16::from_be(found.sin_port))))
        }
        IpAddr::V6(_) => {
            let found = getsockopt(socket, Ip6tOriginalDst)?;
            Ok(SocketAddr::from((Ipv6Addr::from(found.sin6_addr.s6_addr), u16::from_be(found.sin6_port))))
        }
    }
}
