//! The nftables rules that bring a pod's connections to its sidecar.
//!
//! Outgoing: those to virtual addresses, and no others. There must be a route to the addresses (a pod's default route is enough); the kernel
//! looks for one before the rules see the packet. Incoming: those to the ports that are named. The sidecar passes them on as they are: a
//! plain connection of the cluster, or a probe, works as before, and stands in the access log and the metrics. What comes over loopback is
//! left alone, so an application's own connections to itself and the sidecar's to the application are not seen twice.

use super::nft::{
    Place, address_field, any_of, cleared, is, is_tcp, meta, number, passes, prefix, redirect, table,
    tcp_port,
};
use ipnet::IpNet;
use nftables::{
    expr::{Expression, MetaKey},
    helper::{self, NftablesError},
    schema::Nftables,
    types::NfHook,
};
use std::collections::BTreeSet;

const TABLE: &str = "tombolo";
/// `dstnat`: where destination NAT belongs among the hooks.
const PRIORITY: i32 = -100;
const OUTPUT: Place = Place { table: TABLE, chain: "output", hook: NfHook::Output, priority: PRIORITY };
const PREROUTING: Place =
    Place { table: TABLE, chain: "prerouting", hook: NfHook::Prerouting, priority: PRIORITY };

/// What to redirect, and what not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The virtual addresses.
    pub vips: Vec<IpNet>,
    /// The sidecar's port for outgoing connections, on loopback.
    pub port: u16,
    /// The user whose connections pass untouched: the sidecar's own, where it has a user of its own.
    pub exclude_uid: Option<u32>,
    /// The socket mark whose connections pass untouched.
    pub exclude_mark: Option<u32>,
    /// Ports to which outgoing connections pass untouched.
    pub exclude_ports: BTreeSet<u16>,
    /// What is redirected of incoming connections.
    pub inbound: Option<Inbound>,
}

/// Incoming connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The sidecar's port for them.
    pub port: u16,
    /// Those to these ports.
    pub ports: BTreeSet<u16>,
}

impl Redirect {
    /// Installs the rules in this network namespace, in place of what an earlier run installed. Runs `nft`; needs
    /// `CAP_NET_ADMIN` in the namespace, and nothing else.
    ///
    /// # Errors
    /// What `nft` said. The rules before stay in force then.
    pub fn install(&self) -> Result<(), NftablesError> {
        helper::apply_ruleset(&self.rules())
    }

    /// Takes the rules away, whether they are there or not.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn remove() -> Result<(), NftablesError> {
        helper::apply_ruleset(&cleared(TABLE).to_nftables())
    }

    fn rules(&self) -> Nftables<'static> {
        let mut batch = cleared(TABLE);
        batch.add(table(TABLE));
        OUTPUT.add_to(&mut batch);
        let pass = [(MetaKey::Skuid, self.exclude_uid), (MetaKey::Mark, self.exclude_mark)];
        for (key, value) in pass.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            batch.add(OUTPUT.rule(vec![is(meta(key), Expression::Number(value)), passes()]));
        }
        if !self.exclude_ports.is_empty() {
            let ports = any_of(self.exclude_ports.iter().copied().map(number));
            batch.add(OUTPUT.rule(vec![is_tcp(), is(tcp_port(), ports), passes()]));
        }
        for vips in &self.vips {
            let to = address_field(matches!(vips, IpNet::V6(_)), "daddr");
            batch.add(OUTPUT.rule(vec![is_tcp(), is(to, prefix(vips)), redirect(self.port)]));
        }
        if let Some(Inbound { port, ports }) =
            self.inbound.as_ref().filter(|inbound| !inbound.ports.is_empty())
        {
            PREROUTING.add_to(&mut batch);
            let loopback = is(meta(MetaKey::Iifname), Expression::String("lo".into()));
            batch.add(PREROUTING.rule(vec![loopback, passes()]));
            let to = any_of(ports.iter().copied().map(number));
            batch.add(PREROUTING.rule(vec![is_tcp(), is(tcp_port(), to), redirect(*port)]));
        }
        batch.to_nftables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_is_matched_before_the_redirect_and_exclusions_come_first() {
        let redirect = Redirect {
            vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
            port: 15001,
            exclude_uid: Some(1337),
            exclude_mark: None,
            exclude_ports: [25].into(),
            inbound: Some(Inbound { port: 15006, ports: [8080].into() }),
        };
        let text = serde_json::to_string(&redirect.rules()).unwrap();
        let order = [
            "\"add\":{\"table\"",
            "\"delete\"",
            "skuid",
            "25",
            "return",
            "l4proto",
            "\"ip\"",
            "redirect",
            "\"ip6\"",
            "\"prerouting\"",
            "\"lo\"",
            "return",
            "8080",
            "15006",
        ];
        let mut at = 0;
        for needle in order {
            let found = text[at..].find(needle);
            assert!(found.is_some(), "{needle} after byte {at} in {text}");
            at += found.unwrap();
        }
        assert!(!text.contains("mark"));
        let quiet = Redirect { inbound: None, exclude_ports: BTreeSet::new(), ..redirect };
        let text = serde_json::to_string(&quiet.rules()).unwrap();
        assert!(!text.contains("prerouting") && !text.contains("dport"), "{text}");
    }
}
