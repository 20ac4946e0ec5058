//! The rules of nftables that concern a node's pods.

use crate::capture::nft::{
    Place, address_field, any_of, cleared, is, is_tcp, prefix, redirect, stays, table,
};
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

/// Where the pods' connections to virtual addresses go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// To this port of the node.
    Port(u16),
    /// Where they are going; nobody behind these rules leads them elsewhere.
    Itself,
}

/// What there is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// The virtual addresses.
    pub(super) vips: Vec<IpNet>,
    pub(super) to: To,
    /// The pods whose connections are captured.
    pub(super) pods: BTreeSet<IpAddr>,
}

impl Rules {
    /// Installs the rules in place of those before; connections that there are stay as they are. Runs `nft`; needs `CAP_NET_ADMIN`.
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
                match self.to {
                    To::Port(port) => redirect(port),
                    To::Itself => stays(ipv6),
                },
            ]));
        }
        batch.to_nftables()
    }
}

#[cfg(test)]
mod tests;
