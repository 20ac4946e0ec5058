//! Addresses that are no other machine's service, whoever names them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds have what only their machines may ask: credentials, and how the machine is set up. Others are link-local.
const CLOUDS: [IpAddr; 5] = [
    // AWS, its metadata, names and time
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Azure
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// What is special about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `0.0.0.0/8` or `::`: any, or this machine.
    Unspecified,
    /// This machine.
    Loopback,
    /// The machines of one link; most clouds answer theirs there, too.
    LinkLocal,
    /// `255.255.255.255`.
    Broadcast,
    /// A group of machines.
    Multicast,
    /// Where a cloud answers its own machines, and no other range says so.
    Cloud,
}

impl Special {
    /// Of an address; an IPv4 address inside an IPv6 one is the same. None where nothing is special about it.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        Some(match address.to_canonical() {
            IpAddr::V4(v4) if v4.octets()[0] == 0 => Self::Unspecified,
            IpAddr::V6(v6) if v6.is_unspecified() => Self::Unspecified,
            IpAddr::V4(v4) if v4.is_broadcast() => Self::Broadcast,
            IpAddr::V4(v4) if v4.is_link_local() => Self::LinkLocal,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self::LinkLocal,
            ip if ip.is_loopback() => Self::Loopback,
            ip if ip.is_multicast() => Self::Multicast,
            ip if CLOUDS.contains(&ip) => Self::Cloud,
            _ => return None,
        })
    }
}
