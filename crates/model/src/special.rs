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
    /// `240.0.0.0/4`, reserved for ever: names of ours have these, and some networks give them to machines.
    Reserved,
}

/// The address at which one dials that dials this: the IPv4 address inside an IPv6 one that stands for it (RFC 4291, 2.5.5.2), or that a
/// translator (NAT64's `64:ff9b::/96`, RFC 6052) or a relay (6to4's `2002::/16`, RFC 3056) leads to; or else itself.
#[must_use]
pub fn leads_to(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => IpAddr::V6(v6),
    }
}

impl Special {
    /// Of an address, or of the IPv4 address that an IPv6 one [`leads_to`]. None where nothing is special about it.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        Some(match leads_to(address) {
            IpAddr::V4(v4) if v4.octets()[0] == 0 => Self::Unspecified,
            IpAddr::V6(v6) if v6.is_unspecified() => Self::Unspecified,
            IpAddr::V4(v4) if v4.is_broadcast() => Self::Broadcast,
            IpAddr::V4(v4) if v4.is_link_local() => Self::LinkLocal,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self::LinkLocal,
            ip if ip.is_loopback() => Self::Loopback,
            ip if ip.is_multicast() => Self::Multicast,
            ip if CLOUDS.contains(&ip) => Self::Cloud,
            IpAddr::V4(v4) if v4.octets()[0] >= 240 => Self::Reserved,
            _ => return None,
        })
    }

    /// Whether a machine may have this address, so that others find it there.
    #[must_use]
    pub fn may_be_of_machine(address: IpAddr) -> bool {
        matches!(Self::of(address), None | Some(Self::Cloud | Self::Reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn where_an_address_leads() {
        for (address, to) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("64:ff9b::10.0.0.1", "10.0.0.1"),
            ("64:ff9b::c000:201", "192.0.2.1"),
            ("2002:a00:1::", "10.0.0.1"),
            ("2002:c000:201:7::9", "192.0.2.1"),
            // beside the prefix of all translators
            ("64:ff9b:0:0:0:1:10.0.0.1", "64:ff9b::1:a00:1"),
            ("64:ff9c::10.0.0.1", "64:ff9c::10.0.0.1"),
            ("2003:a00:1::", "2003:a00:1::"),
        ] {
            assert_eq!(leads_to(ip(address)), ip(to), "{address}");
        }
    }

    #[test]
    fn what_is_special_stays_so_behind_a_translator() {
        for (v4, what) in [
            ("0.1.2.3", Special::Unspecified),
            ("127.0.0.1", Special::Loopback),
            ("169.254.169.254", Special::LinkLocal),
            ("224.0.0.1", Special::Multicast),
            ("255.255.255.255", Special::Broadcast),
            ("168.63.129.16", Special::Cloud),
            ("240.0.0.7", Special::Reserved),
        ] {
            let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
            let relay = format!("2002:{a:x}{b:02x}:{c:x}{d:02x}::1");
            for address in [v4, &format!("::ffff:{v4}"), &format!("64:ff9b::{v4}"), &relay] {
                assert_eq!(Special::of(ip(address)), Some(what), "{address}");
                let may = matches!(what, Special::Cloud | Special::Reserved);
                assert_eq!(Special::may_be_of_machine(ip(address)), may, "{address}");
            }
        }
        for fine in ["10.0.0.1", "64:ff9b::10.0.0.1", "2002:c000:201::1", "fd00::1"] {
            assert_eq!(Special::of(ip(fine)), None, "{fine}");
            assert!(Special::may_be_of_machine(ip(fine)));
        }
    }
}
