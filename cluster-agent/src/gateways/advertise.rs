//! Where other clusters are told to dial: only what can be another machine's way to this one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};
use tombolo_model::{AccountName, Special};

/// More addresses of one gateway than this are a mistake; each is dialled and probed by every other cluster.
const MOST: usize = 32;

/// Checks what a gateway advertises. `loopback`: whether everything is on one machine, so that its loopback is a place to dial.
pub(super) fn check(advertised: &BTreeSet<String>, loopback: bool) -> Result<(), String> {
    if advertised.len() > MOST {
        let count = advertised.len();
        return Err(format!("advertise: has {count} addresses; give at most {MOST}, as HOST:PORT"));
    }
    advertised.iter().try_for_each(|text| {
        let why = match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => fault(address.ip().to_canonical(), loopback),
            Ok(_) => Some("has no port"),
            Err(_) => named(text, loopback),
        };
        match why {
            None => Ok(()),
            Some(why) => Err(format!(
                "advertise: {text:?} {why}; write HOST:PORT, the address at which other clusters reach this gateway"
            )),
        }
    })
}

fn fault(ip: IpAddr, loopback: bool) -> Option<&'static str> {
    match Special::of(ip)? {
        Special::Unspecified => Some("stands for all addresses, and is none to dial"),
        Special::Multicast => Some("is a multicast address"),
        Special::Broadcast => Some("is the broadcast address"),
        Special::LinkLocal => Some("means another machine on each link"),
        Special::Loopback if loopback && ip.is_loopback() => None,
        Special::Loopback => Some("is each machine's own loopback"),
        Special::Cloud => Some("is where a cloud answers its own machines"),
        Special::Reserved => Some("is of 240.0.0.0/4, which no gateway dials"),
    }
}

/// A DNS name and a port.
fn named(text: &str, loopback: bool) -> Option<&'static str> {
    const SHAPE: Option<&str> = Some("is not an address that other clusters can dial");
    let Some((host, port)) = text.rsplit_once(':') else { return SHAPE };
    if AccountName::parse(host).is_err() || port.parse::<u16>().ok().filter(|port| *port > 0).is_none() {
        return SHAPE;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    match last {
        "localhost" if !loopback => Some("is each machine's own loopback"),
        // Resolvers take 127.1 and 0x7f000001 for addresses.
        _ if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") => {
            Some("is a short form of an address")
        }
        _ => None,
    }
}

/// Whether this URL's host is a loopback: whoever joined there is on the same machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str, loopback: bool) -> String {
        check(&BTreeSet::from([text.to_owned()]), loopback).err().unwrap_or_default()
    }

    #[test]
    fn places_to_dial() {
        for text in
            ["192.0.2.1:1", "10.0.0.1:15443", "[2001:db8::1]:1", "[fd00::1]:1", "gw.example.com:15443"]
        {
            assert_eq!(why(text, false), "", "{text}");
        }
        for (text, part) in [
            ("", "is not an address"),
            ("gw", "is not an address"),
            ("gw:0", "is not an address"),
            ("192.0.2.1:0", "has no port"),
            ("http://gw:1", "is not an address"),
            ("::1:5", "is not an address"),
            ("0.0.0.0:1", "all addresses"),
            ("[::]:1", "all addresses"),
            ("[::ffff:0.0.0.0]:1", "all addresses"),
            ("224.0.0.1:1", "multicast"),
            ("[ff02::1]:1", "multicast"),
            ("255.255.255.255:1", "broadcast"),
            ("169.254.169.254:80", "each link"),
            ("[::ffff:169.254.1.1]:80", "each link"),
            ("[fe80::1]:1", "each link"),
            ("168.63.129.16:80", "a cloud"),
            ("240.0.0.7:1", "240.0.0.0/4"),
            ("[64:ff9b::169.254.1.1]:80", "each link"),
            ("[64:ff9b::127.0.0.1]:80", "own loopback"),
            ("127.1:1", "short form"),
            ("2130706433:1", "short form"),
            ("0x7f.0x1:1", "short form"),
        ] {
            for loopback in [false, true] {
                let said = why(text, loopback);
                assert!(said.contains(part) && said.contains("write HOST:PORT"), "{text}: {said:?}");
            }
        }
    }

    #[test]
    fn loopback_only_where_all_is_on_one_machine() {
        for text in
            ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "a.localhost:1"]
        {
            assert!(why(text, false).contains("own loopback"), "{text}");
            assert_eq!(why(text, true), "", "{text}");
        }
        for url in ["https://127.0.0.1:8443", "https://127.3.0.1", "https://[::1]:1", "https://localhost:1"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["https://controller:8443", "https://192.0.2.1", "https://127.example.com", "what", ""] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn not_too_many() {
        let all = |n: u8| (0..n).map(|i| format!("192.0.2.{i}:1")).collect::<BTreeSet<_>>();
        assert!(check(&all(32), false).is_ok());
        assert!(check(&all(33), false).unwrap_err().contains("at most 32"));
    }
}
