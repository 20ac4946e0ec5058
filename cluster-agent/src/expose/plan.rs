//! What there should be, and what is to be done for it. Pure.

use super::{
    Exposed, Exposure,
    objects::{self, Difference, Port},
    seen::{SeenService, SeenSlice},
};
use crate::synthesis::{Gateway, Gateways};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};
use tombolo_model::{
    Few, GatewayRole, GlobalName, NamespaceName,
    inventory::{PortSpec, Protocol},
    snapshot::{ClusterResource, Resources, Vip},
};
use tombolo_wire::message::Problem;

/// The numbers at which egress gateways take connections: below those that the system gives to outgoing ones. A service of a
/// cluster has two names, and one more for each other cluster that has it, so the first may not do: the second come after
/// those, below what gateways and sidecars listen at themselves.
const NUMBERS: [RangeInclusive<u16>; 2] = [16_384..=32_767, 1_024..=14_999];
/// How many Services are written for one plan: an object is kilobytes, and there may be tens of thousands to make.
const AT_ONCE: usize = 500;
/// How many these are.
pub(super) const MOST: usize = 16_384 + 13_976;

/// What was read of our own objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) services: &'a BTreeMap<Box<str>, SeenService>,
    pub(super) slices: &'a BTreeMap<Box<str>, SeenSlice>,
}

/// The names whose Services may not have external IPs, and what the API server said.
pub(super) type Refused = BTreeMap<GlobalName, String>;

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    WriteService(Box<Service>, Write),
    ApplySlice(Box<EndpointSlice>),
    DeleteService(String),
    DeleteSlice(String),
}

/// How a Service is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// There is none yet. The slices go with it: they get its identity as their owner's, from what the API server answers.
    Make(Vec<EndpointSlice>),
    Apply,
    /// There is something in it that others put there: it is read, and written whole.
    Replace,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    /// The names, and what they resolve to.
    pub(super) exposed: Exposed,
    pub(super) problems: Vec<Problem>,
    /// The objects of the names whose Services are not as they should be yet.
    pending: BTreeSet<String>,
    /// Whether there is more to do: when this is done, it is planned again.
    pub(super) more: bool,
}

/// The names whose Services another replica had to make without external IPs.
pub(super) fn refused_elsewhere(found: Found<'_>) -> Refused {
    let without = found.services.values().filter(|service| service.external_ips.is_empty());
    without.filter_map(|service| Some((service.name.clone()?, String::new()))).collect()
}

impl Plan {
    /// Does nothing, for another replica does it: a name whose Service is not as it should be yet stays as it was.
    pub(super) fn leave_to_others(&mut self, before: &Exposed) {
        let pending = std::mem::take(&mut self.pending);
        self.actions.clear();
        self.more = false;
        for (name, exposure) in &mut self.exposed {
            match before.get(name) {
                _ if !pending.contains(&objects::object_name(name)) => {}
                Some(old) => exposure.clone_from(old),
                // Which numbers it gets, the other one says.
                None => exposure.ports = Few::default(),
            }
        }
        self.problems.clear();
    }
}

/// Works out what to do. `before` is what was exposed last: its numbers are kept, whatever became of the objects.
pub(super) fn plan(
    resources: &Resources<ClusterResource>,
    gateways: &Gateways,
    namespace: &NamespaceName,
    before: &Exposed,
    found: Found<'_>,
    refused: &Refused,
) -> Plan {
    let mut plan = Plan::default();
    let wanted = wanted(resources);
    let mut slices: BTreeMap<&str, SeenSlice> =
        found.slices.iter().map(|(name, slice)| (&**name, *slice)).collect();
    let numbers = numbers(&wanted, before, found.services, gateways);
    let gateways = endpoints(gateways);
    let holders = holders(&wanted, found.services);
    let mut kept = BTreeSet::new();
    for (name, Wanted { ports: specs, vip }) in &wanted {
        let given = |spec: &&PortSpec| {
            Some(Port { spec: (*spec).clone(), at: *numbers.get(&(name.clone(), spec.port))? })
        };
        let ports: Vec<Port> = specs.iter().filter_map(given).collect();
        if ports.len() < specs.len() {
            let message = format!(
                "has a port too many: the egress gateways have {MOST} for all names, and all are taken; it is left out"
            );
            plan.problems.push(Problem { subject: name.to_string(), message });
            continue;
        }
        let object = objects::object_name(name);
        if let Some(other) = holders.get(&object).filter(|other| **other != name) {
            let message = format!(
                "its Service would have the name of that of {other}, {object}: it has none, and pods without a proxy do not reach it; \
                 rename one of the two"
            );
            plan.problems.push(Problem { subject: name.to_string(), message });
            continue;
        }
        let there = found.services.get(object.as_str());
        let external = if refused.contains_key(name) { BTreeSet::new() } else { external(*vip, there) };
        let service = objects::service(namespace, name, &ports, &external);
        let mut behind = Vec::new();
        for (family, addresses) in &gateways {
            let seen = slices.remove(objects::slice_name(&object, family).as_str());
            let mut slice = objects::slice(namespace, name, &ports, family, addresses);
            match there {
                // what was left of an earlier Service has another owner
                None => behind.push(slice),
                Some(found) => {
                    let Some(uid) = &found.uid else { continue };
                    objects::own(&mut slice, &object, &uid.to_string());
                    if seen != Some(SeenSlice::of(&slice)) {
                        plan.actions.push(Action::ApplySlice(Box::new(slice)));
                    }
                }
            }
        }
        let how = match there.map(|found| objects::service_differs(&SeenService::of(&service), found)) {
            Some(Difference::None) => None,
            Some(Difference::Foreign) => Some(Write::Replace),
            Some(Difference::Lacks) => Some(Write::Apply),
            None => Some(Write::Make(behind)),
        };
        if let Some(how) = how {
            plan.pending.insert(object.clone());
            // Slices of Services that are there do not wait for those that are not.
            match plan.pending.len() <= AT_ONCE {
                true => plan.actions.push(Action::WriteService(Box::new(service), how)),
                false => plan.more = true,
            }
        }
        // The gateways take connections at the numbers before anybody is sent there.
        let mut addresses = addresses(*vip, there, refused);
        // Nobody takes connections in a family that no gateway has.
        let led = |ip: &IpAddr| gateways.contains_key(family(*ip));
        if addresses.iter().any(led) {
            addresses.retain(led);
        }
        let refused = match there {
            Some(found) => found.external_ips.is_empty(),
            None => refused.contains_key(name),
        };
        let ports = ports.iter().map(|port| (port.spec.port, port.at)).collect();
        plan.exposed.insert(name.clone(), Exposure { addresses: addresses.into(), refused, ports });
        kept.insert(object);
    }
    // Endpoints go before their Service, which no longer leads anywhere.
    plan.actions.extend(slices.into_keys().map(|name| Action::DeleteSlice(name.to_owned())));
    let gone = found.services.keys().filter(|own| !kept.contains(&***own));
    plan.actions.extend(gone.map(|name| Action::DeleteService(name.to_string())));
    plan.problems.extend(told(refused, namespace));
    plan
}

/// Which name has an object, by the object's name, where several would: names of objects are short, and hold a short sum of the whole
/// name. It is the one that the Service stands for, if it is still wanted, else the first: so nobody takes a Service from a name by another
/// name that was made for it.
fn holders<'a>(
    wanted: &'a BTreeMap<GlobalName, Wanted>,
    services: &BTreeMap<Box<str>, SeenService>,
) -> BTreeMap<String, &'a GlobalName> {
    let mut all: BTreeMap<String, Vec<&GlobalName>> = BTreeMap::new();
    for name in wanted.keys() {
        all.entry(objects::object_name(name)).or_default().push(name);
    }
    all.retain(|_, names| names.len() > 1);
    let holder = |(object, names): (String, Vec<&'a GlobalName>)| {
        let stands = services.get(object.as_str()).and_then(|service| service.name.as_ref());
        let holder = stands.and_then(|name| names.iter().copied().find(|one| *one == name));
        let holder = holder.or(names.first().copied())?;
        Some((object, holder))
    };
    all.into_iter().filter_map(holder).collect()
}

/// What a cluster that takes no external IPs is told, once for all names.
fn told(refused: &Refused, namespace: &NamespaceName) -> Option<Problem> {
    let why = refused.values().next()?;
    let message = format!(
        "{} Services may not have external IPs ({why}): their names resolve to the ClusterIP, so that pods with a sidecar or a node \
         proxy reach them as pods without do, and are not known by name; let Services of this namespace have externalIPs",
        refused.len()
    );
    Some(Problem { subject: format!("namespace {namespace}"), message })
}

/// The virtual IPs that a Service carries: of the families that the cluster gave it addresses of.
fn external(vip: Vip, there: Option<&SeenService>) -> BTreeSet<IpAddr> {
    let families: BTreeSet<bool> =
        there.into_iter().flat_map(|found| &found.cluster_ips).map(|ip| ip.is_ipv6()).collect();
    let (v4, v6) = (IpAddr::V4(vip.v4), IpAddr::V6(vip.v6));
    if families.is_empty() {
        return BTreeSet::from([v4]);
    }
    [v4, v6].into_iter().filter(|ip| families.contains(&ip.is_ipv6())).collect()
}

/// What a name resolves to. Before it has a Service its virtual IP: pods with a proxy need none. But not where others had theirs
/// refused, for the address would change.
fn addresses(vip: Vip, there: Option<&SeenService>, refused: &Refused) -> BTreeSet<IpAddr> {
    let Some(found) = there else {
        return if refused.is_empty() { external(vip, None) } else { BTreeSet::new() };
    };
    let carried = &found.external_ips;
    let of_family = |ip: IpAddr| if ip.is_ipv4() { IpAddr::V4(vip.v4) } else { IpAddr::V6(vip.v6) };
    let address = |ip: IpAddr| if carried.contains(&of_family(ip)) { of_family(ip) } else { ip };
    // A Service that has got a second family carries nothing in it for a moment: an address of that now would be another one soon.
    let is_carried =
        |ip: &IpAddr| carried.is_empty() || carried.iter().any(|one| family(*one) == family(*ip));
    found.cluster_ips.iter().copied().filter(is_carried).map(address).collect()
}

/// A name that there should be a Service for.
struct Wanted<'a> {
    /// Its TCP ports.
    ports: Vec<&'a PortSpec>,
    vip: Vip,
}

/// The imported names that have TCP ports.
fn wanted(resources: &Resources<ClusterResource>) -> BTreeMap<GlobalName, Wanted<'_>> {
    let mut wanted = BTreeMap::new();
    for resource in resources.values() {
        let ClusterResource::Name(name) = resource else { continue };
        let tcp = name.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        let ports: Vec<&PortSpec> = tcp.collect();
        if !ports.is_empty() {
            wanted.insert(name.name.clone(), Wanted { ports, vip: name.vip });
        }
    }
    wanted
}

/// A number for each (name, port): the one it had, in memory or else in its Service; a free one where it had none. No
/// number stands for two.
fn numbers(
    wanted: &BTreeMap<GlobalName, Wanted<'_>>,
    before: &Exposed,
    services: &BTreeMap<Box<str>, SeenService>,
    gateways: &Gateways,
) -> BTreeMap<(GlobalName, u16), u16> {
    let hellos =
        gateways.values().map(|gateway| &gateway.hello).filter(|hello| hello.role == GatewayRole::Egress);
    let mut taken: BTreeSet<u16> = hellos
        .flat_map(|hello| [Some(hello.tunnel), hello.admin])
        .flatten()
        .map(|address| address.port())
        .collect();
    let mut known: BTreeMap<(GlobalName, u16), u16> = BTreeMap::new();
    let remembered = before
        .iter()
        .flat_map(|(name, exposure)| exposure.ports.iter().map(|(port, at)| (name.clone(), *port, *at)));
    let read = services.values().filter_map(|service| Some((service.name.as_ref()?, service)));
    let read = read
        .flat_map(|(name, service)| service.targets.iter().map(move |(port, at)| (name.clone(), *port, *at)));
    for (name, port, at) in remembered.chain(read) {
        let asked = wanted.get(&name).is_some_and(|wanted| wanted.ports.iter().any(|spec| spec.port == port));
        let key = (name, port);
        let may_be = NUMBERS.iter().any(|numbers| numbers.contains(&at));
        if asked && may_be && !known.contains_key(&key) && taken.insert(at) {
            known.insert(key, at);
        }
    }
    let mut free = NUMBERS.into_iter().flatten().filter(|at| !taken.contains(at));
    for (name, Wanted { ports, .. }) in wanted {
        for spec in ports {
            let key = (name.clone(), spec.port);
            if known.contains_key(&key) {
                continue;
            }
            if let Some(at) = free.next() {
                known.insert(key, at);
            }
        }
    }
    known
}

/// The family of an address, as EndpointSlices have it.
const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The egress gateways by address family, and whether somebody is to be sent there: to those that are connected; where none is, it is the
/// agent that was away, and all that have vanished are good, but none that said that it leaves.
fn endpoints(gateways: &Gateways) -> BTreeMap<&'static str, Vec<(IpAddr, bool)>> {
    let egress = || {
        let all = gateways.values().filter(|gateway| gateway.hello.role == GatewayRole::Egress);
        all.map(|gateway| (gateway.presence, taken_at(gateway))).filter(|(_, taken_at)| !taken_at.is_empty())
    };
    let best = egress().map(|(presence, _)| presence).max();
    let mut families: BTreeMap<&'static str, BTreeMap<IpAddr, bool>> = BTreeMap::new();
    for (presence, addresses) in egress() {
        for address in addresses {
            *families.entry(family(address)).or_default().entry(address).or_default() |=
                Some(presence) == best;
        }
    }
    families.into_iter().map(|(family, all)| (family, all.into_iter().collect())).collect()
}

/// Where a gateway takes connections, as far as an EndpointSlice may say it.
fn taken_at(gateway: &Gateway) -> Vec<IpAddr> {
    let all = gateway.hello.beside.iter().copied().chain([gateway.hello.tunnel.ip()]);
    all.filter(|address| objects::is_endpoint(*address)).collect()
}
