//! The pools of virtual addresses: an index, the same in both, is an offset into each.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};
use thiserror::Error;
use tombolo_model::snapshot::Vip;

/// The installation's pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pools {
    v4: Ipv4Net,
    v6: Ipv6Net,
}

/// Why pools cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum PoolError {
    /// Too few addresses.
    #[error("--vip-pool {pool} has no room for names; give a prefix of at most /24")]
    TooSmall {
        /// The pool.
        pool: Ipv4Net,
    },
    /// The IPv6 pool holds fewer than the IPv4 pool.
    #[error("--vip6-pool {pool} is smaller than the IPv4 pool; give a prefix of at most /96")]
    TooSmall6 {
        /// The pool.
        pool: Ipv6Net,
    },
}

impl Pools {
    /// Pools of these prefixes.
    ///
    /// # Errors
    /// [`PoolError`] where one is too small.
    pub(crate) fn new(v4: Ipv4Net, v6: Ipv6Net) -> Result<Self, PoolError> {
        if v4.prefix_len() > 24 {
            return Err(PoolError::TooSmall { pool: v4 });
        }
        if v6.prefix_len() > 96 {
            return Err(PoolError::TooSmall6 { pool: v6 });
        }
        Ok(Self { v4: v4.trunc(), v6: v6.trunc() })
    }

    /// The prefixes as text, to be stored at the first start.
    pub(crate) fn texts(&self) -> (String, String) {
        (self.v4.to_string(), self.v6.to_string())
    }

    /// The last index: neither the first address of the pool nor its last is given to a name.
    pub(crate) fn last(&self) -> u64 {
        u64::from(u32::MAX >> self.v4.prefix_len()) - 1
    }

    /// The addresses of an index; `None` for one outside the pools.
    pub(crate) fn vip(&self, index: u64) -> Option<Vip> {
        if index == 0 || index > self.last() {
            return None;
        }
        let offset = u32::try_from(index).ok()?;
        let v4 = Ipv4Addr::from(u32::from(self.v4.network()) | offset);
        let v6 = Ipv6Addr::from(u128::from(self.v6.network()) | u128::from(offset));
        Some(Vip { v4, v6 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pools(v4: &str) -> Pools {
        Pools::new(v4.parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()).unwrap()
    }

    #[test]
    fn both_count_alike() {
        let vip = pools("240.0.0.0/4").vip(5).unwrap();
        assert_eq!(
            (vip.v4.to_string(), vip.v6.to_string()),
            ("240.0.0.5".into(), "fd74:6f6d:6265:6c6f::5".into())
        );
        assert_eq!(pools("240.0.0.0/4").vip(0), None);
        assert_eq!(pools("10.9.8.0/24").last(), 254);
        assert_eq!(pools("10.9.8.0/24").vip(254).unwrap().v4, Ipv4Addr::new(10, 9, 8, 254));
        assert_eq!(pools("10.9.8.0/24").vip(255), None);
    }

    #[test]
    fn refuses_small_pools() {
        let v6 = "fd00::/64".parse().unwrap();
        assert!(Pools::new("10.0.0.0/25".parse().unwrap(), v6).is_err());
        assert!(Pools::new("10.0.0.0/8".parse().unwrap(), "fd00::/97".parse().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn stays_inside_and_never_twice(length in 4u8..=24, a in 1u64..1 << 28, b in 1u64..1 << 28) {
            let net: Ipv4Net = format!("240.0.0.0/{length}").parse().unwrap();
            let pools = pools(&net.to_string());
            let (x, y) = (pools.vip(a), pools.vip(b));
            prop_assert_eq!(x.is_some(), a <= pools.last());
            if let Some(vip) = x { prop_assert!(net.contains(&vip.v4)); }
            if let (Some(x), Some(y)) = (x, y) { prop_assert_eq!(x == y, a == b); }
        }
    }
}
