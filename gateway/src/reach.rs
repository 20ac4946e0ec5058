//! Which addresses are dialled at all. What another cluster advertises is that cluster's word: it must not send this
//! gateway to the machine it runs on, or to the network's own services.

use ipnet::IpNet;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::{TcpStream, lookup_host};

/// Addresses of one peer that are used; more of them are passed over.
pub const PEER_ADDRESSES: usize = 32;

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

/// Whose word an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This cluster's agent's.
    Own,
    /// Another cluster's.
    Peer {
        /// Whether this gateway dials peers on its own machine.
        loopback: bool,
        /// This cluster's own, where no peer can be.
        never: Arc<[IpNet]>,
    },
}

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Forbidden {
    address: IpAddr,
    kind: &'static str,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} address: a peer's gateway is not dialled there", self.address, self.kind)?;
        if self.address.is_loopback() {
            f.write_str(" (--dial-loopback allows it)")?;
        }
        Ok(())
    }
}

impl Reach {
    /// Whether an address is dialled. Pure.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let Self::Peer { loopback, never } = self else { return Ok(()) };
        let address = address.to_canonical();
        let kind = match address {
            IpAddr::V4(v4) if v4.octets()[0] == 0 => "an unspecified",
            IpAddr::V4(v4) if v4.is_broadcast() => "a broadcast",
            IpAddr::V4(v4) if v4.is_link_local() => "a link-local",
            IpAddr::V6(v6) if v6.is_unspecified() => "an unspecified",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local",
            ip if ip.is_multicast() => "a multicast",
            ip if ip.is_loopback() => match loopback {
                true => return Ok(()),
                false => "a loopback",
            },
            ip if CLOUDS.contains(&ip) => "a cloud's own",
            // reserved for ever, and what names of ours have
            IpAddr::V4(v4) if v4.octets()[0] >= 240 => "a virtual",
            ip if never.iter().any(|range| range.contains(&ip)) => "this cluster's own",
            _ => return Ok(()),
        };
        Err(Forbidden { address, kind })
    }

    /// Connects to `host:port`. A name is looked up first, and each of its addresses is held to the rule.
    ///
    /// # Errors
    /// The last failure, as `TcpStream::connect` has it; [`Forbidden`] where no address may be dialled.
    pub async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for found in lookup_host(address).await? {
            match self.one(found).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.check(address.ip()).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        TcpStream::connect(address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn peer(loopback: bool) -> Reach {
        Reach::Peer { loopback, never: ["10.96.0.0/12".parse().unwrap()].into() }
    }

    #[test]
    fn what_a_peer_may_not_name() {
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "239.1.1.1",
            "ff02::1",
            "ff0e::1",
            "169.254.169.254",
            "fe80::1",
            "::ffff:169.254.1.1",
            "::ffff:0.0.0.0",
            "fd00:ec2::254",
            "168.63.129.16",
            "100.100.100.200",
            "::ffff:192.0.0.192",
            "240.0.0.1",
            "10.96.0.1",
            "::ffff:10.100.0.1",
        ] {
            for loopback in [false, true] {
                assert!(peer(loopback).check(never.parse().unwrap()).is_err(), "{never}");
            }
        }
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            let why = peer(false).check(local.parse().unwrap()).unwrap_err();
            assert!(why.to_string().contains("--dial-loopback"), "{why}");
            assert_eq!(peer(true).check(local.parse().unwrap()), Ok(()));
        }
        for fine in ["10.0.0.1", "192.168.1.1", "203.0.113.7", "fd00::1", "2001:db8::1"] {
            assert_eq!(peer(false).check(fine.parse().unwrap()), Ok(()), "{fine}");
        }
        assert_eq!(Reach::Own.check("127.0.0.1".parse().unwrap()), Ok(()));
    }

    #[tokio::test]
    async fn a_name_is_held_to_its_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("localhost:{}", listener.local_addr().unwrap().port());
        assert!(peer(true).connect(&name).await.is_ok());
        let refused = peer(false).connect(&name).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }
}
