use super::{
    Exposed, Exposure,
    objects::{object_name, own, service_mended, stands_for},
    plan::{Action, Found, MOST, Plan, Refused, Write, plan, refused_elsewhere},
    seen::{SeenService, SeenSlice},
};
use crate::synthesis::{Gateway, Gateways, Presence};
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::util::intstr::IntOrString,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    Few, GatewayRole, GlobalName, NamespaceName,
    inventory::{PortSpec, Protocol},
    snapshot::{ClusterResource, NameKind, NameSpec, Resource, Resources, Vip},
};
use tombolo_wire::{message::GatewayHello, version::Hello};

const CATALOG: &str = "catalog.acme.example.com";
const CART: &str = "cart.acme.example.com";

fn global(text: &str) -> GlobalName {
    GlobalName::parse(text).unwrap()
}

fn name(text: &str, ports: &[u16]) -> ClusterResource {
    let tcp = |port: &u16| PortSpec { port: *port, protocol: Protocol::Tcp, name: None, app_protocol: None };
    let udp = PortSpec { port: 53, protocol: Protocol::Udp, name: None, app_protocol: None };
    ClusterResource::Name(
        NameSpec {
            name: global(text),
            domain: "acme.example.com".parse().unwrap(),
            kind: NameKind::Service,
            pod: None,
            vip: Vip { v4: [240, 0, 0, 1].into(), v6: "fd74::1".parse().unwrap() },
            headless: false,
            ports: ports.iter().map(tcp).chain([udp]).collect::<Vec<_>>().into(),
            targets: vec![],
        }
        .into(),
    )
}

fn resources(names: Vec<ClusterResource>) -> Resources<ClusterResource> {
    names.into_iter().map(|resource| (resource.key(), resource)).collect()
}

fn egress(all: &[(&str, bool)]) -> Gateways {
    let presence = |connected| if connected { Presence::Connected } else { Presence::Vanished };
    of_presence(all.iter().map(|(tunnel, connected)| (*tunnel, presence(*connected))))
}

fn of_presence<'a>(all: impl IntoIterator<Item = (&'a str, Presence)>) -> Gateways {
    let gateway = |(tunnel, presence): (&str, Presence)| {
        let hello = GatewayHello::new(
            Hello::current("test"),
            (*tunnel).to_owned(),
            GatewayRole::Egress,
            tunnel.parse().unwrap(),
        );
        (hello.instance.clone(), Gateway { hello, presence })
    };
    all.into_iter().map(gateway).collect()
}

/// Two names whose objects have one name: long ones, that begin alike, and whose sums are the same.
fn rivals() -> [String; 2] {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for number in 0_u32.. {
        let text = format!("{}.n{number}.acme.example.com", "x".repeat(60));
        if let Some(other) = seen.insert(object_name(&global(&text)), text.clone()) {
            return [other, text];
        }
    }
    unreachable!("sums have 32 bits")
}

#[test]
fn two_names_of_one_object_are_never_crossed() {
    let gateways = egress(&[("10.0.0.1:15008", true)]);
    let [first, second] = rivals();
    let mut world = World::default();
    // the one that was there keeps its Service, whoever comes
    world.step(vec![name(&second, &[80])], &gateways);
    let both = || vec![name(&first, &[80]), name(&second, &[80])];
    world.step(both(), &gateways);
    assert_eq!(world.step(both(), &gateways), [""; 0], "it settles");
    let stands = |world: &World| -> Vec<String> {
        world.found.services.iter().filter_map(|s| Some(stands_for(&s.metadata)?.to_string())).collect()
    };
    assert_eq!(stands(&world), [second.as_str()]);
    assert!(!world.exposed.contains_key(&global(&first)) && world.exposed.contains_key(&global(&second)));
    assert!(
        world.problems.iter().any(|p| p.starts_with(&first) && p.contains(&second)),
        "{:?}",
        world.problems
    );
    // once it is gone, the other one has its own
    world.step(vec![name(&first, &[80])], &gateways);
    assert_eq!(stands(&world), [first.as_str()]);
    assert!(world.problems.is_empty(), "{:?}", world.problems);
}

/// What an API server has.
#[derive(Clone, Default)]
struct Objects {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
}

impl Objects {
    /// With what was read of them.
    fn read<T>(&self, with: impl FnOnce(Found<'_>) -> T) -> T {
        let name = |name: &Option<String>| Box::from(name.as_deref().unwrap());
        let services =
            self.services.iter().map(|one| (name(&one.metadata.name), SeenService::of(one))).collect();
        let slices = self.slices.iter().map(|one| (name(&one.metadata.name), SeenSlice::of(one))).collect();
        with(Found { services: &services, slices: &slices })
    }
}

/// An API server that does as it is told, and gives out addresses.
#[derive(Default)]
struct World {
    found: Objects,
    exposed: Exposed,
    refused: Refused,
    problems: Vec<String>,
    /// How many Services were made.
    made: usize,
}

impl World {
    fn plan(&self, names: Vec<ClusterResource>, gateways: &Gateways) -> Plan {
        let namespace = NamespaceName::parse("tombolo-system").unwrap();
        self.found
            .read(|found| plan(&resources(names), gateways, &namespace, &self.exposed, found, &self.refused))
    }

    /// Plans and does it; gives what was done.
    fn step(&mut self, names: Vec<ClusterResource>, gateways: &Gateways) -> Vec<String> {
        let plan = self.plan(names, gateways);
        self.exposed = plan.exposed;
        self.problems = plan.problems.into_iter().map(|p| format!("{}: {}", p.subject, p.message)).collect();
        plan.actions.into_iter().map(|action| self.act(action)).collect()
    }

    fn act(&mut self, action: Action) -> String {
        match action {
            Action::WriteService(service, Write::Make(slices)) => {
                let object = service.metadata.name.clone().unwrap();
                assert!(self.found.services.iter().all(|found| found.metadata.name != service.metadata.name));
                let mut done = self.act(Action::WriteService(service, Write::Apply)).replace("apply", "make");
                let made = self.found.services.last().unwrap().metadata.uid.clone().unwrap();
                for mut slice in slices {
                    own(&mut slice, &object, &made);
                    done += &format!(", {}", self.act(Action::ApplySlice(Box::new(slice))));
                }
                done
            }
            Action::WriteService(mut service, Write::Apply) => {
                let name = service.metadata.name.clone().unwrap();
                let spec = service.spec.as_mut().unwrap();
                spec.selector = None;
                spec.cluster_ip = Some(format!("10.96.0.{}", name.len()));
                spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
                let there =
                    self.found.services.iter().find(|found| found.metadata.name.as_ref() == Some(&name));
                self.made += usize::from(there.is_none());
                let uid = there
                    .map_or_else(|| Some(format!("uid-{}", self.made)), |found| found.metadata.uid.clone());
                service.metadata.uid = uid;
                self.found.services.retain(|found| found.metadata.name != service.metadata.name);
                self.found.services.push(*service);
                format!("apply {name}")
            }
            Action::WriteService(service, Write::Replace) => {
                let name = service.metadata.name.clone().unwrap();
                let there =
                    self.found.services.iter_mut().find(|found| found.metadata.name == service.metadata.name);
                let there = there.unwrap();
                *there = service_mended(&service, there);
                format!("replace {name}")
            }
            Action::ApplySlice(slice) => {
                let name = slice.metadata.name.clone().unwrap();
                self.found.slices.retain(|found| found.metadata.name != slice.metadata.name);
                self.found.slices.push(*slice);
                format!("apply slice {name}")
            }
            Action::DeleteService(name) => {
                self.found.services.retain(|found| found.metadata.name.as_ref() != Some(&name));
                format!("delete {name}")
            }
            Action::DeleteSlice(name) => {
                self.found.slices.retain(|found| found.metadata.name.as_ref() != Some(&name));
                format!("delete slice {name}")
            }
        }
    }

    fn change(&mut self, change: impl Fn(&mut Service)) {
        change(&mut self.found.services[0]);
    }
}

#[test]
fn a_name_becomes_a_service_with_the_gateways_behind_it() {
    let mut world = World::default();
    let gateways = egress(&[("10.1.0.5:15008", true), ("[fd00::5]:15008", true), ("127.0.0.1:15008", true)]);
    let names = || vec![name(CATALOG, &[80, 8082]), name("dns.acme.example.com", &[])];
    let object = object_name(&global(CATALOG));
    let made = format!("make {object}, apply slice {object}-ipv4, apply slice {object}-ipv6");
    assert_eq!(world.step(names(), &gateways), [made], "never one that leads to nobody");
    let vip = Few::from(["240.0.0.1".parse().unwrap()]);
    assert_eq!(world.exposed[&global(CATALOG)].addresses, vip, "pods with a proxy need no Service");
    assert_eq!(world.step(names(), &gateways), [""; 0], "nothing more to do");
    let exposure = &world.exposed[&global(CATALOG)];
    assert_eq!(*exposure.ports, [(80, 16_384), (8082, 16_385)]);
    assert_eq!((&exposure.addresses, exposure.refused), (&vip, false));
    let service = &world.found.services[0];
    assert_eq!(stands_for(&service.metadata), Some(global(CATALOG)));
    assert_eq!(service.spec.as_ref().unwrap().external_ips.as_deref().unwrap(), ["240.0.0.1"]);
    let slice = &world.found.slices[0];
    assert_eq!(slice.endpoints[0].addresses, ["10.1.0.5"], "loopback is no endpoint");
    assert_eq!(slice.ports.as_ref().unwrap()[1].port, Some(16_385));
    assert_eq!(slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"], object);
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), &owner.name, owner.uid.as_str()), ("Service", &object, "uid-1"));
    assert_eq!(service.spec.as_ref().unwrap().ip_family_policy.as_deref(), Some("PreferDualStack"));
    // Gone from the snapshot, gone from the cluster.
    let gone = world.step(vec![], &gateways);
    assert_eq!(
        gone,
        [
            format!("delete slice {object}-ipv4"),
            format!("delete slice {object}-ipv6"),
            format!("delete {object}")
        ]
    );
    assert!(world.exposed.is_empty());
}

#[test]
fn numbers_stay() {
    let gateways = egress(&[("10.1.0.5:16384", true)]);
    let mut world = World::default();
    world.step(vec![name(CATALOG, &[80])], &gateways);
    assert_eq!(*world.exposed[&global(CATALOG)].ports, [(80, 16_385)], "16384 is the gateway's own");
    // One that sorts before it takes nothing from it, not even before its Service was seen.
    let both = || vec![name(CART, &[80]), name(CATALOG, &[80])];
    world.found = Objects::default();
    world.step(both(), &gateways);
    let numbers = |world: &World, name| world.exposed[&global(name)].ports.clone();
    assert_eq!(
        (numbers(&world, CATALOG), numbers(&world, CART)),
        ([(80, 16_385)].into(), [(80, 16_386)].into())
    );
    // An agent that remembers nothing reads them from the Services.
    world.step(both(), &gateways);
    world.exposed.clear();
    assert_eq!(world.step(both(), &gateways), [""; 0]);
    let numbers = |world: &World, name| world.exposed[&global(name)].ports.clone();
    assert_eq!(
        (numbers(&world, CATALOG), numbers(&world, CART)),
        ([(80, 16_385)].into(), [(80, 16_386)].into())
    );
}

/// The size that is promised: 5,000 services of two ports in one cluster, by both of their names.
#[test]
fn there_are_numbers_for_all() {
    let gateways = egress(&[("10.1.0.5:15008", true)]);
    let names = |services: usize| -> Vec<ClusterResource> {
        let both = |n: usize| ["", ".east"].map(|of| name(&format!("s{n}{of}.acme.example.com"), &[80, 81]));
        (0..services).flat_map(both).collect()
    };
    let world = World::default();
    let plan = world.plan(names(5_000), &gateways);
    assert!(plan.problems.is_empty() && plan.exposed.len() == 10_000, "{:?}", plan.problems);
    let numbers: BTreeSet<u16> =
        plan.exposed.values().flat_map(|exposure| exposure.ports.iter().map(|(_, at)| *at)).collect();
    assert_eq!(numbers.len(), 20_000, "each has its own");
    assert!(numbers.contains(&16_384) && numbers.contains(&32_767), "the first are taken first");
    assert!(numbers.iter().all(|at| *at < 32_768 && !(15_000..16_384).contains(at)), "those are others'");
    // and what is too much is said
    let plan = world.plan(names(8_000), &gateways);
    assert_eq!(plan.exposed.len(), MOST / 2);
    assert_eq!(plan.problems.len(), 16_000 - MOST / 2);
    assert!(plan.problems[0].message.contains("30360 for all names"), "{:?}", plan.problems[0]);
}

#[test]
fn what_others_change_is_mended() {
    let gateways = egress(&[("10.1.0.5:15008", true)]);
    let names = || vec![name(CATALOG, &[80])];
    let object = object_name(&global(CATALOG));
    let mut world = World::default();
    world.step(names(), &gateways);
    world.step(names(), &gateways);
    let spec = |service: &mut Service| service.spec.take().unwrap();
    let changes: [&dyn Fn(&mut Service); 8] = [
        &|service| {
            let mut changed = spec(service);
            changed.internal_traffic_policy = Some("Local".to_owned());
            service.spec = Some(changed);
        },
        &|service| {
            let mut changed = spec(service);
            changed.ports.as_mut().unwrap()[0].target_port = Some(IntOrString::Int(20_000));
            service.spec = Some(changed);
        },
        &|service| {
            let mut changed = spec(service);
            changed.selector = Some(BTreeMap::from([("app".to_owned(), "x".to_owned())]));
            service.spec = Some(changed);
        },
        &|service| service.metadata.annotations = None,
        &|service| {
            let mut changed = spec(service);
            changed.external_ips = Some(vec!["203.0.113.7".to_owned()]);
            service.spec = Some(changed);
        },
        &|service| {
            let mut changed = spec(service);
            let mut more = changed.ports.as_ref().unwrap()[0].clone();
            (more.port, more.name) = (22, Some("more".to_owned()));
            changed.ports.as_mut().unwrap().push(more);
            service.spec = Some(changed);
        },
        &|service| {
            let mut changed = spec(service);
            let mut more = changed.ports.as_ref().unwrap()[0].clone();
            (more.protocol, more.name) = (Some("UDP".to_owned()), Some("more".to_owned()));
            changed.ports.as_mut().unwrap().push(more);
            service.spec = Some(changed);
        },
        &|service| {
            let mut changed = spec(service);
            changed.session_affinity = Some("ClientIP".to_owned());
            service.spec = Some(changed);
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        world.change(change);
        let verb = if number >= 5 { "replace" } else { "apply" };
        assert_eq!(world.step(names(), &gateways), [format!("{verb} {object}")], "{number}");
        assert_eq!(world.step(names(), &gateways), [""; 0], "{number}");
    }
    // What others add that is none of ours stays.
    world.change(|service| drop(service.metadata.labels.as_mut().unwrap().insert("team".into(), "a".into())));
    assert_eq!(world.step(names(), &gateways), [""; 0]);
    world.found.slices[0].metadata.owner_references = None;
    assert_eq!(world.step(names(), &gateways), [format!("apply slice {object}-ipv4")], "whose it is, too");
    world.found.services.clear();
    let again = format!("make {object}, apply slice {object}-ipv4");
    assert_eq!(world.step(names(), &gateways), [again], "deleted by hand: it is another Service");
    assert_eq!(world.step(names(), &gateways), [""; 0]);
}

#[test]
fn families_are_those_of_the_cluster() {
    let gateways = egress(&[("10.1.0.5:15008", true)]);
    let names = || vec![name(CATALOG, &[80])];
    let mut world = World::default();
    world.step(names(), &gateways);
    world.step(names(), &gateways);
    for (addresses, external) in [
        (["10.96.0.9", "fd00::9"].as_slice(), ["240.0.0.1", "fd74::1"].as_slice()),
        (["fd00::9"].as_slice(), ["fd74::1"].as_slice()),
    ] {
        world.change(|service| {
            let spec = service.spec.as_mut().unwrap();
            spec.cluster_ip = addresses.first().map(ToString::to_string);
            spec.cluster_ips = Some(addresses.iter().map(ToString::to_string).collect());
        });
        let planned = world.plan(names(), &gateways).actions;
        let [Action::WriteService(service, Write::Apply)] = planned.as_slice() else { panic!("{planned:?}") };
        assert_eq!(service.spec.as_ref().unwrap().external_ips.as_deref().unwrap(), external);
    }
}

/// A name resolves in the families in which somebody takes its connections.
#[test]
fn names_resolve_where_a_gateway_is() {
    let names = || vec![name(CATALOG, &[80])];
    let (v4, v6) = ("10.1.0.5:15008", "[fd00::5]:15008");
    let mut world = World::default();
    world.step(names(), &egress(&[(v4, true)]));
    world.change(|service| {
        let spec = service.spec.as_mut().unwrap();
        spec.cluster_ips = Some(vec!["10.96.0.9".to_owned(), "fd00::9".to_owned()]);
        spec.external_ips = Some(vec!["240.0.0.1".to_owned(), "fd74::1".to_owned()]);
    });
    let resolved = |world: &World, gateways: &[(&str, bool)]| -> Vec<String> {
        let plan = world.plan(names(), &egress(gateways));
        plan.exposed[&global(CATALOG)].addresses.iter().map(ToString::to_string).collect()
    };
    assert_eq!(resolved(&world, &[(v4, true)]), ["240.0.0.1"]);
    assert_eq!(resolved(&world, &[(v4, true), (v6, true)]), ["240.0.0.1", "fd74::1"]);
    assert_eq!(resolved(&world, &[]), ["240.0.0.1", "fd74::1"], "none yet");
    // The Service has just got an address of the second family, and carries nothing there yet.
    world.change(|service| {
        service.spec.as_mut().unwrap().external_ips = Some(vec!["240.0.0.1".to_owned()]);
    });
    assert_eq!(resolved(&world, &[(v4, true), (v6, true)]), ["240.0.0.1"], "and no ClusterIP for a moment");
    world.change(|service| {
        let spec = service.spec.as_mut().unwrap();
        (spec.cluster_ip, spec.external_ips) = (Some("10.96.0.9".to_owned()), None);
    });
    assert_eq!(resolved(&world, &[(v4, true), (v6, true)]), ["10.96.0.9", "fd00::9"], "it may carry none");
}

/// The agent that the others were connected to went with it.
#[test]
fn nobody_is_sent_to_a_gateway_that_leaves() {
    let ready = |all: &[(&'static str, Presence)]| -> Vec<String> {
        let mut world = World::default();
        world.step(vec![name(CATALOG, &[80])], &of_presence(all.iter().copied()));
        let endpoints = world.found.slices[0].endpoints.iter();
        let ready = endpoints.filter(|one| one.conditions.as_ref().unwrap().ready == Some(true));
        ready.map(|one| one.addresses.join(" ")).collect()
    };
    let (leaving, vanished, connected) = (Presence::Leaving, Presence::Vanished, Presence::Connected);
    let pair = |one, other| ready(&[("10.1.0.5:15008", one), ("10.1.0.6:15008", other)]);
    assert_eq!(pair(leaving, vanished), ["10.1.0.6"]);
    assert_eq!(pair(leaving, connected), ["10.1.0.6"]);
    assert_eq!(pair(vanished, connected), ["10.1.0.6"]);
    assert_eq!(pair(vanished, vanished), ["10.1.0.5", "10.1.0.6"], "it was the agent that went");
    assert_eq!(pair(leaving, leaving), ["10.1.0.5", "10.1.0.6"], "they are all that there is");
}

/// One gateway takes connections in both families of its pod.
#[test]
fn a_gateway_of_two_families_is_behind_both() {
    let names = || vec![name(CATALOG, &[80])];
    let mut gateways = egress(&[("10.1.0.5:15008", true)]);
    let hello = &mut gateways.values_mut().next().unwrap().hello;
    hello.beside = ["fd00::5", "::1"].map(|address| address.parse().unwrap()).into();
    let mut world = World::default();
    world.step(names(), &gateways);
    let endpoints: Vec<_> = world
        .found
        .slices
        .iter()
        .map(|slice| {
            (slice.address_type.as_str(), slice.endpoints[0].addresses.join(" "), slice.endpoints.len())
        })
        .collect();
    assert_eq!(endpoints, [("IPv4", "10.1.0.5".to_owned(), 1), ("IPv6", "fd00::5".to_owned(), 1)]);
}

/// The API server takes no external IPs.
#[test]
fn refused_names_are_at_their_services() {
    let gateways = egress(&[("10.1.0.5:15008", true)]);
    let names = || vec![name(CART, &[80]), name(CATALOG, &[80])];
    let mut world = World::default();
    world.refused.insert(global(CATALOG), "denied by policy".to_owned());
    world.step(names(), &gateways);
    assert!(world.exposed[&global(CATALOG)].addresses.is_empty(), "its address is not known yet");
    assert!(world.exposed[&global(CART)].addresses.is_empty(), "nor what becomes of this one");
    world.step(names(), &gateways);
    assert_eq!(world.step(names(), &gateways), [""; 0]);
    let exposure = &world.exposed[&global(CATALOG)];
    let address = exposure.addresses.first().unwrap().to_string();
    assert!(exposure.refused && address.starts_with("10.96.0."), "{exposure:?}");
    assert!(!world.exposed[&global(CART)].refused, "it was taken");
    assert!(
        matches!(&*world.problems, [one] if one.contains("1 Services") && one.contains("denied by policy")),
        "{:?}",
        world.problems
    );
    // It is tried again, and taken now.
    world.refused.clear();
    assert!(world.step(names(), &gateways)[0].starts_with("apply g-catalog"));
    assert!(world.exposed[&global(CATALOG)].refused, "not before it was read back");
    world.step(names(), &gateways);
    assert_eq!(world.exposed[&global(CATALOG)].addresses, ["240.0.0.1".parse().unwrap()].into());
    assert!(world.problems.is_empty());
}

/// A replica that only reads comes to what the one that writes has made.
#[test]
fn one_replica_writes() {
    let (mut writer, mut reader) = (World::default(), World::default());
    let gateways = egress(&[("10.1.0.5:15008", true)]);
    let names = || vec![name(CATALOG, &[80]), name(CART, &[80])];
    let read = |reader: &mut World, found: Objects| {
        reader.found = found;
        reader.refused = reader.found.read(refused_elsewhere);
        let mut plan = reader.plan(names(), &gateways);
        plan.leave_to_others(&reader.exposed);
        assert_eq!((plan.actions.len(), plan.problems.len()), (0, 0));
        reader.exposed = plan.exposed;
    };
    read(&mut reader, Objects::default());
    let vip = Few::from(["240.0.0.1".parse().unwrap()]);
    let early = reader.exposed[&global(CATALOG)].clone();
    assert_eq!((early.addresses, early.ports.len()), (vip, 0), "the numbers are not its own to give");
    writer.refused.insert(global(CATALOG), "a policy".to_owned());
    for _ in 0..2 {
        writer.step(names(), &gateways);
    }
    read(&mut reader, writer.found.clone());
    assert_eq!(reader.exposed, writer.exposed);
    assert!(reader.exposed[&global(CATALOG)].refused);
    // What somebody changed is as it was until it is mended.
    let mut changed = writer.found.clone();
    changed.services[0].spec.as_mut().unwrap().ports = None;
    read(&mut reader, changed);
    assert_eq!(reader.exposed, writer.exposed);
}

#[test]
fn gateways_come_and_go() {
    let names = || vec![name(CATALOG, &[80])];
    let mut world = World::default();
    let mut ready = |gateways: &[(&str, bool)]| {
        world.step(names(), &egress(gateways));
        world.step(names(), &egress(gateways));
        let endpoints = &world.found.slices[0].endpoints;
        endpoints.iter().map(|e| e.conditions.as_ref().unwrap().ready.unwrap()).collect::<Vec<_>>()
    };
    let (one, two) = ("10.1.0.5:15008", "10.1.0.6:15008");
    assert_eq!(ready(&[(one, true), (two, true)]), [true, true]);
    assert_eq!(ready(&[(one, true), (two, false)]), [true, false], "killed");
    assert_eq!(ready(&[(one, false), (two, false)]), [true, true], "the agent was away, not they");
    assert_eq!(ready(&[(two, true)]), [true]);
}

#[test]
fn names_of_objects_are_labels_and_differ() {
    let long = format!("{}.{}.acme.example.com", "a".repeat(63), "b".repeat(63));
    let (one, other) = (object_name(&global(&long)), object_name(&global("a-b.c.acme.example.com")));
    assert!(one.len() <= 63 && one.starts_with("g-aaa"));
    assert_ne!(other, object_name(&global("a.b-c.acme.example.com")), "the same but for the dots");
    assert!(tombolo_model::DnsLabel::parse(&one).is_ok() && tombolo_model::DnsLabel::parse(&other).is_ok());
}

/// Agents before and after this one read what is kept.
#[test]
fn the_numbers_are_kept_as_a_map() {
    let text = r#"{"addresses":["240.0.0.1"],"ports":{"80":16385,"8082":16386}}"#;
    let kept: Exposure = serde_json::from_str(text).unwrap();
    assert_eq!(*kept.ports, [(80, 16_385), (8082, 16_386)]);
    assert_eq!(serde_json::to_string(&kept).unwrap(), text);
}
