//! Addresses at which a cluster says that its ingress gateways are. Gateways of other clusters dial them, so an address
//! that leads a dialler to itself, to its neighbours or to many is left out.

use std::{collections::BTreeSet, net::SocketAddr};
use tombolo_model::{AccountName, Special};
use tombolo_wire::message::Problem;

/// How many a cluster may have.
const MOST: usize = 32;

/// Those that peers may dial, and what is wrong with the others. One wrong address costs the cluster neither the right ones nor the rest of
/// its status.
pub(super) fn sort(addresses: BTreeSet<String>, allow_loopback: bool) -> (BTreeSet<String>, Vec<Problem>) {
    let said = addresses.len();
    let (mut good, mut problems) = (BTreeSet::new(), Vec::new());
    for address in addresses {
        match wrong(&address, allow_loopback) {
            Some((message, remedy)) => {
                let shown: String = address.chars().take(100).collect();
                problems.push(problem(format!("{shown:?} is told to no peer: it {message}; {remedy}")));
            }
            None if good.len() < MOST => drop(good.insert(address)),
            None => {}
        }
    }
    let beyond = said - problems.len() - good.len();
    if beyond > 0 {
        problems.push(problem(format!(
            "{beyond} addresses are told to no peer: a cluster may have {MOST}; let several gateways share one, behind a load balancer"
        )));
    }
    // What was left out may be as much as the message holds.
    problems.truncate(MOST);
    (good, problems)
}

/// What a cluster has that said these before, and says now that there are those, and perhaps others.
pub(super) fn beside(before: &BTreeSet<String>, now: BTreeSet<String>) -> BTreeSet<String> {
    let new = now.into_iter().filter(|address| !before.contains(address));
    before.iter().cloned().chain(new).take(MOST).collect()
}

fn problem(message: String) -> Problem {
    Problem { subject: "ingress gateway address".to_owned(), message }
}

const ROUTED: &str = "give --advertise of the ingress gateway as an address that other clusters reach";

/// What is wrong with an address, and what to do about it.
fn wrong(text: &str, allow_loopback: bool) -> Option<(&'static str, &'static str)> {
    let form = (
        "is not host:port",
        "give --advertise of the ingress gateway as host:port, [v6]:port or address:port",
    );
    let loopback = (
        "leads to the machine that dials it",
        "give --advertise of the ingress gateway as an address that other clusters reach; where all clusters are on one \
         machine, start the controller with --allow-loopback-gateways",
    );
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match Special::of(address.ip()) {
            _ if address.port() == 0 => Some(form),
            Some(Special::Loopback) if address.ip().to_canonical().is_loopback() => {
                Some(loopback).filter(|_| !allow_loopback)
            }
            Some(Special::Loopback) => Some(("leads to a translator's own machine", ROUTED)),
            Some(Special::Unspecified) => Some(("is the unspecified address", ROUTED)),
            Some(Special::Multicast) => Some(("is a multicast address", ROUTED)),
            Some(Special::Broadcast) => Some(("is the broadcast address", ROUTED)),
            Some(Special::LinkLocal) => Some(("is a link-local address", ROUTED)),
            Some(Special::Cloud) => Some(("is where a cloud answers its own machines", ROUTED)),
            Some(Special::Reserved) => Some(("is of 240.0.0.0/4, which no gateway dials", ROUTED)),
            None => None,
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Some(form) };
    if AccountName::parse(host).is_err() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Some(form);
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // resolvers take 127.1, 0x7f.1 and 2130706433 for addresses
    if last.starts_with(|first: char| first.is_ascii_digit())
        && last.bytes().all(|b| b.is_ascii_hexdigit() || b == b'x')
    {
        return Some((
            "is a number that resolvers take for an address",
            "write the address in full, as 192.0.2.1:15443",
        ));
    }
    Some(loopback).filter(|_| last == "localhost" && !allow_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allow_loopback: bool) -> Option<String> {
        let (good, problems) = sort(BTreeSet::from([address.to_owned()]), allow_loopback);
        assert_eq!(good.len() + problems.len(), 1, "{address}: {good:?} {problems:?}");
        problems.into_iter().next().map(|problem| problem.message)
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1:15443", "[fd00::1]:15443", "gw.example.com:443", "192.0.2.7:1", "1.gw.de:1"] {
            assert_eq!(refused(good, false), None, "{good}");
        }
        for bad in [
            "10.0.0.1",
            "gw.example.com:0",
            "gw.example.com:70000",
            "http://x:1",
            "fd00::1:15443x",
            ":1",
            "10.0.0.1:0",
        ] {
            assert!(refused(bad, true).is_some_and(|said| said.contains("is not host:port")), "{bad}");
        }
        for (bad, why) in [
            ("0.0.0.0:1", "unspecified"),
            ("0.1.2.3:1", "unspecified"),
            ("[::]:1", "unspecified"),
            ("224.0.0.1:1", "multicast"),
            ("[ff02::1]:1", "multicast"),
            ("255.255.255.255:1", "broadcast"),
            ("169.254.169.254:80", "link-local"),
            ("[fe80::1]:1", "link-local"),
            ("[::ffff:169.254.169.254]:80", "link-local"),
            ("168.63.129.16:80", "a cloud"),
            ("[fd00:ec2::254]:80", "a cloud"),
            ("240.0.0.7:1", "240.0.0.0/4"),
            ("[64:ff9b::169.254.169.254]:80", "link-local"),
            ("[64:ff9b::127.0.0.1]:80", "translator"),
            ("[2002:7f00:1::1]:80", "translator"),
            ("127.1:1", "resolvers"),
            ("0x7f.1:1", "resolvers"),
            ("2130706433:1", "resolvers"),
            ("1.0x7f:1", "resolvers"),
        ] {
            assert!(
                refused(bad, true).is_some_and(|said| said.contains(why)),
                "{bad}: {:?}",
                refused(bad, true)
            );
        }
    }

    #[test]
    fn loopback_is_for_one_machine() {
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.9.9.9]:1", "localhost:1", "a.localhost:1"] {
            assert_eq!(refused(address, true), None, "{address}");
            let said = refused(address, false).unwrap();
            assert!(said.contains("--allow-loopback-gateways"), "{address}: {said}");
        }
    }

    #[test]
    fn so_many_and_no_more() {
        let some = |n: usize| (0..n).map(|n| format!("192.0.2.{n}:1")).collect::<BTreeSet<_>>();
        assert_eq!(sort(some(32), false), (some(32), Vec::new()));
        let (good, problems) = sort(some(40), false);
        assert_eq!((good.len(), problems.len()), (32, 1));
        assert!(problems[0].message.starts_with("8 addresses"), "{problems:?}");
    }

    #[test]
    fn who_does_not_know_withdraws_nothing() {
        let set = |of: std::ops::Range<usize>| of.map(|n| format!("192.0.2.{n}:1")).collect::<BTreeSet<_>>();
        assert_eq!(beside(&set(0..2), set(1..3)), set(0..3));
        assert_eq!(beside(&set(0..0), set(1..3)), set(1..3));
        let all = beside(&set(50..82), set(0..32));
        assert_eq!(all, set(50..82), "what is there goes before what is new, and there is a bound");
    }

    #[test]
    fn a_wrong_one_costs_the_right_ones_nothing() {
        let both = BTreeSet::from(["127.0.0.1:1".to_owned(), "192.0.2.1:1".to_owned()]);
        let (good, problems) = sort(both, false);
        assert_eq!(good, BTreeSet::from(["192.0.2.1:1".to_owned()]));
        assert!(problems[0].message.contains("leads to the machine that dials it"), "{problems:?}");
    }
}
