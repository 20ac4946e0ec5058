//! Which addresses are dialled at all. What another cluster advertises is that cluster's word: it must not send this
//! gateway to the machine it runs on, or to the network's own services.

use crate::health::newcomers::Pace;
use ipnet::IpNet;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::net::{TcpStream, lookup_host};
use tombolo_model::{ClusterName, Special, leads_to};

/// Addresses of one peer that are used; more of them are passed over.
pub const PEER_ADDRESSES: usize = 32;

/// Addresses of one name that are tried; more of them are passed over.
const NAME_ADDRESSES: usize = 8;

/// Whose word an address is.
#[derive(Clone, Debug)]
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
    /// The same, of this cluster; what a name leads to is dialled for the first time no faster than what the cluster names itself.
    Paced(Box<Self>, Pace, ClusterName),
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

/// Whether an address, or that which it leads to, is in a range, which may be one of IPv4 addresses that are written as IPv6 (RFC 4291, 2.5.5.2).
fn is_in(range: &IpNet, address: IpAddr) -> bool {
    [address, leads_to(address)].into_iter().any(|address| {
        let mapped = match address {
            IpAddr::V4(v4) if range.prefix_len() >= 96 => IpAddr::V6(v4.to_ipv6_mapped()),
            address => address,
        };
        range.contains(&address) || range.contains(&mapped)
    })
}

/// Why an address is not dialled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} waits: this peer has had many new addresses dialled, and names lead to more")]
pub struct TooFast(SocketAddr);

impl Reach {
    /// The same, at the pace at which this cluster may have addresses dialled.
    #[must_use]
    pub fn paced(self, pace: &Pace, cluster: &ClusterName) -> Self {
        match self {
            Self::Own => Self::Own,
            rule => Self::Paced(Box::new(rule), pace.clone(), cluster.clone()),
        }
    }

    /// Whether an address is dialled at all. Pure.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let (loopback, never) = match self {
            Self::Own => return Ok(()),
            Self::Paced(rule, ..) => return rule.check(address),
            Self::Peer { loopback, never } => (loopback, never),
        };
        let address = address.to_canonical();
        let kind = match Special::of(address) {
            // not what a translator has as its own
            Some(Special::Loopback) if *loopback && address.is_loopback() => return Ok(()),
            Some(Special::Unspecified) => "an unspecified",
            Some(Special::Loopback) => "a loopback",
            Some(Special::LinkLocal) => "a link-local",
            Some(Special::Broadcast) => "a broadcast",
            Some(Special::Multicast) => "a multicast",
            Some(Special::Cloud) => "a cloud's own",
            Some(Special::Reserved) => "a virtual",
            None if never.iter().any(|range| is_in(range, address)) => "this cluster's own",
            None => return Ok(()),
        };
        Err(Forbidden { address, kind })
    }

    /// Connects to `host:port`. A name is looked up first, and each of its addresses is held to the rule.
    ///
    /// # Errors
    /// The last failure, as `TcpStream::connect` has it; [`Forbidden`] where no address may be dialled, [`TooFast`] where none may yet.
    pub async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        self.first(lookup_host(address).await?).await
    }

    async fn first(&self, found: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for found in found.take(NAME_ADDRESSES) {
            match self.one(found).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.check(address.ip()).map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?;
        if let Self::Paced(_, pace, cluster) = self
            && !pace.admit(cluster, address)
        {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, TooFast(address)));
        }
        TcpStream::connect(address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::newcomers::AT_ONCE;
    use tokio::{net::TcpListener, time::Instant};

    fn peer(loopback: bool) -> Reach {
        Reach::Peer { loopback, never: ["10.96.0.0/12".parse().unwrap()].into() }
    }

    #[test]
    fn a_range_of_ipv4_may_be_written_as_ipv6() {
        let reach = |range: &str| Reach::Peer { loopback: false, never: [range.parse().unwrap()].into() };
        let allows = |range: &str, address: &str| reach(range).check(address.parse().unwrap()).is_ok();
        assert!(!allows("::ffff:10.244.0.0/112", "10.244.3.7"));
        assert!(!allows("::ffff:10.244.0.0/112", "::ffff:10.244.3.7"));
        assert!(allows("::ffff:10.244.0.0/112", "10.245.0.1"));
        assert!(allows("fd00::/8", "10.244.3.7"));
        assert!(!allows("10.244.0.0/16", "::ffff:10.244.3.7"));
        assert!(!allows("10.244.0.0/16", "64:ff9b::10.244.3.7"));
        assert!(!allows("::ffff:10.244.0.0/112", "64:ff9b::10.244.3.7"));
        assert!(!allows("10.244.0.0/16", "2002:af4:307::1"));
        assert!(!allows("64:ff9b::/96", "64:ff9b::10.244.3.7"), "all that goes by the translator");
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
            // through a translator, and a relay
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.100.0.1",
            "64:ff9b::240.0.0.1",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
            "2002:a64:1::1",
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
        for fine in ["10.0.0.1", "192.168.1.1", "203.0.113.7", "fd00::1", "2001:db8::1", "64:ff9b::10.0.0.1"]
        {
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
        let behind = |count| {
            let forbidden = SocketAddr::from(([169, 254, 169, 254], 80));
            std::iter::repeat_n(forbidden, count).chain(listener.local_addr())
        };
        assert!(peer(true).first(behind(NAME_ADDRESSES - 1)).await.is_ok());
        peer(true)
            .first(behind(NAME_ADDRESSES))
            .await
            .expect_err("of a name with many addresses some are tried");
    }

    /// Or one name would have as many addresses dialled as its owner's DNS server has answers.
    #[tokio::test(start_paused = true)]
    async fn what_a_name_leads_to_counts_as_if_the_peer_had_named_it() {
        let (pace, cluster) = (Pace::default(), ClusterName::parse("scanner").unwrap());
        let reach = peer(true).paced(&pace, &cluster);
        let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let old = (old.local_addr().unwrap(), old);
        reach.first([old.0].into_iter()).await.unwrap();
        let mut name =
            |number| pace.newcomers().admit(&cluster, &format!("192.0.2.1:{number}"), Instant::now());
        assert!((1..AT_ONCE).all(&mut name) && !name(AT_ONCE));
        let new = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let new = (new.local_addr().unwrap(), new);
        let waits = reach.first([new.0].into_iter()).await.unwrap_err();
        assert!(waits.get_ref().is_some_and(|why| why.is::<TooFast>()), "{waits}");
        assert!(reach.first([new.0, old.0].into_iter()).await.is_ok(), "what is known is dialled as ever");
        let another = peer(true).paced(&pace, &ClusterName::parse("other").unwrap());
        assert!(another.first([new.0].into_iter()).await.is_ok(), "others have their own");
        assert!(peer(false).paced(&pace, &cluster).check(old.0.ip()).is_err(), "the rule holds beside it");
    }
}
