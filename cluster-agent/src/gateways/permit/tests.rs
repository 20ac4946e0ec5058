use super::*;
use tombolo_wire::version::Hello;

const IP: &str = "10.0.0.7";

fn caller(namespace: &str, account: &str, pod: &str) -> Caller {
    Caller {
        namespace: namespace.parse().unwrap(),
        account: account.parse().unwrap(),
        pod: pod.parse().unwrap(),
        uid: format!("uid-{pod}"),
        node: Some("n1".parse().unwrap()),
    }
}

fn pod(caller: &Caller, addresses: &[&str]) -> PodObject {
    PodObject {
        namespace: caller.namespace.clone(),
        name: caller.pod.clone(),
        uid: caller.uid.clone().into(),
        node: Some("n1".parse().unwrap()),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        host_network: false,
        account: caller.account.clone(),
    }
}

fn pods(all: impl IntoIterator<Item = PodObject>) -> Pods {
    all.into_iter().collect()
}

fn hello(role: GatewayRole, caller: &Caller) -> GatewayHello {
    GatewayHello::new(
        Hello::current("tombolo-gateway"),
        caller.instance(),
        role,
        format!("{IP}:15008").parse().unwrap(),
    )
}

fn own() -> NamespaceName {
    "tombolo-system".parse().unwrap()
}

/// What a pod of this account, known with its address, is told that says this.
fn tried(
    caller: &Caller,
    role: GatewayRole,
    say: impl Fn(&mut GatewayHello),
) -> Result<GatewayHello, Denied> {
    let mut hello = hello(role, caller);
    say(&mut hello);
    permit(hello, caller, &own(), &pods([pod(caller, &[IP, "fd00::7"])]))
}

#[test]
fn each_may_be_its_own() {
    for role in [GatewayRole::Egress, GatewayRole::Ingress, GatewayRole::Node] {
        let caller = caller("tombolo-system", &format!("tombolo-{role}"), "g-1");
        let permitted = tried(&caller, role, |hello| {
            hello.serves = BTreeSet::from(["10.9.9.9".parse().unwrap()]);
            hello.workloads = BTreeSet::from([("a".parse().unwrap(), "b".parse().unwrap())]);
            hello.node = Some("another".parse().unwrap());
            hello.admin = Some("10.9.9.9:1".parse().unwrap());
            hello.beside = BTreeSet::from(["10.9.9.9".parse().unwrap(), "fd00::7".parse().unwrap()]);
        });
        let permitted = permitted.unwrap();
        assert!(permitted.serves.is_empty() && permitted.workloads.is_empty() && permitted.admin.is_none());
        let beside: &[IpAddr] = if role == GatewayRole::Egress { &["fd00::7".parse().unwrap()] } else { &[] };
        assert!(permitted.beside.iter().eq(beside), "{role}: {:?}", permitted.beside);
        let node = (role == GatewayRole::Node).then(|| "n1".parse().unwrap());
        assert_eq!(permitted.node, node, "{role}: the token's node, whatever it says");
    }
    let cart = caller("shop", "cart", "cart-1");
    let said = |hello: &mut GatewayHello| {
        hello.serves = BTreeSet::from([IP.parse().unwrap(), "fd00::7".parse().unwrap()]);
        hello.workloads = BTreeSet::from([("shop".parse().unwrap(), "cart".parse().unwrap())]);
        hello.admin = Some(format!("{IP}:15021").parse().unwrap());
    };
    let permitted = tried(&cart, GatewayRole::Sidecar, said).unwrap();
    assert!(permitted.serves.len() == 2 && permitted.workloads.len() == 1 && permitted.admin.is_some());
}

#[test]
fn other_instances() {
    let cart = caller("shop", "cart", "cart-1");
    for other in ["shop.cart-2", "cart-1", "shop2.cart-1", ""] {
        let denied = tried(&cart, GatewayRole::Sidecar, |hello| hello.instance = other.to_owned());
        let expected = "shop.cart-1".to_owned();
        assert_eq!(denied, Err(Denied::Instance { expected, found: other.to_owned() }));
    }
}

#[test]
fn other_accounts() {
    for role in [GatewayRole::Egress, GatewayRole::Ingress, GatewayRole::Node] {
        for (namespace, account) in [
            ("shop", format!("tombolo-{role}")),
            ("tombolo-system", "tombolo-agent".to_owned()),
            ("tombolo-system", "default".to_owned()),
            ("tombolo-system", format!("tombolo-{role}-2")),
        ] {
            let caller = caller(namespace, &account, "g-1");
            let denied = tried(&caller, role, |_| {}).unwrap_err();
            assert!(matches!(denied, Denied::Account { .. }), "{role} {namespace}/{account}: {denied}");
        }
    }
    let egress = caller("tombolo-system", "tombolo-egress", "g-1");
    assert!(matches!(tried(&egress, GatewayRole::Ingress, |_| {}), Err(Denied::Account { .. })));
}

#[test]
fn other_addresses() {
    let cart = caller("shop", "cart", "cart-1");
    let egress = caller("tombolo-system", "tombolo-egress", "g-1");
    for (caller, role) in [(&cart, GatewayRole::Sidecar), (&egress, GatewayRole::Egress)] {
        for other in ["10.0.0.8:15008", "0.0.0.0:15008", "127.0.0.1:15008"] {
            let denied = tried(caller, role, |hello| hello.tunnel = other.parse().unwrap());
            assert!(matches!(denied, Err(Denied::Address { option: "--tunnel", .. })), "{other}");
        }
    }
    let serves = |hello: &mut GatewayHello| hello.serves = BTreeSet::from(["10.0.0.8".parse().unwrap()]);
    let denied = tried(&cart, GatewayRole::Sidecar, serves);
    assert!(matches!(denied, Err(Denied::Address { option: "--serve", .. })));
}

#[test]
fn other_workloads() {
    let cart = caller("shop", "cart", "cart-1");
    for (namespace, account) in [("shop", "catalog"), ("other", "cart")] {
        let denied = tried(&cart, GatewayRole::Sidecar, |hello| {
            hello.workloads = BTreeSet::from([(namespace.parse().unwrap(), account.parse().unwrap())]);
        });
        assert!(matches!(denied, Err(Denied::Workload { .. })), "{namespace}/{account}");
    }
    let denied = tried(&cart, GatewayRole::Sidecar, |hello| hello.explicit = true);
    assert_eq!(denied, Err(Denied::Explicit));
}

#[test]
fn pods_that_are_not_known_yet() {
    let cart = caller("shop", "cart", "cart-1");
    let say = || hello(GatewayRole::Sidecar, &cart);
    let not_known = Err(Denied::NotKnown { instance: "shop.cart-1".to_owned() });
    assert_eq!(permit(say(), &cart, &own(), &Pods::default()), not_known);
    assert_eq!(permit(say(), &cart, &own(), &pods([pod(&cart, &[])])), not_known, "without an address");
    // What is known is the pod that had the name before.
    let before = PodObject { uid: "other".into(), ..pod(&cart, &[IP]) };
    assert_eq!(permit(say(), &cart, &own(), &pods([before])), not_known);
    let before = PodObject { account: "admin".parse().unwrap(), ..pod(&cart, &[IP]) };
    assert_eq!(permit(say(), &cart, &own(), &pods([before])), not_known);
}

#[test]
fn nodes_networks() {
    let cart = caller("shop", "cart", "cart-1");
    let shared = |caller: &Caller| pods([PodObject { host_network: true, ..pod(caller, &[IP]) }]);
    let denied = permit(hello(GatewayRole::Sidecar, &cart), &cart, &own(), &shared(&cart));
    assert_eq!(denied, Err(Denied::HostNetwork { instance: "shop.cart-1".to_owned() }));
    let node = caller("tombolo-system", "tombolo-node", "node-x");
    let permitted = permit(hello(GatewayRole::Node, &node), &node, &own(), &shared(&node));
    assert_eq!(permitted.unwrap().node.unwrap().as_str(), "n1");
    // An API server that does not say it in the token: what the pod says. Where that does not either, nothing goes.
    let older = Caller { node: None, ..node.clone() };
    let permitted = permit(hello(GatewayRole::Node, &older), &older, &own(), &shared(&older));
    assert_eq!(permitted.unwrap().node.unwrap().as_str(), "n1");
    let nowhere = pods([PodObject { node: None, ..pod(&older, &[IP]) }]);
    let denied = permit(hello(GatewayRole::Node, &older), &older, &own(), &nowhere);
    assert!(matches!(denied, Err(Denied::NoNode { .. })));
}
