use super::*;
use tombolo_model::{
    Locality, TrustDomain,
    snapshot::{GatewayResource, Resource as _},
};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}
fn itself() -> SelfSpec {
    SelfSpec {
        cluster: ClusterName::parse("c1").unwrap(),
        trust_domain: TrustDomain::parse("acme").unwrap(),
        locality: Locality::default(),
    }
}

#[test]
fn each_role_takes_its_own_peers() {
    use GatewayRole::*;
    for (role, peer, allowed) in [
        (Egress, "spiffe://acme/cluster/c1/ns/a/sa/b", true),
        (Egress, "spiffe://acme/cluster/c2/ns/a/sa/b", false),
        (Egress, "spiffe://acme/cluster/c1/gateway/sidecar", false),
        (Egress, "spiffe://other/cluster/c1/ns/a/sa/b", false),
        (Ingress, "spiffe://acme/cluster/c2/gateway/egress", true),
        (Ingress, "spiffe://acme/cluster/c2/ns/a/sa/b", false),
        (Ingress, "spiffe://acme/cluster/c2/gateway/ingress", false),
        (Ingress, "spiffe://other/cluster/c2/gateway/egress", false),
        (Sidecar, "spiffe://acme/cluster/c1/gateway/ingress", true),
        (Sidecar, "spiffe://acme/cluster/c1/gateway/egress", true),
        (Sidecar, "spiffe://acme/cluster/c2/gateway/ingress", false),
        (Sidecar, "spiffe://acme/cluster/c1/gateway/sidecar", false),
        (Sidecar, "spiffe://acme/cluster/c1/ns/a/sa/b", false),
        (Sidecar, "spiffe://acme/cluster/c1/agent", false),
    ] {
        let result = tunnel_peer(role, &itself(), &id(peer));
        assert_eq!(result.is_ok(), allowed, "{role} {peer}");
        assert!(allowed || result.unwrap_err().reason == Reason::WrongIdentity);
    }
}

#[test]
fn a_cluster_speaks_for_itself_only() {
    let peer = id("spiffe://acme/cluster/c2/gateway/egress");
    let own = id("spiffe://acme/cluster/c2/ns/a/sa/b");
    assert_eq!(speaks_for(&peer, Some(&own)), Ok(&own));
    let other = id("spiffe://acme/cluster/c3/ns/a/sa/b");
    assert_eq!(speaks_for(&peer, Some(&other)).unwrap_err().reason, Reason::WrongIdentity);
    assert_eq!(speaks_for(&peer, None).unwrap_err().reason, Reason::BadRequest);
}

#[test]
fn a_gateway_brings_those_whose_way_leads_through_it() {
    let ingress = "spiffe://acme/cluster/c1/gateway/ingress";
    let egress = "spiffe://acme/cluster/c1/gateway/egress";
    let (own, other) = ("spiffe://acme/cluster/c1/ns/a/sa/b", "spiffe://acme/cluster/c2/ns/a/sa/b");
    for (peer, source, allowed) in [
        (egress, own, true),
        (egress, other, false),
        (ingress, other, true),
        (ingress, own, false),
        (ingress, "spiffe://rival/cluster/c2/ns/a/sa/b", false),
        ("spiffe://rival/cluster/c1/gateway/ingress", other, false),
        ("spiffe://acme/cluster/c2/gateway/ingress", other, false),
        ("spiffe://acme/cluster/c2/gateway/egress", own, false),
        ("spiffe://acme/cluster/c1/gateway/sidecar", own, false),
        (own, own, false),
    ] {
        let (peer, source) = (id(peer), id(source));
        let result = brings(&itself(), &peer, Some(&source));
        assert_eq!(result.is_ok(), allowed, "{peer} for {source}");
        assert!(allowed || result.unwrap_err().reason == Reason::WrongIdentity);
    }
    assert_eq!(brings(&itself(), &id(egress), None).unwrap_err().reason, Reason::BadRequest);
}

#[test]
fn only_callers_reach_an_export() {
    let (c1, c2) = (ClusterName::parse("c1").unwrap(), ClusterName::parse("c2").unwrap());
    let name = GlobalName::parse("a.acme.com").unwrap();
    let spec = ExportSpec {
        name: name.clone(),
        callers: [c1.clone()].into(),
        ports: vec![ExportPort { port: 80, endpoints: vec![] }].into(),
    };
    let all = [GatewayResource::Itself(itself().into()), GatewayResource::Export(spec.into())];
    let table = crate::table::build(&all.into_iter().map(|r| (r.key(), r)).collect()).unwrap();
    let why = |caller, name, port| export(&table, caller, name, port).map(|(_, at)| at).map_err(|r| r.reason);
    assert_eq!(why(&c1, &name, 80), Ok(0));
    assert_eq!(why(&c1, &name, 81), Err(Reason::NotExported));
    assert_eq!(why(&c2, &name, 80), Err(Reason::NotACaller));
    assert_eq!(why(&c2, &name, 81), Err(Reason::NotACaller));
    assert_eq!(why(&c1, &GlobalName::parse("b.acme.com").unwrap(), 80), Err(Reason::NotExported));
}
