//! Tables of our own, as nft's JSON has them. A table is replaced whole, in one transaction: running it twice leaves it once, and nothing of
//! anybody else's is touched. Connections that were redirected before stay as they are.

use ipnet::IpNet;
use nftables::{
    batch::Batch,
    expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, SetItem},
    schema::{Chain, NfListObject, Rule, Table},
    stmt::{Match, NAT, NATFamily, Operator, Return, Statement},
    types::{NfChainType, NfFamily, NfHook},
};
use std::borrow::Cow;

/// Whose packets a chain sees, and when among the other chains there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) table: &'static str,
    pub(super) chain: &'static str,
    pub(super) hook: NfHook,
    pub(super) priority: i32,
}

impl Place {
    /// Adds the chain.
    pub(super) fn add_to(self, batch: &mut Batch<'static>) {
        batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: self.table.into(),
            name: self.chain.into(),
            _type: Some(NfChainType::NAT),
            hook: Some(self.hook),
            prio: Some(self.priority),
            ..Chain::default()
        }));
    }

    /// A rule of the chain.
    pub(super) fn rule(self, statements: Vec<Statement<'static>>) -> NfListObject<'static> {
        NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: self.table.into(),
            chain: self.chain.into(),
            expr: Cow::Owned(statements),
            ..Rule::default()
        })
    }
}

/// Takes the table away. Adding one that is there does nothing, so the deletion after it never fails.
pub(super) fn cleared(name: &'static str) -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(table(name));
    batch.delete(table(name));
    batch
}

pub(super) fn table(name: &'static str) -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: name.into(), handle: None })
}

pub(super) fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

/// Without this match first, nft refuses a redirect to a port.
pub(super) fn is_tcp() -> Statement<'static> {
    is(meta(MetaKey::L4proto), Expression::String("tcp".into()))
}

pub(super) fn passes() -> Statement<'static> {
    Statement::Return(Some(Return {}))
}

pub(super) fn redirect(port: u16) -> Statement<'static> {
    Statement::Redirect(Some(NAT {
        addr: None,
        family: None,
        port: Some(Expression::Number(port.into())),
        flags: None,
    }))
}

/// To where it goes already. That settles the connection's translation, so that no chain behind this one has a say.
pub(super) fn stays(ipv6: bool) -> Statement<'static> {
    Statement::DNAT(Some(NAT {
        addr: Some(address_field(ipv6, "daddr")),
        family: Some(if ipv6 { NATFamily::IP6 } else { NATFamily::IP }),
        port: None,
        flags: None,
    }))
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

/// A field of the packet's IP header, for addresses of this family: `saddr` or `daddr`.
pub(super) fn address_field(ipv6: bool, field: &'static str) -> Expression<'static> {
    payload(if ipv6 { "ip6" } else { "ip" }, field)
}

pub(super) fn tcp_port() -> Expression<'static> {
    payload("tcp", "dport")
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn prefix(net: &IpNet) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(Expression::String(net.network().to_string().into())),
        len: net.prefix_len().into(),
    }))
}

/// Any of these; not empty.
pub(super) fn any_of(all: impl IntoIterator<Item = Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(all.into_iter().map(SetItem::Element).collect()))
}

pub(super) fn number(port: u16) -> Expression<'static> {
    Expression::Number(port.into())
}
