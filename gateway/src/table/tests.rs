use super::*;
use tombolo_model::{
    Locality,
    inventory::{PortSpec, Protocol},
    snapshot::{ExportPort, RouteTarget},
};

fn name(text: &str) -> GlobalName {
    GlobalName::parse(text).unwrap()
}
fn cluster(text: &str) -> ClusterName {
    ClusterName::parse(text).unwrap()
}
fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}
fn itself() -> GatewayResource {
    GatewayResource::Itself(
        SelfSpec {
            cluster: cluster("c1"),
            trust_domain: TrustDomain::parse("acme").unwrap(),
            locality: Locality::default(),
        }
        .into(),
    )
}
fn port(port: u16, protocol: Protocol) -> PortSpec {
    PortSpec { port, protocol, name: None, app_protocol: None }
}
fn route(text: &str, address: &str, target: &str, identity: &str) -> GatewayResource {
    GatewayResource::Route(
        RouteSpec {
            name: name(text),
            addresses: [address.parse().unwrap()].into(),
            ports: vec![port(80, Protocol::Tcp), port(53, Protocol::Udp)].into(),
            captured_at: Default::default(),
            targets: vec![RouteTarget {
                cluster: cluster(target),
                proximity: Proximity::Elsewhere,
                ports: [80].into(),
                ready: 1,
                end_to_end: EndToEnd::All,
                identities: [id(identity)].into(),
            }],
        }
        .into(),
    )
}
fn export(tunnel: Option<&str>, identity: Option<&str>) -> GatewayResource {
    let endpoint = EndpointSpec {
        address: "10.0.0.1:80".parse().unwrap(),
        ready: true,
        tunnel: tunnel.map(|t| t.parse().unwrap()),
        leaving: false,
        identity: identity.map(id),
    };
    GatewayResource::Export(
        ExportSpec {
            name: name("a.acme.com"),
            callers: [cluster("c1")].into(),
            ports: vec![ExportPort { port: 80, endpoints: vec![endpoint] }].into(),
        }
        .into(),
    )
}
fn all(resources: impl IntoIterator<Item = GatewayResource>) -> Resources<GatewayResource> {
    resources.into_iter().map(|r| (r.key(), r)).collect()
}

const IN_C2: &str = "spiffe://acme/cluster/c2/ns/default/sa/a";
const IN_C1: &str = "spiffe://acme/cluster/c1/ns/default/sa/a";

#[test]
fn finds_by_address_and_by_name() {
    let table = build(&all([itself(), route("a.acme.com", "240.0.0.1", "c2", IN_C2)])).unwrap();
    let found = table.route_to("240.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(found.name, name("a.acme.com"));
    assert_eq!(found.ports, BTreeSet::from([80]), "UDP is not carried");
    assert!(table.route(&name("a.acme.com")).is_some());
    assert_eq!(table.addresses().collect::<Vec<_>>(), [("240.0.0.1".parse().unwrap(), 80)]);
    assert!(table.route_to("240.0.0.2".parse().unwrap()).is_none());
}

#[test]
fn an_empty_snapshot_is_an_empty_table() {
    assert_eq!(build(&Resources::new()), Ok(RouteTable::default()));
}

#[test]
fn refuses_what_breaks_trust() {
    // A target in c2 that a workload of c1 could answer for: c1 could then impersonate c2.
    let wrong = build(&all([itself(), route("a.acme.com", "240.0.0.1", "c2", IN_C1)]));
    assert!(matches!(wrong, Err(TableError::WrongCluster { .. })), "{wrong:?}");
    let foreign = "spiffe://other/cluster/c2/ns/default/sa/a";
    let wrong = build(&all([itself(), route("a.acme.com", "240.0.0.1", "c2", foreign)]));
    assert!(matches!(wrong, Err(TableError::ForeignIdentity { .. })), "{wrong:?}");
    let gateway = "spiffe://acme/cluster/c2/gateway/ingress";
    let wrong = build(&all([itself(), route("a.acme.com", "240.0.0.1", "c2", gateway)]));
    assert!(matches!(wrong, Err(TableError::WrongCluster { .. })), "{wrong:?}");
}

#[test]
fn refuses_what_is_ambiguous() {
    let two = [
        itself(),
        route("a.acme.com", "240.0.0.1", "c2", IN_C2),
        route("b.acme.com", "240.0.0.1", "c2", IN_C2),
    ];
    assert!(matches!(build(&all(two)), Err(TableError::SharedAddress { .. })));
    assert_eq!(build(&all([route("a.acme.com", "240.0.0.1", "c2", IN_C2)])), Err(TableError::NoSelf));
    let mut resources = all([itself()]);
    resources.insert(ResourceKey::new("self", "x"), itself());
    assert!(matches!(build(&resources), Err(TableError::Key { .. })));
}

#[test]
fn knows_the_identities_a_sidecar_needs() {
    let table = build(&all([itself(), export(Some("10.0.0.1:15008"), Some(IN_C1))])).unwrap();
    let wanted = |tunnel: &str| table.wanted_identities(tunnel.parse().unwrap());
    assert_eq!(wanted("10.0.0.1:15008"), BTreeSet::from([id(IN_C1)]));
    assert_eq!(wanted("0.0.0.0:15008"), BTreeSet::from([id(IN_C1)]));
    assert!(wanted("10.0.0.2:15008").is_empty());
    let served = table.served("10.0.0.1:80".parse().unwrap()).unwrap();
    assert_eq!(served.services, BTreeSet::from([(name("a.acme.com"), 80)]));
    assert!(matches!(
        build(&all([itself(), export(Some("10.0.0.1:15008"), None)])),
        Err(TableError::NoIdentity { .. })
    ));
}

#[test]
fn a_peer_has_so_many_addresses_and_no_more() {
    let ingress: BTreeSet<String> = (1..=PEER_ADDRESSES + 5).map(|n| format!("10.0.0.{n}:15443")).collect();
    let peer = |name: &str, ingress: BTreeSet<String>| {
        GatewayResource::Peer(
            PeerSpec { cluster: cluster(name), proximity: Proximity::Elsewhere, ingress }.into(),
        )
    };
    let few: BTreeSet<String> = ingress.iter().take(3).cloned().collect();
    let table = build(&all([itself(), peer("c2", ingress), peer("c3", few.clone())])).unwrap();
    assert_eq!(table.peers()[&cluster("c2")].ingress.len(), PEER_ADDRESSES);
    assert_eq!(table.peers()[&cluster("c3")].ingress, few);
}

#[test]
fn a_captured_port_means_one_name_and_port() {
    let at = |text: &str, address: &str, captured: &[(u16, u16)]| {
        let GatewayResource::Route(mut spec) = route(text, address, "c2", IN_C2) else {
            unreachable!("it makes a route")
        };
        spec.captured_at = captured.iter().copied().collect();
        GatewayResource::Route(spec)
    };
    let build = |routes: Vec<GatewayResource>| build(&all(routes.into_iter().chain([itself()])));
    let table = build(vec![at("a.acme.example", "240.0.0.1", &[(80, 16_384), (81, 16_385)])]).unwrap();
    let (found, port) = table.captured(16_384).unwrap();
    assert_eq!((found.name.as_str(), *port), ("a.acme.example", 80));
    assert_eq!(table.captured_at().collect::<Vec<_>>(), [16_384], "a port that it does not have is none");
    let both = vec![
        at("a.acme.example", "240.0.0.1", &[(80, 16_384)]),
        at("b.acme.example", "240.0.0.2", &[(80, 16_384)]),
    ];
    assert!(matches!(build(both), Err(TableError::SharedPort { port: 16_384, .. })));
}
