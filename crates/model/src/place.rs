//! Where something listens. A cluster has tens of thousands of endpoints, and a socket's address, with what only links know of it, is
//! nearly twice as large.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{AddrParseError, IpAddr, SocketAddr},
    str::FromStr,
};

/// An address and a port. Told and written like a socket's address; scope and flow are not kept, for they mean nothing on another machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "SocketAddr", into = "SocketAddr")]
pub struct Place {
    ip: IpAddr,
    /// The higher byte first: without a number to be aligned, an endpoint is a sixth smaller.
    port: [u8; 2],
}

impl Place {
    /// This port of this address.
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port: port.to_be_bytes() }
    }
    /// The address.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.ip
    }
    /// As a socket has it.
    #[must_use]
    pub const fn socket(self) -> SocketAddr {
        SocketAddr::new(self.ip, u16::from_be_bytes(self.port))
    }
}
impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip(), address.port())
    }
}
impl<I: Into<IpAddr>> From<(I, u16)> for Place {
    fn from((ip, port): (I, u16)) -> Self {
        Self::new(ip.into(), port)
    }
}
impl From<Place> for SocketAddr {
    fn from(place: Place) -> Self {
        place.socket()
    }
}
impl FromStr for Place {
    type Err = AddrParseError;
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse::<SocketAddr>().map(Self::from)
    }
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.socket(), f)
    }
}
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_like_a_sockets_address(one in any::<(IpAddr, u16)>(), other in any::<(IpAddr, u16)>()) {
            let socket = |(ip, port)| SocketAddr::new(ip, port);
            let (a, b) = (Place::from(socket(one)), Place::from(socket(other)));
            prop_assert_eq!(a.cmp(&b), socket(one).cmp(&socket(other)));
            prop_assert_eq!((a.ip(), a.socket(), Place::from(one)), (one.0, socket(one), a));
            prop_assert_eq!(a.to_string(), socket(one).to_string());
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            let text = serde_json::to_string(&socket(one)).unwrap();
            prop_assert_eq!(serde_json::to_string(&a).unwrap(), text.clone());
            prop_assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), a);
        }
    }

    #[test]
    fn is_small() {
        assert_eq!((size_of::<Option<Place>>(), size_of::<SocketAddr>()), (19, 32));
    }
}
