//! The example that all DNS tests ask about.

mod answers;
mod forwarding;
mod kept;
mod packets;
mod set;
mod sockets;

use super::*;
use crate::vip::AddressMode;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};
use tombolo_model::{
    ClusterName, Domain, Generation, GlobalName, Locality, Proximity, TrustDomain,
    inventory::{PortSpec, Protocol},
    snapshot::{
        ClusterResource, DomainSpec, EndToEnd, NameKind, NameSpec, Resource, Resources, SelfSpec, TargetSpec,
        Vip,
    },
};

/// Longer than anything here takes, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(10);

fn vip(index: u32) -> Vip {
    let v6 = 0xfd74_6f6d_6265_6c6f_0000_0000_0000_0000_u128 | u128::from(index);
    Vip { v4: Ipv4Addr::from(0xf000_0000 | index), v6: v6.into() }
}

fn port(port: u16, name: Option<&str>, protocol: Protocol) -> PortSpec {
    PortSpec { port, protocol, name: name.map(|n| n.parse().unwrap()), app_protocol: None }
}

fn target(cluster: &str, ready: u32) -> TargetSpec {
    TargetSpec {
        cluster: cluster.parse().unwrap(),
        proximity: Proximity::Elsewhere,
        services: [].into(),
        ports: [].into(),
        ready,
        end_to_end: EndToEnd::None,
        accounts: [].into(),
    }
}

fn name(text: &str, kind: NameKind, index: u32, targets: &[(&str, u32)]) -> NameSpec {
    NameSpec {
        name: text.parse().unwrap(),
        domain: "acme.example.com".parse().unwrap(),
        kind,
        pod: None,
        vip: vip(index),
        headless: false,
        ports: vec![port(8082, Some("http"), Protocol::Tcp), port(9000, None, Protocol::Tcp)].into(),
        targets: targets.iter().map(|(cluster, ready)| target(cluster, *ready)).collect(),
    }
}

fn headless(spec: NameSpec) -> NameSpec {
    NameSpec { headless: true, ..spec }
}

fn resources(names: impl IntoIterator<Item = NameSpec>) -> Resources<ClusterResource> {
    let this = ClusterResource::Itself(
        SelfSpec {
            cluster: ClusterName::parse("cluster-1").unwrap(),
            trust_domain: TrustDomain::parse("org.example").unwrap(),
            locality: Locality::default(),
        }
        .into(),
    );
    let domain = |domain: &str| {
        let (domain, gns) = (Domain::parse(domain).unwrap(), "acme".parse().unwrap());
        ClusterResource::Domain(DomainSpec { domain, gns, members: BTreeSet::new() }.into())
    };
    let fixed = [this, domain("acme.example.com"), domain("empty.example.com")];
    let all = fixed.into_iter().chain(names.into_iter().map(|name| ClusterResource::Name(name.into())));
    all.map(|resource| (resource.key(), resource)).collect()
}

/// `catalog` in cluster-2 only, with nothing ready; `db` with a pod in each cluster; `lone`, headless without pods.
fn example() -> Resources<ClusterResource> {
    use NameKind::{Pod, Service, ServiceInCluster};
    resources([
        name("catalog.acme.example.com", Service, 1, &[("cluster-2", 0)]),
        name("catalog.cluster-2.acme.example.com", ServiceInCluster, 2, &[("cluster-2", 0)]),
        headless(name("db.acme.example.com", Service, 3, &[("cluster-1", 1), ("cluster-2", 1)])),
        headless(name("db.cluster-2.acme.example.com", ServiceInCluster, 4, &[("cluster-2", 1)])),
        name("db-0.db.acme.example.com", Pod, 5, &[("cluster-1", 1)]),
        name("db-1.db.acme.example.com", Pod, 6, &[("cluster-2", 0)]),
        headless(name("lone.acme.example.com", Service, 7, &[])),
    ])
}

fn zone() -> Zone {
    build(&example(), Generation::new(42), &AddressMode::Allocated, None)
}

/// A headless service with this many pods, for answers that have no room.
fn crowd(pods: u32) -> Zone {
    use NameKind::{Pod, Service};
    let service = headless(name("crowd.acme.example.com", Service, 1, &[]));
    let pods = (0..pods).map(|n| name(&format!("p{n}.crowd.acme.example.com"), Pod, 100 + n, &[]));
    build(&resources([service].into_iter().chain(pods)), Generation::new(1), &AddressMode::Allocated, None)
}

fn question(name: &str, kind: RecordType) -> Query {
    Query::query(Name::from_ascii(name).unwrap(), kind)
}

/// A query without EDNS.
fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question(name, kind));
    message
}

/// A query with EDNS.
fn edns_query(name: &str, kind: RecordType, payload: u16) -> Message {
    let mut message = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}
