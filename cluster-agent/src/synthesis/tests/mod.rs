mod steps;

use super::{inventory::Reported, *};
use crate::{
    index::{Index, LocalService},
    source::Files,
};
use tombolo_model::{
    Domain, GlobalName, Locality, Proximity, TrustDomain,
    bounds::whole::SERVICES,
    inventory::{Inventory, ServiceKey},
    snapshot::{EndToEnd, NameKind, PeerSpec, TargetSpec, Vip},
};
use tombolo_wire::version::Hello;

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: cart, annotations: {tombolo.io/service-account: cart}}
spec: {clusterIP: None, ports: [{port: 80, name: http}, {port: 53, protocol: UDP, name: dns}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{port: 8080, name: http}, {port: 53, name: dns, protocol: UDP}]
endpoints:
- {addresses: [10.0.0.1], hostname: cart-0}
- {addresses: [10.0.0.2], hostname: cart-1}
- {addresses: [10.0.0.3], hostname: cart-2, conditions: {ready: false}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, annotations: {tombolo.io/selector: uid=1001}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shopping}
"#;

/// What is reported, worked out whole.
fn report(local: Local<'_>, takes_calls: bool) -> (Inventory, Option<Problem>) {
    let sidecars = Arc::new(Sidecars::of(local.gateways, local.view));
    let (all, left) = Reported::default().next(local, &sidecars, takes_calls);
    (Arc::unwrap_or_clone(all), left)
}

fn inventory(local: Local<'_>) -> (Inventory, Option<Problem>) {
    report(local, true)
}

/// The same of a cluster that takes no new calls.
fn last_inventory(local: Local<'_>) -> (Inventory, Option<Problem>) {
    report(local, false)
}

fn view(text: &str) -> Arc<View> {
    let mut files = Files::default();
    let mut index = Index::default();
    for change in files.load("f", text.as_bytes()) {
        index.change(change);
    }
    assert_eq!(files.problems(), []);
    Arc::new(index.view())
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn target(cluster_name: &str, proximity: Proximity, service: &str) -> TargetSpec {
    TargetSpec {
        cluster: cluster(cluster_name),
        proximity,
        services: [ServiceKey::try_from(format!("default/{service}")).unwrap()].into(),
        ports: [80].into(),
        ready: 1,
        end_to_end: EndToEnd::All,
        accounts: [("default".parse().unwrap(), service.parse().unwrap())].into(),
    }
}

fn name(text: &str, index: u8, kind: NameKind, targets: Vec<TargetSpec>) -> NameSpec {
    NameSpec {
        name: GlobalName::parse(text).unwrap(),
        domain: Domain::parse("acme.example.com").unwrap(),
        kind,
        pod: (kind == NameKind::Pod).then(|| text.split('.').next().unwrap().parse().unwrap()),
        vip: Vip {
            v4: [240, 0, 0, index].into(),
            v6: format!("fd74:6f6d:6265:6c6f::{index:x}").parse().unwrap(),
        },
        headless: false,
        ports: vec![].into(),
        targets,
    }
}

fn snapshot() -> Resources<ClusterResource> {
    let trust_domain = TrustDomain::parse("acme.internal").unwrap();
    let both = BTreeSet::from([cluster("c1"), cluster("c2")]);
    [
        ClusterResource::Itself(
            SelfSpec {
                cluster: cluster("c1"),
                trust_domain: trust_domain.clone(),
                locality: Locality::default(),
            }
            .into(),
        ),
        ClusterResource::Bundle(
            TrustBundleSpec { trust_domain, roots: vec![], clusters: BTreeMap::new() }.into(),
        ),
        ClusterResource::Peer(
            PeerSpec {
                cluster: cluster("c2"),
                proximity: Proximity::Region,
                ingress: BTreeSet::from(["192.0.2.1:15008".to_owned()]),
            }
            .into(),
        ),
        ClusterResource::Domain(
            DomainSpec {
                domain: "acme.example.com".parse().unwrap(),
                gns: "acme".parse().unwrap(),
                members: both,
            }
            .into(),
        ),
        ClusterResource::Name(
            name(
                "cart.acme.example.com",
                1,
                NameKind::Service,
                vec![target("c2", Proximity::Region, "cart"), target("c1", Proximity::Elsewhere, "cart")],
            )
            .into(),
        ),
        ClusterResource::Name(
            name(
                "cart-1.cart.acme.example.com",
                2,
                NameKind::Pod,
                vec![target("c1", Proximity::Cluster, "cart")],
            )
            .into(),
        ),
        ClusterResource::Name(
            name(
                "catalog.acme.example.com",
                3,
                NameKind::Service,
                vec![target("c2", Proximity::Region, "catalog")],
            )
            .into(),
        ),
    ]
    .into_iter()
    .map(|resource| (resource.key(), resource))
    .collect()
}

fn hello(role: GatewayRole, port: u16) -> GatewayHello {
    GatewayHello::new(Hello::current("test"), format!("{role}-{port}"), role, ([127, 0, 0, 1], port).into())
}

fn gateways() -> Gateways {
    let machine = GatewayHello {
        serves: BTreeSet::from(["10.0.0.2".parse().unwrap()]),
        explicit: true,
        ..hello(GatewayRole::Sidecar, 1)
    };
    let pod = GatewayHello {
        workloads: BTreeSet::from([("default".parse().unwrap(), "shopping".parse().unwrap())]),
        ..hello(GatewayRole::Sidecar, 2)
    };
    [machine, pod, hello(GatewayRole::Egress, 3), hello(GatewayRole::Ingress, 4)]
        .into_iter()
        .map(|hello| (hello.instance.clone(), Gateway { hello, presence: Presence::Connected }))
        .collect()
}

#[test]
fn a_pod_that_is_gone_stands_before_nobody() {
    let serving = |pod: Option<&str>| {
        let hello = GatewayHello {
            instance: "shop.cart-0".to_owned(),
            serves: BTreeSet::from(["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()]),
            pod: pod.map(str::to_owned),
            ..hello(GatewayRole::Sidecar, 1)
        };
        Gateways::from([(hello.instance.clone(), Gateway { hello, presence: Presence::Connected })])
    };
    let there = |name: &str, uid: &str, address: &str| {
        let mut index = crate::index::Index::default();
        index.apply(crate::source::Object::Pod(crate::source::PodObject {
            namespace: "shop".parse().unwrap(),
            name: name.parse().unwrap(),
            uid: uid.into(),
            node: None,
            addresses: [address.parse().unwrap()].into(),
            host_network: false,
            account: "cart".parse().unwrap(),
        }));
        index.view()
    };
    let served = |pod: Option<&str>, view: &View| {
        let sidecars = super::Sidecars::of(&serving(pod), view);
        ["10.0.0.2", "10.0.0.3"].map(|address| sidecars.tunnel(address.parse().unwrap()).is_some())
    };
    // its own pod, at the address that this has
    assert_eq!(served(Some("one"), &there("cart-0", "one", "10.0.0.2")), [true, false]);
    // another pod of its name has its address, or another pod of another name
    assert_eq!(served(Some("one"), &there("cart-0", "two", "10.0.0.2")), [false, false]);
    assert_eq!(served(Some("one"), &there("other-1", "two", "10.0.0.2")), [false, false]);
    // a process of a machine is in no pod; and before any pod is known, what was known of gateways counts
    assert_eq!(served(None, &there("other-1", "two", "10.0.0.2")), [true, true]);
    assert_eq!(served(Some("one"), &View::default()), [true, true]);
}

fn passing(addresses: &[&str]) -> Arc<Results> {
    let results = addresses.iter().map(|a| (Probe { address: a.parse().unwrap(), http: None }, true));
    Arc::new(results.collect())
}

#[test]
fn what_each_gateway_is_told() {
    let (view, passing, gateways) = (view(SHOP), passing(&["10.0.0.1:8080", "10.0.0.2:8080"]), gateways());
    let local = Local {
        view: &view,
        ages: &Ages::new(),
        passing: &passing,
        gateways: &gateways,
        mode: AddressMode::Allocated,
        exposed: &Default::default(),
    };
    let all = synthesize(&snapshot(), local).unwrap();
    for (instance, Gateway { hello, .. }) in &gateways {
        insta::assert_json_snapshot!(format!("gateway_{instance}"), all.for_gateway(hello));
    }
    let (now, left_out) = inventory(local);
    assert_eq!(left_out, None);
    insta::assert_json_snapshot!("inventory", now);
    // before a cluster goes, it serves the same, but takes no new calls
    let (last, _) = last_inventory(local);
    assert!(last.services.keys().eq(now.services.keys()) && last.namespaces == now.namespaces);
    assert!(now.services.values().any(|service| service.ready > 0));
    for (key, service) in &last.services {
        assert_eq!((service.ready, service.total), (0, now.services[key].total), "{key}");
        assert!(service.pods.values().all(|pod| !pod.ready), "{key}");
    }
}

#[test]
fn what_others_could_not_hold_is_left_out_and_said() {
    let mut many = View::clone(&view(SHOP));
    let mut cart = LocalService::clone(many.services.values().next().unwrap());
    cart.headless = false;
    let cart = Arc::new(cart);
    many.services.values_mut().for_each(|service| *service = Arc::clone(&cart));
    for n in 0..=SERVICES {
        many.services.insert(ServiceKey::try_from(format!("default/s{n}")).unwrap(), Arc::clone(&cart));
    }
    let (view, passing, gateways) = (Arc::new(many), passing(&[]), Gateways::new());
    // the oldest and the newest are known by their ages
    let key = |text: &str| ServiceKey::try_from(text.to_owned()).unwrap();
    let ages = Ages::from_iter([(key("default/cart"), 2), (key("default/s9"), 1)]);
    let local = Local {
        view: &view,
        ages: &ages,
        passing: &passing,
        gateways: &gateways,
        mode: AddressMode::Allocated,
        exposed: &Default::default(),
    };
    let (told, left_out) = inventory(local);
    assert_eq!(told.services.len(), SERVICES);
    assert!(
        !told.services.contains_key(&key("default/cart")) && !told.services.contains_key(&key("default/s9"))
    );
    let said = left_out.unwrap().message;
    assert!(said.contains("left out, 2 services, of default/s9 among others"), "{said}");
}

#[test]
fn nothing_before_the_first_snapshot() {
    let view = Arc::new(View::default());
    let (passing, gateways) = (Arc::new(Results::new()), gateways());
    let local = Local {
        view: &view,
        ages: &Ages::new(),
        passing: &passing,
        gateways: &gateways,
        mode: AddressMode::Allocated,
        exposed: &Default::default(),
    };
    assert_eq!(synthesize(&Resources::new(), local), None);
    assert!(validate(&Resources::new(), &cluster("c1")).unwrap_err().contains("lacks"));
    assert!(validate(&snapshot(), &cluster("c2")).unwrap_err().contains("of cluster c1, not c2"));
    assert_eq!(validate(&snapshot(), &cluster("c1")), Ok(()));
}

#[test]
fn explicit_addresses_and_names_without_room() {
    let view = view(SHOP);
    let (passing, gateways) = (Arc::new(Results::new()), gateways());
    let mode = AddressMode::Explicit("127.101.0.0/30".parse().unwrap());
    let all = synthesize(
        &snapshot(),
        Local {
            view: &view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &gateways,
            mode,
            exposed: &Default::default(),
        },
    )
    .unwrap();
    let addresses: Vec<String> = all
        .resources
        .values()
        .filter_map(|resource| match resource {
            GatewayResource::Route(route) => Some(format!("{} {:?}", route.name, route.addresses)),
            _ => None,
        })
        .collect();
    assert_eq!(
        addresses,
        ["cart-1.cart.acme.example.com {127.101.0.2}", "cart.acme.example.com {127.101.0.1}"]
    );
    assert_eq!(all.problems().count(), 1);
    assert_eq!(all.problems().next().unwrap().subject, "catalog.acme.example.com");
}

#[test]
fn readiness_needs_slice_and_check() {
    let view = view(SHOP);
    let gateways = Gateways::new();
    let ready = |addresses: &[&str]| {
        let passing = passing(addresses);
        let local = Local {
            view: &view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        let (inventory, _) = inventory(local);
        let record = inventory.services.values().next().unwrap().clone();
        let Some(GatewayResource::Export(export)) = synthesize(&snapshot(), local)
            .unwrap()
            .resources
            .get(&tombolo_model::snapshot::ResourceKey::new("export", "cart.acme.example.com"))
            .cloned()
        else {
            panic!("no export")
        };
        let spec: Vec<bool> = export.ports[0].endpoints.iter().map(|e| e.ready).collect();
        (record.ready, record.total, spec)
    };
    // The UDP port does not count: it is not carried.
    assert_eq!(ready(&[]), (0, 3, vec![false, false, false]));
    assert_eq!(ready(&["10.0.0.1:8080"]), (1, 3, vec![true, false, false]));
    assert_eq!(
        ready(&["10.0.0.3:8080"]),
        (0, 3, vec![false, false, false]),
        "the slice says it is not ready"
    );
}

#[test]
fn sidecars_count_while_no_endpoint_is_ready() {
    let (view, gateways) = (view(SHOP), gateways());
    let tunnelled = |addresses: &[&str]| {
        let passing = passing(addresses);
        let local = Local {
            view: &view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        let record = inventory(local).0.services.into_values().next().unwrap();
        (record.tunnelled, record.ready)
    };
    // 10.0.0.2 is behind a sidecar
    assert_eq!(tunnelled(&["10.0.0.1:8080", "10.0.0.2:8080"]), (1, 2));
    assert_eq!(tunnelled(&["10.0.0.1:8080"]), (0, 1));
    assert_eq!(tunnelled(&[]), (1, 0));
}

#[test]
fn a_connected_sidecar_is_preferred() {
    let serves = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
    let gateway = |port, connected| {
        let hello = GatewayHello { serves: serves.clone(), ..hello(GatewayRole::Sidecar, port) };
        let presence = if connected { Presence::Connected } else { Presence::Vanished };
        (hello.instance.clone(), Gateway { hello, presence })
    };
    let tunnel =
        |gateways: Gateways| Sidecars::of(&gateways, &View::default()).tunnel("10.0.0.1".parse().unwrap());
    let port = |port| Some(([127, 0, 0, 1], port).into());
    assert_eq!(tunnel(Gateways::from([gateway(1, false), gateway(2, true)])), port(2));
    assert_eq!(tunnel(Gateways::from([gateway(1, true), gateway(2, true)])), port(1));
    assert_eq!(tunnel(Gateways::from([gateway(2, false)])), port(2), "gone for a moment withdraws nothing");
}

/// Its pods outlive it: callers rely on it no more, it still gets the last calls, and then there is a way without it.
#[test]
fn a_nodes_proxy_that_leaves_is_not_relied_on() {
    let (index, mut files) = (&mut Index::default(), Files::default());
    let labels = BTreeMap::from([("tombolo.io/capture".to_owned(), "node".to_owned())]);
    let namespace =
        crate::source::NamespaceObject { name: "default".parse().unwrap(), labels, ending: false };
    index.apply(crate::source::Object::Namespace(namespace));
    for change in files.load("f", SHOP.as_bytes()) {
        index.change(change);
    }
    index.apply(crate::source::Object::Pod(crate::source::PodObject {
        namespace: "default".parse().unwrap(),
        name: "cart-0".parse().unwrap(),
        uid: "one".into(),
        node: Some("n1".parse().unwrap()),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        host_network: false,
        account: "cart".parse().unwrap(),
    }));
    let (view, passing) = (Arc::new(index.view()), passing(&["10.0.0.1:8080"]));
    let proxy = |port, presence| {
        let hello = GatewayHello { node: Some("n1".parse().unwrap()), ..hello(GatewayRole::Node, port) };
        (hello.instance.clone(), Gateway { hello, presence })
    };
    let way = |proxies: &[(u16, Presence)]| {
        let gateways = proxies.iter().map(|(port, presence)| proxy(*port, *presence)).collect();
        let local = Local {
            view: &view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        let tunnelled = inventory(local).0.services.into_values().next().unwrap().tunnelled;
        let all = synthesize(&snapshot(), local).unwrap();
        let key = ResourceKey::new("export", "cart.acme.example.com");
        let Some(GatewayResource::Export(export)) = all.resources.get(&key) else { panic!("no export") };
        let endpoint = &export.ports[0].endpoints[0];
        // the proxy itself goes on being told of what is behind it
        let told = gateways.values().all(|gateway| {
            let told = all.for_gateway(&gateway.hello);
            told.contains_key(&key) == (Some(gateway.hello.tunnel.into()) == endpoint.tunnel)
                && told.keys().any(|key| key.kind() == "workload")
        });
        assert!(told, "{proxies:?}");
        (tunnelled, endpoint.tunnel.map(|tunnel| tunnel.socket().port()), endpoint.leaving)
    };
    assert_eq!(way(&[(1, Presence::Connected)]), (1, Some(1), false));
    assert_eq!(way(&[(1, Presence::Leaving)]), (0, Some(1), true));
    assert_eq!(way(&[(1, Presence::Leaving), (2, Presence::Vanished)]), (1, Some(2), false));
    assert_eq!(way(&[(1, Presence::Leaving), (2, Presence::Connected)]), (1, Some(2), false));
    assert_eq!(way(&[]), (0, None, false));
}

/// As in Kubernetes: no checks, pods with an address of each family, and one on its way out.
fn rolling(first_is_ready: bool) -> Arc<View> {
    let slice = |name: &str, family: &str, endpoints: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: \
             {{kubernetes.io/service-name: cart}}}}\naddressType: {family}\nports: [{{port: 8080, name: http}}]\n\
             endpoints:\n{endpoints}"
        )
    };
    let endpoint = |address: &str, pod: &str, conditions: &str| {
        format!(
            "- {{addresses: ['{address}'], targetRef: {{kind: Pod, name: {pod}}}, conditions: {conditions}}}\n"
        )
    };
    let (ready, leaving) =
        (format!("{{ready: {first_is_ready}}}"), "{ready: false, serving: true, terminating: true}");
    let (v4, v6) = (
        endpoint("10.0.0.1", "a", &ready) + &endpoint("10.0.0.2", "b", leaving),
        endpoint("fd00::1", "a", &ready) + &endpoint("fd00::2", "b", leaving),
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, annotations: {tombolo.io/health-check: none}}\n\
                   spec: {ports: [{port: 80, name: http}]}\n";
    view(&format!("{service}{}{}", slice("v4", "IPv4", &v4), slice("v6", "IPv6", &v6)))
}

#[test]
fn a_pod_counts_once_and_the_last_one_serves_to_its_end() {
    let (passing, gateways) = (passing(&[]), Gateways::new());
    let ready = |view: &Arc<View>| {
        let local = Local {
            view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        let record = inventory(local).0.services.into_values().next().unwrap();
        let all = synthesize(&snapshot(), local).unwrap();
        let key = ResourceKey::new("export", "cart.acme.example.com");
        let Some(GatewayResource::Export(export)) = all.resources.get(&key) else { panic!("no export") };
        let taken = export.ports[0].endpoints.iter().filter(|endpoint| endpoint.ready);
        (record.ready, record.total, taken.map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>())
    };
    let (count, total, taken) = ready(&rolling(true));
    assert_eq!((count, total), (1, 2), "pods, not addresses");
    assert_eq!(taken, ["10.0.0.1:8080", "[fd00::1]:8080"]);
    let (count, _, taken) = ready(&rolling(false));
    assert_eq!(count, 0, "other clusters are preferred");
    assert_eq!(taken, ["10.0.0.2:8080", "[fd00::2]:8080"], "who comes still is served");
}

#[test]
fn egress_gateways_alone_are_told_where_to_take_connections() {
    let (view, passing, gateways, ages) = (view(SHOP), passing(&[]), gateways(), Ages::new());
    let exposure = crate::expose::Exposure { ports: [(80, 16_384)].into(), ..Default::default() };
    let exposed =
        Arc::new(crate::expose::Exposed::from([("cart.acme.example.com".parse().unwrap(), exposure)]));
    let local = |exposed| Local {
        view: &view,
        ages: &ages,
        passing: &passing,
        gateways: &gateways,
        mode: AddressMode::Allocated,
        exposed,
    };
    let told = |all: &Synthesis, role| {
        let key = ResourceKey::new("route", "cart.acme.example.com");
        let hello = gateways.values().map(|gateway| &gateway.hello).find(|hello| hello.role == role).unwrap();
        match all.for_gateway_at(hello, &key) {
            Some(resource @ GatewayResource::Route(_)) => {
                let json = serde_json::to_string(&resource).unwrap();
                let GatewayResource::Route(route) = serde_json::from_str(&json).unwrap() else {
                    panic!("{json}")
                };
                route.captured_at.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    let nowhere = Arc::default();
    let state = tombolo_feed::State {
        generation: tombolo_model::Generation::new(1),
        resources: Arc::new(snapshot()),
        previous: tombolo_model::Generation::ZERO,
        changes: Default::default(),
    };
    let mut steps = Synthesizer::default();
    steps.step(&state, local(&nowhere)).unwrap();
    assert_eq!(told(steps.synthesis(), GatewayRole::Egress), [].into());
    let changed = steps.step(&state, local(&exposed)).unwrap();
    assert_eq!(
        changed,
        Changed::Keys([ResourceKey::new("route", "cart.acme.example.com")].into()),
        "and nothing else"
    );
    assert_eq!(told(steps.synthesis(), GatewayRole::Egress), [(80, 16_384)].into());
    assert_eq!(told(steps.synthesis(), GatewayRole::Sidecar), [].into());
}
