//! Capture mode `node`: one proxy for all pods of a node, in the node's own network. Who calls is known by the connection's source address: it
//! is that of a pod which the agent says is on this node, and nobody else can finish a handshake from there.
//!
//! The rules stand before those of kube-proxy, which may hold the same virtual addresses for pods without a proxy: of the redirects that
//! match a connection, the first one counts. They name the pods, so connections of others pass as before. They follow the table; when the
//! proxy ends in order they are taken away, and its pods' connections go as those of pods without a proxy. Where it is killed they stay:
//! connections are refused until it is back.

use super::nft::{Place, address_field, any_of, cleared, is, is_tcp, prefix, redirect, table};
use ipnet::IpNet;
use nftables::{
    expr::Expression,
    helper::{self, NftablesError},
    schema::Nftables,
    types::NfHook,
};
use std::{collections::BTreeSet, net::IpAddr};

const TABLE: &str = "tombolo_node";
/// Before kube-proxy's, which are at -100.
const PREROUTING: Place =
    Place { table: TABLE, chain: "prerouting", hook: NfHook::Prerouting, priority: -110 };

/// What to redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRedirect {
    /// The virtual addresses.
    pub(super) vips: Vec<IpNet>,
    /// The proxy's port.
    pub(super) port: u16,
    /// The pods whose connections are redirected.
    pub(super) pods: BTreeSet<IpAddr>,
}

impl NodeRedirect {
    /// Installs the rules in place of those before. Runs `nft`; needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// What `nft` said. The rules before stay in force then.
    pub(super) fn install(&self) -> Result<(), NftablesError> {
        helper::apply_ruleset(&self.rules())
    }

    /// Takes the rules away, whether they are there or not.
    ///
    /// # Errors
    /// What `nft` said.
    pub(super) fn remove() -> Result<(), NftablesError> {
        helper::apply_ruleset(&cleared(TABLE).to_nftables())
    }

    fn rules(&self) -> Nftables<'static> {
        let mut batch = cleared(TABLE);
        batch.add(table(TABLE));
        PREROUTING.add_to(&mut batch);
        for vips in &self.vips {
            let ipv6 = matches!(vips, IpNet::V6(_));
            let pods = self.pods.iter().filter(|pod| pod.is_ipv6() == ipv6);
            let pods: Vec<Expression<'static>> =
                pods.map(|pod| Expression::String(pod.to_string().into())).collect();
            if pods.is_empty() {
                continue;
            }
            batch.add(PREROUTING.rule(vec![
                is_tcp(),
                is(address_field(ipv6, "saddr"), any_of(pods)),
                is(address_field(ipv6, "daddr"), prefix(vips)),
                redirect(self.port),
            ]));
        }
        batch.to_nftables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_pods_of_each_family() {
        let mut wanted = NodeRedirect {
            vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
            port: 15001,
            pods: ["10.244.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into(),
        };
        let text = serde_json::to_string(&wanted.rules()).unwrap();
        let order = ["-110", "l4proto", "saddr", "10.244.0.7", "240.0.0.0", "15001", "ip6", "fd00::7", "fd74", "15001"];
        let mut at = 0;
        for needle in order {
            let found = text[at..].find(needle);
            assert!(found.is_some(), "{needle} after byte {at} in {text}");
            at += found.unwrap();
        }
        wanted.pods.clear();
        assert!(!serde_json::to_string(&wanted.rules()).unwrap().contains("redirect"), "nobody is captured");
    }
}
