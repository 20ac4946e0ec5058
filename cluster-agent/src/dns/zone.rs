//! What the agent answers, as a function of its snapshot: no I/O, no clock, nothing random.
//!
//! A zone holds names and addresses only. Whether an endpoint is ready is not in it: a name is for life, and stays
//! in DNS while nothing serves it; but a headless service of the cluster set has only ready pods, as KEP-1645 says. Records are made when they are asked for, so a zone of 100,000 names is small.

use crate::{
    expose::{Exposed, Exposure},
    readiness::is_ready,
    vip::AddressMode,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};
use tombolo_model::{
    ClusterName, Domain, Generation, GlobalName, Held,
    inventory::{PortSpec, Protocol},
    mcs::{ExportedPort, ImportKind, ImportSpec, Transport},
    snapshot::{ClusterResource, NameKind, NameSpec, Resources},
};

/// All domains and names that this cluster answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    generation: Generation,
    cluster: Option<ClusterName>,
    domains: BTreeSet<Domain>,
    /// By lower-case name without a dot at the end. Every parent of a name, up to its domain, is in here too.
    nodes: HashMap<GlobalName, Node>,
    reverse: (ByAddress<Ipv4Addr>, ByAddress<Ipv6Addr>),
    problems: BTreeMap<GlobalName, String>,
}

/// What stands at a name inside one of the domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Nothing, but there are names below it (an "empty non-terminal"): it exists, without data.
    Parent,
    /// A global name.
    Name(Box<Entry>),
}

/// A global name, as DNS needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The IPv4 address that stands for it here; none where its VIP has no place in the explicit prefix.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address that stands for it here.
    pub v6: Option<Ipv6Addr>,
    /// Its ports.
    pub ports: Held<Vec<PortSpec>>,
    /// For a headless service: the names of its pods, in order. Its address records are theirs.
    pub pods: Vec<GlobalName>,
    /// Whether a pod of it is one of another cluster too, by its name; then it has no `pods`.
    leads_elsewhere: bool,
    /// Why it has no IPv4 address, where it has none.
    pub unmapped: Option<String>,
    /// Whether it is a name of the cluster set, for which KEP-1645 says a few things more.
    pub in_set: bool,
}

/// The names that addresses stand for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ByAddress<A>(Vec<(A, GlobalName)>);

impl<A> Default for ByAddress<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Ord + Copy> ByAddress<A> {
    /// Nothing is added any more.
    fn settle(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
        self.0.shrink_to_fit();
    }

    fn of(&self, address: A) -> &[(A, GlobalName)] {
        let first = self.0.partition_point(|(known, _)| *known < address);
        let names = &self.0[first..];
        &names[..names.partition_point(|(known, _)| *known == address)]
    }
}

/// Builds the zone of a snapshot. `mode` says which addresses stand for a VIP in this cluster.
///
/// A name without a place is in [`Zone::problems`]; it still resolves to what it has.
///
/// Where names are `exposed` by Services, one is at its virtual IPs as far as its Service carries them. Where Services may not carry any,
/// it is at its Service's own address, and nowhere before it has one.
#[must_use]
pub fn build(
    resources: &Resources<ClusterResource>,
    generation: Generation,
    mode: &AddressMode,
    exposed: Option<&Exposed>,
) -> Zone {
    let mut zone = Zone { generation, ..Zone::default() };
    let set = ClusterSet::of(resources);
    let refused = exposed.is_some_and(|exposed| exposed.values().any(|exposure| exposure.refused));
    let at_services = exposed.map(|exposed| Services { exposed, refused });
    for resource in resources.values() {
        match resource {
            ClusterResource::Itself(this) => zone.cluster = Some(this.cluster.clone()),
            ClusterResource::Domain(spec) => drop(zone.domains.insert(spec.domain.clone())),
            ClusterResource::Name(spec) if set.hides(spec) => {}
            ClusterResource::Name(spec) => zone.add(spec, mode, at_services),
            ClusterResource::Bundle(_)
            | ClusterResource::Peer(_)
            | ClusterResource::Import(_)
            | ClusterResource::Capture(_)
            | ClusterResource::Install(_)
            | ClusterResource::Trial(_) => {}
        }
    }
    for resource in resources.values() {
        if let ClusterResource::Name(spec) = resource
            && spec.kind == NameKind::Pod
            && !set.hides(spec)
        {
            zone.add_pod(spec);
        }
    }
    for import in set.imports.values() {
        // Also those that are not carried: this is what the service has.
        if let Some(Node::Name(entry)) = zone.nodes.get_mut(import.name.as_str()) {
            entry.ports = import.traits.ports.iter().filter_map(spec_of).collect::<Vec<_>>().into();
        }
    }
    zone.reverse.0.settle();
    zone.reverse.1.settle();
    zone
}

impl Zone {
    fn add(&mut self, spec: &NameSpec, mode: &AddressMode, services: Option<Services<'_>>) {
        let (name, domain) = (&spec.name, &spec.domain);
        if name.as_str() == domain.as_str() || !domain.covers(name.as_str()) {
            self.problems
                .insert(name.clone(), format!("does not lie under its domain {domain}; it is left out"));
            return;
        }
        self.domains.insert(domain.clone());
        let (v4, v6, unmapped) = match services.and_then(|services| services.of(name)) {
            Some(exposure) => at_its_service(exposure),
            None => match mode.v4(&spec.vip) {
                Ok(v4) => (Some(v4), mode.v6(&spec.vip), None),
                Err(error) => (None, mode.v6(&spec.vip), Some(error.to_string())),
            },
        };
        if let Some(problem) = &unmapped {
            self.problems.insert(name.clone(), problem.clone());
        }
        self.reverse.0.0.extend([Some(spec.vip.v4), v4].into_iter().flatten().map(|v4| (v4, name.clone())));
        self.reverse.1.0.extend([Some(spec.vip.v6), v6].into_iter().flatten().map(|v6| (v6, name.clone())));
        let (ports, in_set) = (spec.ports.clone(), domain.is_cluster_set());
        let entry = Entry { v4, v6, ports, pods: Vec::new(), leads_elsewhere: false, unmapped, in_set };
        self.nodes.insert(name.clone(), Node::Name(Box::new(entry)));
        for parent in parents(name.as_str(), domain) {
            if !self.nodes.contains_key(parent)
                && let Ok(parent) = GlobalName::parse(parent)
            {
                self.nodes.insert(parent, Node::Parent);
            }
        }
    }

    /// A pod's name `<pod>.<service>.<domain>` is an address of its headless service: of `<service>.<domain>`,
    /// and of `<service>.<cluster>.<domain>` where its cluster is the only one that has the pod. An address of a pod's name that
    /// several clusters have leads to any of them; the service in one cluster is then its own address, which leads there.
    ///
    /// In the cluster set a pod's name has its cluster in it, and is an address of the service as a whole.
    fn add_pod(&mut self, spec: &NameSpec) {
        if spec.domain.is_cluster_set() {
            let service = spec.name.as_str().splitn(3, '.').nth(2);
            if let Some(Node::Name(entry)) = service.and_then(|service| self.nodes.get_mut(service)) {
                entry.pods.push(spec.name.clone());
            }
            return;
        }
        let Some((_, service)) = spec.name.as_str().split_once('.') else { return };
        let Some(label) = service.strip_suffix(spec.domain.as_str()).and_then(|s| s.strip_suffix('.')) else {
            return;
        };
        let in_clusters: Vec<_> =
            spec.targets.iter().map(|t| format!("{label}.{}.{}", t.cluster, spec.domain)).collect();
        let shared = in_clusters.len() > 1;
        for (parent, elsewhere) in in_clusters.iter().map(|p| (&**p, shared)).chain([(service, false)]) {
            let Some(Node::Name(entry)) = self.nodes.get_mut(parent) else { continue };
            entry.leads_elsewhere |= elsewhere;
            // Resources come in the order of their keys, so the pods do too.
            entry.pods.push(spec.name.clone());
            if entry.leads_elsewhere {
                entry.pods.clear();
            }
        }
    }

    /// The generation it was built from: later ones differ in readiness alone.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
    /// The cluster that it is for, once known.
    #[must_use]
    pub const fn cluster(&self) -> Option<&ClusterName> {
        self.cluster.as_ref()
    }
    /// Names that could not be answered in full, and why.
    #[must_use]
    pub const fn problems(&self) -> &BTreeMap<GlobalName, String> {
        &self.problems
    }
    /// The domains it answers.
    #[must_use]
    pub const fn domains(&self) -> &BTreeSet<Domain> {
        &self.domains
    }
    /// The domain that `name` (lower case, no dot at the end) is, or lies in.
    #[must_use]
    pub fn domain_of(&self, name: &str) -> Option<&Domain> {
        let mut rest = name;
        loop {
            if let Some(domain) = self.domains.get(rest) {
                return Some(domain);
            }
            rest = rest.split_once('.')?.1;
        }
    }
    /// What stands at `name` (lower case, no dot at the end).
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }
    /// The global name `name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        match self.nodes.get(name) {
            Some(Node::Name(entry)) => Some(entry),
            _ => None,
        }
    }
    /// The names that an address stands for; none where it stands for nothing of ours.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &GlobalName> {
        let (v4, v6) = match address {
            IpAddr::V4(v4) => (self.reverse.0.of(v4), &[][..]),
            IpAddr::V6(v6) => (&[][..], self.reverse.1.of(v6)),
        };
        v4.iter().map(|(_, name)| name).chain(v6.iter().map(|(_, name)| name))
    }
}

/// The Services of the names.
#[derive(Clone, Copy)]
struct Services<'a> {
    exposed: &'a Exposed,
    /// Whether any of them may not carry virtual IPs.
    refused: bool,
}

impl<'a> Services<'a> {
    /// How a name is exposed; none where its virtual IPs stand for it whatever its Service is.
    fn of(self, name: &GlobalName) -> Option<&'a Exposure> {
        static NOT_YET: LazyLock<Exposure> =
            LazyLock::new(|| Exposure { refused: true, ..Exposure::default() });
        self.exposed.get(name).or_else(|| self.refused.then(|| &*NOT_YET))
    }
}

/// The addresses of an exposed name, or why it has none.
fn at_its_service(exposure: &Exposure) -> (Option<Ipv4Addr>, Option<Ipv6Addr>, Option<String>) {
    let mut found = (None, None);
    for address in &exposure.addresses {
        match address {
            IpAddr::V4(v4) => found.0 = found.0.or(Some(*v4)),
            IpAddr::V6(v6) => found.1 = found.1.or(Some(*v6)),
        }
    }
    let missing = exposure.addresses.is_empty().then(|| {
        "has no Service in this cluster yet; the agent makes one for each name with TCP ports".to_owned()
    });
    (found.0, found.1, missing)
}

/// What KEP-1645 says of names of the cluster set beyond the names themselves.
struct ClusterSet<'a> {
    /// By the name of the service.
    imports: BTreeMap<&'a str, &'a ImportSpec>,
    /// Headless services that have no ready endpoint: they have no name meanwhile.
    silent: BTreeSet<&'a str>,
}

impl<'a> ClusterSet<'a> {
    fn of(resources: &'a Resources<ClusterResource>) -> Self {
        let mut imports: BTreeMap<&str, &ImportSpec> = BTreeMap::new();
        let mut silent = BTreeSet::new();
        for resource in resources.values() {
            let ClusterResource::Import(import) = resource else { continue };
            imports.insert(import.name.as_str(), import);
            if import.kind == ImportKind::Headless {
                silent.insert(import.name.as_str());
            }
        }
        for resource in resources.values() {
            let ClusterResource::Name(name) = resource else { continue };
            if name.domain.is_cluster_set() && is_ready(name) {
                let service = match name.kind {
                    NameKind::Pod => name.name.as_str().splitn(3, '.').nth(2),
                    _ if name.headless => None,
                    _ => Some(name.name.as_str()),
                };
                silent.retain(|silent| Some(*silent) != service);
            }
        }
        Self { imports, silent }
    }

    /// Whether a name of the snapshot is not one for DNS: that of a service in one cluster, which the KEP keeps for itself, and
    /// those of a headless service and its pods while they are not ready.
    fn hides(&self, name: &NameSpec) -> bool {
        name.domain.is_cluster_set()
            && match name.kind {
                NameKind::ServiceInCluster => true,
                NameKind::Pod => !is_ready(name),
                NameKind::Service => self.silent.contains(name.name.as_str()),
            }
    }
}

/// A port as DNS knows it.
fn spec_of(port: &ExportedPort) -> Option<PortSpec> {
    let protocol = match port.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => return None,
    };
    let (name, app_protocol) = (port.name.clone(), port.app_protocol.clone());
    Some(PortSpec { port: port.port, protocol, name, app_protocol })
}

impl Entry {
    /// The ports that `_<label>._<protocol>.<name>` stands for: by name, or by number where a port has no name.
    pub fn ports_of<'a>(&'a self, label: &'a str, protocol: Protocol) -> impl Iterator<Item = u16> + 'a {
        self.ports.iter().filter(move |port| port.protocol == protocol).filter_map(move |port| {
            let named = match &port.name {
                Some(name) => name.as_str() == label,
                // In the cluster set such a port has none.
                None => !self.in_set && label.parse() == Ok(port.port),
            };
            named.then_some(port.port)
        })
    }
}

/// The names between `name` and its domain, neither of them included.
fn parents<'a>(name: &'a str, domain: &Domain) -> impl Iterator<Item = &'a str> {
    let below = name.len() - domain.as_str().len();
    name.match_indices('.')
        .map(move |(dot, _)| dot + 1)
        .take_while(move |at| *at < below)
        .map(|at| &name[at..])
}
