//! The nftables rules that bring an application's connections to virtual addresses to the sidecar.
//!
//! One table of our own, `inet tombolo`, replaced whole in one transaction: running it twice leaves it once, and
//! nothing of anybody else's is touched. Only output is redirected, of this network namespace, to the given prefixes:
//! all other traffic of the pod goes as before. There must be a route to the prefixes (a pod's default route is
//! enough); the kernel looks for one before the rules see the packet.

use ipnet::IpNet;
use nftables::{
    batch::Batch,
    expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix},
    helper::{self, NftablesError},
    schema::{Chain, NfListObject, Nftables, Rule, Table},
    stmt::{Match, NAT, Operator, Return, Statement},
    types::{NfChainType, NfFamily, NfHook},
};
use std::borrow::Cow;

const TABLE: &str = "tombolo";
const CHAIN: &str = "output";
/// `dstnat`: where destination NAT belongs among the hooks.
const PRIORITY: i32 = -100;

/// What to redirect, and what not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The virtual addresses.
    pub vips: Vec<IpNet>,
    /// The sidecar's port, on loopback.
    pub port: u16,
    /// The user whose connections pass untouched: the sidecar's own, where it has a user of its own.
    pub exclude_uid: Option<u32>,
    /// The socket mark whose connections pass untouched.
    pub exclude_mark: Option<u32>,
}

impl Redirect {
    /// Installs the rules in this network namespace, in place of what an earlier run installed. Runs `nft`; needs
    /// root in the namespace.
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
        helper::apply_ruleset(&cleared().to_nftables())
    }

    fn rules(&self) -> Nftables<'static> {
        let mut batch = cleared();
        batch.add(NfListObject::Table(table()));
        batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: CHAIN.into(),
            _type: Some(NfChainType::NAT),
            hook: Some(NfHook::Output),
            prio: Some(PRIORITY),
            ..Chain::default()
        }));
        let passes = [(MetaKey::Skuid, self.exclude_uid), (MetaKey::Mark, self.exclude_mark)];
        for (key, value) in passes {
            if let Some(value) = value {
                batch.add(rule(vec![
                    is(meta(key), Expression::Number(value)),
                    Statement::Return(Some(Return {})),
                ]));
            }
        }
        for vips in &self.vips {
            batch.add(rule(vec![
                // without this match first, nft refuses a redirect to a port
                is(meta(MetaKey::L4proto), Expression::String("tcp".into())),
                is(destination(vips), prefix(vips)),
                Statement::Redirect(Some(NAT {
                    addr: None,
                    family: None,
                    port: Some(Expression::Number(self.port.into())),
                    flags: None,
                })),
            ]));
        }
        batch.to_nftables()
    }
}

/// Adding a table that is there does nothing, so the deletion after it never fails.
fn cleared() -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(NfListObject::Table(table()));
    batch.delete(NfListObject::Table(table()));
    batch
}

fn table() -> Table<'static> {
    Table { family: NfFamily::INet, name: TABLE.into(), handle: None }
}

fn rule(statements: Vec<Statement<'static>>) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: CHAIN.into(),
        expr: Cow::Owned(statements),
        ..Rule::default()
    })
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn destination(vips: &IpNet) -> Expression<'static> {
    let protocol = match vips {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    };
    let field = PayloadField { protocol: protocol.into(), field: "daddr".into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn prefix(vips: &IpNet) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(Expression::String(vips.network().to_string().into())),
        len: vips.prefix_len().into(),
    }))
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
        };
        let text = serde_json::to_string(&redirect.rules()).unwrap();
        let order = ["\"add\":{\"table\"", "\"delete\"", "skuid", "l4proto", "\"ip\"", "redirect", "\"ip6\""];
        let mut at = 0;
        for needle in order {
            let found = text[at..].find(needle);
            assert!(found.is_some(), "{needle} after byte {at} in {text}");
            at += found.unwrap();
        }
        assert!(!text.contains("mark"));
    }
}
