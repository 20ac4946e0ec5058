//! Which addresses stand for a global name in this cluster.
//!
//! A name's VIP is the same in every cluster. Where proxies bind the addresses themselves (capture mode
//! `explicit`) and two clusters share one machine, each cluster needs a range of its own: the agent then answers
//! `prefix | index of the VIP`. DNS and the gateways' routes both ask here, so that they never disagree.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};
use thiserror::Error;
use tombolo_model::{Few, snapshot::Vip};

/// How this cluster writes a VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressMode {
    /// As it was allocated.
    #[default]
    Allocated,
    /// Inside this prefix, IPv4 only.
    Explicit(ExplicitPrefix),
}

/// The range of `--explicit-prefix`: its host bits are zero, and it leaves room for at least one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExplicitPrefix(Ipv4Net);

/// Why a text is not a prefix for explicit addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrefixError {
    /// Not `address/length`.
    #[error("{text:?} is not an IPv4 prefix; write one as 127.101.0.0/16")]
    Syntax {
        /// What was given.
        text: String,
    },
    /// The address has bits after the prefix's length.
    #[error("{text} has host bits; write {network}")]
    HostBits {
        /// What was given.
        text: String,
        /// The prefix it lies in.
        network: Ipv4Net,
    },
    /// No room for names.
    #[error("{text} has no room for names; use a length of 30 or less")]
    TooNarrow {
        /// What was given.
        text: String,
    },
}

impl FromStr for ExplicitPrefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let net: Ipv4Net = text.parse().map_err(|_| PrefixError::Syntax { text: text.to_owned() })?;
        if net.addr() != net.network() {
            return Err(PrefixError::HostBits { text: text.to_owned(), network: net.trunc() });
        }
        if net.prefix_len() > 30 {
            return Err(PrefixError::TooNarrow { text: text.to_owned() });
        }
        Ok(Self(net))
    }
}

impl TryFrom<String> for ExplicitPrefix {
    type Error = PrefixError;
    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<ExplicitPrefix> for String {
    fn from(prefix: ExplicitPrefix) -> Self {
        prefix.0.to_string()
    }
}

/// A VIP that has no address in the explicit prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "VIP {vip} is number {index} of its pool, and --explicit-prefix {prefix} holds {room}; give the agent a wider prefix"
)]
pub struct NoRoom {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// Its number in the pool.
    pub index: u32,
    /// The prefix of this cluster.
    pub prefix: Ipv4Net,
    /// How many names it holds.
    pub room: u32,
}

impl AddressMode {
    /// The IPv4 address that stands for `vip` here.
    ///
    /// # Errors
    /// [`NoRoom`] where the VIP's number does not fit into the explicit prefix.
    pub fn v4(&self, vip: &Vip) -> Result<Ipv4Addr, NoRoom> {
        let Self::Explicit(ExplicitPrefix(prefix)) = self else { return Ok(vip.v4) };
        // The IPv6 pool is a /64 and the IPv4 pool any size: the low bits of the IPv6 address are the
        // number itself, whatever the pools are.
        let index = low_bits(vip.v6);
        // The last address of the prefix stays free: it would be its broadcast address.
        let room = u32::from(prefix.broadcast()) - u32::from(prefix.network());
        if index >= room {
            return Err(NoRoom { vip: vip.v4, index, prefix: *prefix, room });
        }
        Ok(Ipv4Addr::from(u32::from(prefix.network()) | index))
    }

    /// The IPv6 address that stands for `vip` here; none in explicit mode, which answers NODATA.
    #[must_use]
    pub const fn v6(&self, vip: &Vip) -> Option<Ipv6Addr> {
        match self {
            Self::Allocated => Some(vip.v6),
            Self::Explicit(_) => None,
        }
    }

    /// All addresses that stand for `vip` here.
    ///
    /// # Errors
    /// As [`Self::v4`].
    pub fn addresses(&self, vip: &Vip) -> Result<Few<IpAddr>, NoRoom> {
        let v4 = IpAddr::V4(self.v4(vip)?);
        Ok([Some(v4), self.v6(vip).map(IpAddr::V6)].into_iter().flatten().collect())
    }
}

fn low_bits(v6: Ipv6Addr) -> u32 {
    let [.., a, b] = v6.segments();
    u32::from(a) << 16 | u32::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vip(index: u32) -> Vip {
        let v6: Ipv6Addr = "fd74:6f6d:6265:6c6f::".parse().unwrap();
        Vip {
            v4: Ipv4Addr::from(0xf000_0000 | index),
            v6: Ipv6Addr::from(u128::from(v6) | u128::from(index)),
        }
    }

    #[test]
    fn as_allocated() {
        let mode = AddressMode::Allocated;
        assert_eq!(mode.v4(&vip(5)).unwrap().to_string(), "240.0.0.5");
        assert_eq!(mode.v6(&vip(5)).unwrap().to_string(), "fd74:6f6d:6265:6c6f::5");
        assert_eq!(mode.addresses(&vip(5)).unwrap().len(), 2);
    }

    #[test]
    fn inside_the_prefix() {
        let mode = AddressMode::Explicit("127.101.0.0/16".parse().unwrap());
        assert_eq!(mode.v4(&vip(258)).unwrap().to_string(), "127.101.1.2");
        assert_eq!(mode.v6(&vip(258)), None);
        let error = mode.v4(&vip(65_535)).unwrap_err();
        assert!(error.to_string().contains("holds 65535; give the agent a wider prefix"), "{error}");
    }

    #[test]
    fn refuses_bad_prefixes() {
        for bad in ["", "127.101.0.0", "127.101.0.1/16", "127.101.0.4/31", "::1/128"] {
            assert!(bad.parse::<ExplicitPrefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_two_vips_share_an_address(a in 0u32..70_000, b in 0u32..70_000) {
            let mode = AddressMode::Explicit("127.101.0.0/16".parse().unwrap());
            if let (Ok(x), Ok(y)) = (mode.v4(&vip(a)), mode.v4(&vip(b))) {
                prop_assert_eq!(a == b, x == y);
            }
        }
    }
}
