//! A second opinion on a snapshot, written without looking at how it was made.

use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;
use tombolo_model::{
    ClusterName, DnsLabel, Domain, GlobalName, Proximity,
    mcs::ImportSpec,
    snapshot::{
        CaptureSpec, ClusterResource, DomainSpec, NameSpec, PeerSpec, Resource, ResourceKey, Resources,
        SelfSpec, TrustBundleSpec,
    },
};

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a line in the log.
    Warning,
    /// The snapshot must not be published; the last one stays.
    Fatal,
}

/// What is wrong with a snapshot.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Flaw {
    /// The receiver is not told who it is.
    #[error("does not say which cluster it is for")]
    NoSelf,
    /// The receiver is not told whom to believe.
    #[error("has no trust bundle")]
    NoBundle,
    /// A resource under another's key.
    #[error("holds a resource that belongs under {0}")]
    Key(ResourceKey),
    /// The bundle speaks of another trust domain than the cluster's.
    #[error("is of another trust domain than the cluster")]
    TrustDomain,
    /// No certificate could be verified.
    #[error("has no root certificate")]
    NoRoots,
    /// The receiver would not believe itself.
    #[error("does not vouch for the receiving cluster, which imports or exports names")]
    SelfNotTrusted,
    /// A domain the receiver has no part in.
    #[error("does not have the receiving cluster as a member")]
    NotAMember,
    /// Two domains, one in the other.
    #[error("overlaps {0}")]
    Overlap(Domain),
    /// A name whose domain is not there, or in which it does not lie.
    #[error("does not lie in a domain of this snapshot")]
    OutsideDomain,
    /// A namespace whose mode a global namespace chooses that the receiver has no part in.
    #[error("is of the global namespace {0}, which has no domain in this snapshot")]
    OtherGns(DnsLabel),
    /// Two names with one address.
    #[error("has an address of {0}")]
    SharedVip(GlobalName),
    /// A port twice, or port zero.
    #[error("has port {0} twice, or a port zero")]
    Port(u16),
    /// A target twice, out of order, or not as near as it says.
    #[error("has its targets in a wrong order")]
    Order,
    /// A target in a cluster that is not a member.
    #[error("is served in {0}, which is not a member of its domain")]
    ForeignTarget(ClusterName),
    /// A target in a cluster that no peer believes.
    #[error("is served in {0}, which the trust bundle does not vouch for")]
    UntrustedTarget(ClusterName),
    /// A target in a cluster that the receiver can't reach.
    #[error("is served in {0}, which is not among the peers")]
    NoPeer(ClusterName),
    /// A peer without a way in.
    #[error("has no ingress address yet; nothing can be sent there")]
    NoIngress,
}

impl Flaw {
    /// What it means.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::NoIngress => Severity::Warning,
            _ => Severity::Fatal,
        }
    }
}

/// Something wrong with a resource of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which resource.
    pub key: ResourceKey,
    /// What is wrong.
    pub flaw: Flaw,
}

impl Finding {
    /// What it means.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.flaw.severity()
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.key, self.flaw)
    }
}

/// The snapshot by kind.
#[derive(Default)]
struct Sorted<'a> {
    itself: Option<&'a SelfSpec>,
    bundle: Option<&'a TrustBundleSpec>,
    peers: BTreeMap<&'a ClusterName, &'a PeerSpec>,
    domains: BTreeMap<&'a Domain, &'a DomainSpec>,
    names: Vec<&'a NameSpec>,
    imports: Vec<&'a ImportSpec>,
    captures: Vec<&'a CaptureSpec>,
}

/// What is wrong with this snapshot; nothing for an empty one, which stands for a cluster that is not there.
#[must_use]
pub fn check(resources: &Resources<ClusterResource>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if resources.is_empty() {
        return findings;
    }
    let mut find = |key: ResourceKey, flaw| findings.push(Finding { key, flaw });
    let mut all = Sorted::default();
    for (key, resource) in resources {
        if resource.key() != *key {
            find(key.clone(), Flaw::Key(resource.key()));
        }
        match resource {
            ClusterResource::Itself(itself) => all.itself = Some(itself),
            ClusterResource::Bundle(bundle) => all.bundle = Some(bundle),
            ClusterResource::Peer(peer) => drop(all.peers.insert(&peer.cluster, peer)),
            ClusterResource::Domain(domain) => drop(all.domains.insert(&domain.domain, domain)),
            ClusterResource::Name(name) => all.names.push(name),
            ClusterResource::Capture(capture) => all.captures.push(capture),
            ClusterResource::Install(_) | ClusterResource::Trial(_) => {}
            ClusterResource::Import(import) => all.imports.push(import),
        }
    }
    let (self_key, bundle_key) = (ResourceKey::new("self", ""), ResourceKey::new("bundle", ""));
    let Some(itself) = all.itself else {
        find(self_key, Flaw::NoSelf);
        return findings;
    };
    let Some(bundle) = all.bundle else {
        find(bundle_key, Flaw::NoBundle);
        return findings;
    };
    if bundle.trust_domain != itself.trust_domain {
        find(bundle_key.clone(), Flaw::TrustDomain);
    }
    if bundle.roots.is_empty() {
        find(bundle_key.clone(), Flaw::NoRoots);
    }
    if !all.domains.is_empty() && !bundle.clusters.contains_key(&itself.cluster) {
        find(bundle_key, Flaw::SelfNotTrusted);
    }
    for peer in all.peers.values().filter(|peer| peer.ingress.is_empty()) {
        find(ResourceKey::new("peer", peer.cluster.as_str()), Flaw::NoIngress);
    }
    let mut before: Vec<&Domain> = Vec::new();
    for (domain, spec) in &all.domains {
        let key = || ResourceKey::new("domain", domain.as_str());
        if !spec.members.contains(&itself.cluster) {
            find(key(), Flaw::NotAMember);
        }
        if let Some(other) = before.iter().find(|other| other.overlaps(domain)) {
            find(key(), Flaw::Overlap((*other).clone()));
        }
        before.push(domain);
    }
    let set = all.domains.get(&Domain::cluster_set());
    for import in &all.imports {
        let key = || ResourceKey::new("import", &import.service.to_string());
        match set {
            None => find(key(), Flaw::OutsideDomain),
            Some(set) => {
                let foreign = import.clusters.iter().filter(|cluster| !set.members.contains(*cluster));
                foreign.for_each(|cluster| find(key(), Flaw::ForeignTarget(cluster.clone())));
            }
        }
    }
    for capture in &all.captures {
        for gns in [&capture.gns].into_iter().chain(capture.against.keys()) {
            if !all.domains.values().any(|domain| domain.gns == *gns) {
                find(ResourceKey::new("capture", capture.namespace.as_str()), Flaw::OtherGns(gns.clone()));
            }
        }
    }
    let mut vips = BTreeMap::new();
    for name in &all.names {
        let key = || ResourceKey::of_name("name", &name.name);
        for address in [name.vip.v4.to_ipv6_mapped(), name.vip.v6] {
            if let Some(other) = vips.insert(address, &name.name) {
                find(key(), Flaw::SharedVip(other.clone()));
            }
        }
        for flaw in name_flaws(name, itself, bundle, &all) {
            find(key(), flaw);
        }
    }
    findings
}

fn name_flaws(name: &NameSpec, itself: &SelfSpec, bundle: &TrustBundleSpec, all: &Sorted<'_>) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let Some(domain) =
        all.domains.get(&name.domain).filter(|domain| domain.domain.covers(name.name.as_str()))
    else {
        return vec![Flaw::OutsideDomain];
    };
    let mut ports = BTreeSet::new();
    for port in name.ports.iter() {
        if port.port == 0 || !ports.insert(port.port) {
            flaws.push(Flaw::Port(port.port));
        }
    }
    let order = |(a, b): (&_, &_)| rank(a) < rank(b);
    let near =
        name.targets.iter().all(|t| (t.proximity == Proximity::Cluster) == (t.cluster == itself.cluster));
    if !near || !name.targets.iter().zip(name.targets.iter().skip(1)).all(order) {
        flaws.push(Flaw::Order);
    }
    for target in &name.targets {
        let cluster = || target.cluster.clone();
        if let Some(port) = target.ports.iter().find(|port| !ports.contains(port)) {
            flaws.push(Flaw::Port(*port));
        }
        if !domain.members.contains(&target.cluster) {
            flaws.push(Flaw::ForeignTarget(cluster()));
        }
        if !bundle.clusters.contains_key(&target.cluster) {
            flaws.push(Flaw::UntrustedTarget(cluster()));
        }
        if target.cluster != itself.cluster && !all.peers.contains_key(&target.cluster) {
            flaws.push(Flaw::NoPeer(cluster()));
        }
    }
    flaws
}

fn rank(target: &tombolo_model::snapshot::TargetSpec) -> (Proximity, &ClusterName) {
    (target.proximity, &target.cluster)
}
