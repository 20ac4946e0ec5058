//! What stands in one word on the command line.

use std::{net::SocketAddr, str::FromStr};
use tombolo_model::{AccountName, NamespaceName};

/// `host:port`, the host a name or an address (an IPv6 one in brackets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort(pub(super) String);
impl FromStr for HostPort {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "write it as host:port, as gateway.example.com:15443 or [fd00::1]:15443";
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let good = match bracketed {
            Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        match port.parse::<u16>() {
            Ok(1..) if good => Ok(Self(text.to_owned())),
            _ => Err(WRONG),
        }
    }
}

/// An address and a port, or a port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Full(SocketAddr),
    Port(u16),
}
impl FromStr for Place {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(port) = text.parse() {
            return Ok(Self::Port(port));
        }
        text.parse().map(Self::Full).map_err(|_| "write it as IP:PORT, or as a port of the pod's address")
    }
}

/// `namespace/account`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkloadName(pub(super) NamespaceName, pub(super) AccountName);
impl FromStr for WorkloadName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, account) = text.split_once('/').ok_or("write it as namespace/service-account")?;
        let namespace = NamespaceName::parse(namespace).map_err(|e| format!("the namespace {e}"))?;
        let account = AccountName::parse(account).map_err(|e| format!("the service account {e}"))?;
        Ok(Self(namespace, account))
    }
}
