//! Steps give what the whole gives, whatever happens in whatever order, and even where steps are missed.

use super::*;
use crate::source::{NamespaceObject, Object, PodObject};
use proptest::prelude::*;
use tombolo_feed::State;
use tombolo_model::{
    Generation,
    intent::CaptureMode,
    snapshot::{CaptureSpec, ResourceKey},
};
use tombolo_wire::session::Changes;

/// A small world that is changed at random.
struct World {
    state: State<ClusterResource>,
    index: Index,
    /// What runs here, before anybody chose of it.
    read: Arc<View>,
    chosen: crate::chosen::Chosen,
    view: Arc<View>,
    passing: Arc<Results>,
    gateways: Gateways,
    exposed: Arc<Exposed>,
}

fn service(number: u8, variant: u8) -> String {
    let endpoints: Vec<String> = (0..variant % 3)
        .map(|e| {
            format!(
                "{{addresses: [10.0.{number}.{e}], hostname: pod-{e}, conditions: {{ready: {}}}}}",
                variant < 6
            )
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, annotations: {{tombolo.io/service-account: a{}}}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{number}, labels: \
         {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{}]\n",
        variant % 2,
        endpoints.join(", ")
    )
}

impl World {
    fn new() -> Self {
        let resources = Arc::new(snapshot());
        let changes = Changes { upserted: resources.keys().cloned().collect(), ..Changes::default() };
        let state = State { generation: Generation::new(1), resources, previous: Generation::ZERO, changes };
        Self {
            state,
            index: Index::default(),
            read: Arc::default(),
            chosen: crate::chosen::Chosen::default(),
            view: Arc::default(),
            passing: Arc::default(),
            gateways: Gateways::new(),
            exposed: Arc::default(),
        }
    }

    fn local<'a>(&'a self, ages: &'a Ages) -> Local<'a> {
        let mode = AddressMode::Explicit("127.101.0.0/29".parse().unwrap());
        let (passing, gateways, exposed) = (&self.passing, &self.gateways, &self.exposed);
        Local { view: &self.view, ages, passing, gateways, mode, exposed }
    }

    /// The controller sends another state.
    fn resource(&mut self, key: ResourceKey, resource: Option<ClusterResource>) {
        let mut resources = (*self.state.resources).clone();
        let mut changes = Changes::default();
        match resource {
            Some(resource) => {
                resources.insert(key.clone(), resource);
                changes.upserted.insert(key);
            }
            None => {
                resources.remove(&key);
                changes.removed.insert(key);
            }
        }
        let previous = self.state.generation;
        self.state = State { generation: previous.next(), resources: Arc::new(resources), previous, changes };
    }

    fn file(&mut self, text: &str, gone: bool) {
        for change in Files::default().load("f", text.as_bytes()) {
            match change {
                crate::source::Change::Apply(object) if gone => drop(self.index.delete(&object.key())),
                change => drop(self.index.change(change)),
            }
        }
        self.read = Arc::new(self.index.view());
    }

    fn change(&mut self, what: u8, a: u8, b: u8) {
        self.make(what, a, b);
        self.view = self.chosen.of(Arc::clone(&self.read), &self.state.resources);
    }

    fn make(&mut self, what: u8, a: u8, b: u8) {
        match what {
            0 | 1 => {
                let full = format!("n{}.acme.example.com", a % 4);
                let key = ResourceKey::new("name", &full);
                let mut targets = vec![target("c2", Proximity::Region, &format!("s{}", b % 3))];
                if b.is_multiple_of(2) {
                    targets.push(target("c1", Proximity::Cluster, &format!("s{}", b % 3)));
                }
                // Some of them have no room in the prefix.
                let spec = name(&full, a % 4 * 3, NameKind::Service, targets);
                self.resource(key, (what == 0).then_some(ClusterResource::Name(spec.into())));
            }
            2 | 3 => {
                let mut passing = (*self.passing).clone();
                let address = format!("10.0.{}.{}:8080", a % 3, b % 3).parse().unwrap();
                passing.insert(Probe { address, http: None }, what == 2);
                self.passing = Arc::new(passing);
            }
            4 => self.file(&service(a % 3, b % 9), b % 4 == 3),
            5 => {
                let text = format!(
                    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: a{}, annotations: \
                     {{tombolo.io/selector: uid={b}}}}}\n",
                    a % 3
                );
                self.file(&text, b.is_multiple_of(3));
            }
            6 => {
                let role = [GatewayRole::Sidecar, GatewayRole::Egress, GatewayRole::Node][usize::from(a % 3)];
                let serves = BTreeSet::from([format!("10.0.{}.0", b % 3).parse().unwrap()]);
                let node = (role == GatewayRole::Node).then(|| format!("n{}", b % 2).parse().unwrap());
                let hello = hello(role, 100 + u16::from(b % 2));
                let hello = GatewayHello { serves, node, explicit: true, ..hello };
                if b.is_multiple_of(5) {
                    self.gateways.remove(&hello.instance);
                } else {
                    let presence = Presence::ALL[usize::from(b % 5) % 3];
                    let gateway = Gateway { hello: hello.clone(), presence };
                    self.gateways.insert(hello.instance, gateway);
                }
            }
            7 => {
                let peer = PeerSpec {
                    cluster: cluster(&format!("c{}", 2 + a % 3)),
                    proximity: Proximity::Region,
                    ingress: BTreeSet::from([format!("192.0.2.{b}:15008")]),
                };
                let key = ResourceKey::new("peer", peer.cluster.as_str());
                self.resource(key, (!b.is_multiple_of(3)).then_some(ClusterResource::Peer(peer.into())));
            }
            8 => {
                let trust_domain = TrustDomain::parse("acme.internal").unwrap();
                let bundle = TrustBundleSpec {
                    trust_domain,
                    roots: vec![format!("root {b}")],
                    clusters: BTreeMap::new(),
                };
                self.resource(ResourceKey::new("bundle", ""), Some(ClusterResource::Bundle(bundle.into())));
            }
            9 => {
                let pod = PodObject {
                    namespace: "default".parse().unwrap(),
                    name: format!("p{}", a % 3).parse().unwrap(),
                    uid: "".into(),
                    node: Some(format!("n{}", b % 2).parse().unwrap()),
                    addresses: [format!("10.0.{}.{}", a % 3, b % 3).parse().unwrap()].into(),
                    host_network: b % 8 == 7,
                    account: format!("a{}", b % 3).parse().unwrap(),
                };
                let pod = Object::Pod(pod);
                if b % 7 == 6 {
                    self.index.delete(&pod.key())
                } else {
                    self.index.apply(pod)
                };
                self.read = Arc::new(self.index.view());
            }
            10 => {
                let mode = if b.is_multiple_of(4) { "none" } else { "node" };
                let labels = BTreeMap::from([("tombolo.io/capture".to_owned(), mode.to_owned())]);
                let name = "default".parse().unwrap();
                self.index.apply(Object::Namespace(NamespaceObject { name, labels, ending: false }));
                self.read = Arc::new(self.index.view());
            }
            11 => {
                let modes = [CaptureMode::Node, CaptureMode::Sidecar, CaptureMode::Gateway];
                let mode = modes[usize::from(b % 3)];
                let capture = CaptureSpec {
                    namespace: "default".parse().unwrap(),
                    mode,
                    gns: "acme".parse().unwrap(),
                    against: BTreeMap::new(),
                };
                let key = ResourceKey::new("capture", "default");
                self.resource(
                    key,
                    (!b.is_multiple_of(4)).then_some(ClusterResource::Capture(capture.into())),
                );
            }
            _ => {
                let members = BTreeSet::from([cluster("c1"), cluster(&format!("c{b}"))]);
                let domain = DomainSpec {
                    domain: "acme.example.com".parse().unwrap(),
                    gns: "acme".parse().unwrap(),
                    members,
                };
                let key = ResourceKey::new("domain", "acme.example.com");
                self.resource(key, (!b.is_multiple_of(4)).then_some(ClusterResource::Domain(domain.into())));
            }
        }
    }
}

/// What a gateway has, kept by what the steps say changed.
fn follow(
    told: &mut Resources<GatewayResource>,
    synthesis: &Synthesis,
    changed: &Changed,
    hello: &GatewayHello,
) {
    match changed {
        Changed::Everything => *told = synthesis.for_gateway(hello),
        Changed::Keys(keys) => {
            for key in keys {
                match synthesis.for_gateway_at(hello, key) {
                    Some(resource) => drop(told.insert(key.clone(), resource)),
                    None => drop(told.remove(key)),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn steps_give_what_the_whole_gives(
        changes in proptest::collection::vec((0u8..13, any::<u8>(), any::<u8>(), 0u8..4), 1..40),
    ) {
        let (mut world, mut steps, ages) = (World::new(), Synthesizer::default(), Ages::new());
        let mut watchers: Vec<GatewayHello> = gateways().into_values().map(|gateway| gateway.hello).collect();
        for number in 0..2u16 {
            let node = Some(format!("n{number}").parse().unwrap());
            watchers.push(GatewayHello { node, ..hello(GatewayRole::Node, 100 + number) });
        }
        let mut older = hello(GatewayRole::Ingress, 4);
        older.hello.protocol.minor = 0;
        watchers.push(older);
        let mut told = vec![Resources::new(); watchers.len()];
        for (what, a, b, skip) in changes {
            world.change(what, a, b);
            if skip == 0 {
                continue;
            }
            let local = world.local(&ages);
            let takes_calls = skip != 1;
            let all = if takes_calls { inventory(local) } else { last_inventory(local) };
            let (reported, left_out) = steps.report(local, takes_calls);
            prop_assert_eq!((Inventory::clone(&reported), left_out), all);
            let changed = steps.step(&world.state, local).unwrap();
            let whole = synthesize(&world.state.resources, local).unwrap();
            prop_assert_eq!(steps.synthesis(), &whole);
            for (told, hello) in told.iter_mut().zip(&watchers) {
                follow(told, steps.synthesis(), &changed, hello);
                prop_assert_eq!(&*told, &whole.for_gateway(hello));
            }
        }
    }
}

#[test]
fn one_flap_touches_one_name() {
    let (mut world, mut steps, ages) = (World::new(), Synthesizer::default(), Ages::new());
    world.change(4, 1, 2);
    world.change(0, 0, 0);
    world.change(0, 1, 4);
    assert_eq!(steps.step(&world.state, world.local(&ages)), Some(Changed::Everything));
    world.change(2, 1, 0);
    let keys = ["export/n1.acme.example.com"].map(|key| {
        let (kind, name) = key.split_once('/').unwrap();
        ResourceKey::new(kind, name)
    });
    assert_eq!(steps.step(&world.state, world.local(&ages)), Some(Changed::Keys(keys.into())));
    world.change(0, 0, 1);
    let Some(Changed::Keys(keys)) = steps.step(&world.state, world.local(&ages)) else { panic!("all of it") };
    assert_eq!(keys.len(), 2, "its route, and its export is gone: {keys:?}");
    assert_eq!(steps.step(&world.state, world.local(&ages)), Some(Changed::Keys(BTreeSet::new())));
}
