//! A local route: addresses that the kernel takes for its own.

use ipnet::IpNet;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use std::{io, net::IpAddr};

/// Sizes of `struct nlmsghdr` and `struct rtmsg`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const RTN_LOCAL: u8 = libc::RTN_LOCAL;
/// The interface of loopback is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// Makes a prefix local to this network namespace, as `ip route replace local PREFIX dev lo src SOURCE` does. Without a source, what the
/// machine's own programs send there comes from the very address that they dial.
///
/// # Errors
/// What the kernel said.
pub(super) fn local(net: &IpNet, source: Option<IpAddr>) -> io::Result<()> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    ask(&message(libc::RTM_NEWROUTE, flags, net, source))
}

/// Takes it back. One that is not there is no error.
///
/// # Errors
/// What the kernel said.
pub(super) fn remove(net: &IpNet) -> io::Result<()> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    match ask(&message(libc::RTM_DELROUTE, flags, net, None)) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

fn ask(message: &[u8]) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // The answer is an nlmsgerr: an error number, zero where it was done.
    let code = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer is too short")),
    }
}

fn message(kind: u16, flags: libc::c_int, net: &IpNet, source: Option<IpAddr>) -> Vec<u8> {
    let (family, address) = match net {
        IpNet::V4(net) => (libc::AF_INET, net.network().octets().to_vec()),
        IpNet::V6(net) => (libc::AF_INET6, net.network().octets().to_vec()),
    };
    let mut body = vec![0; ROUTE];
    body[0] = u8::try_from(family).unwrap_or_default();
    body[1] = net.prefix_len();
    body[4] = libc::RT_TABLE_LOCAL;
    body[5] = libc::RTPROT_STATIC;
    body[6] = libc::RT_SCOPE_HOST;
    body[7] = RTN_LOCAL;
    let source = source.filter(|source| source.is_ipv4() == matches!(net, IpNet::V4(_)));
    let source = source.map(|source| match source {
        IpAddr::V4(source) => (libc::RTA_PREFSRC, source.octets().to_vec()),
        IpAddr::V6(source) => (libc::RTA_PREFSRC, source.octets().to_vec()),
    });
    let fixed = [(libc::RTA_DST, address), (libc::RTA_OIF, LOOPBACK.to_ne_bytes().to_vec())];
    for (kind, value) in fixed.into_iter().chain(source) {
        let length = u16::try_from(4 + value.len()).unwrap_or_default();
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    let mut all = Vec::new();
    all.extend(u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    all.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    all.extend(body);
    all
}
