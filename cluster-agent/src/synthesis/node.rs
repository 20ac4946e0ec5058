//! What the proxy of a node stands before: the pods on it that are captured there.

use super::{Gateways, Presence};
use crate::{capture::Chosen, index::View, source::PodObject};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tombolo_model::{
    AccountName, GatewayRole, SpiffeId,
    intent::CaptureMode,
    snapshot::{
        GatewayResource, Resource as _, ResourceKey, Resources, SelfSpec, WorkloadSelector, WorkloadSpec,
    },
};

/// The workloads of each node that has a proxy, by the node's name.
pub(super) type Workloads = BTreeMap<String, Resources<GatewayResource>>;

/// Whether the proxy of its node stands before a pod: its namespace says so, and its addresses are its own.
pub(crate) fn captured(chosen: &Chosen, view: &View, pod: &PodObject) -> bool {
    // Namespaces that the agent does not read, as its own, are not there: whatever the default is, their pods are let alone.
    let labels = view.namespaces.get(&pod.namespace);
    let mode = labels.map(|labels| chosen.mode(&pod.namespace, labels));
    mode == Some(CaptureMode::Node) && !pod.host_network
}

/// A node's proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    /// Where it takes tunnels.
    pub(super) tunnel: SocketAddr,
    /// Whether it is about to end. A DaemonSet makes the next one only when it has: until then the pods of the node are
    /// reached without a proxy.
    pub(super) leaving: bool,
}

/// The proxy of each node: one that is connected before one that is not, and one that leaves last.
pub(super) fn proxies(gateways: &Gateways) -> BTreeMap<&str, Proxy> {
    let mut proxies = BTreeMap::new();
    for wanted in Presence::ALL {
        let nodes = gateways.values().filter(|g| g.presence == wanted && g.hello.role == GatewayRole::Node);
        for gateway in nodes {
            if let Some(node) = &gateway.hello.node {
                let leaving = gateway.presence == Presence::Leaving;
                proxies.entry(node.as_str()).or_insert(Proxy { tunnel: gateway.hello.tunnel, leaving });
            }
        }
    }
    proxies
}

/// What the proxy of each node is told of workloads: those of the captured pods on it, known by their addresses.
pub(super) fn workloads(own: &SelfSpec, view: &View, gateways: &Gateways) -> Workloads {
    let nodes = proxies(gateways);
    let mut all = Workloads::new();
    for pod in view.pods.values().filter(|_| !nodes.is_empty()) {
        let Some(node) = pod.node.as_ref().map(AccountName::as_str).filter(|node| nodes.contains_key(node))
        else {
            continue;
        };
        if pod.addresses.is_empty() || !captured(&view.capture, view, pod) {
            continue;
        }
        let identity = SpiffeId::workload(&own.trust_domain, &own.cluster, &pod.namespace, &pod.account);
        let fresh = GatewayResource::Workload(WorkloadSpec { identity, selectors: BTreeSet::new() }.into());
        let resource =
            all.entry(node.to_owned()).or_default().entry(fresh.key()).or_insert_with(|| fresh.clone());
        if let GatewayResource::Workload(workload) = resource {
            workload.selectors.extend(pod.addresses.iter().copied().map(WorkloadSelector::Address));
        }
    }
    all
}

/// The keys under which any node is told something else.
pub(super) fn differing(old: &Workloads, new: &Workloads) -> BTreeSet<ResourceKey> {
    let none = Resources::new();
    let mut keys = BTreeSet::new();
    for node in old.keys().chain(new.keys()) {
        let (a, b) = (old.get(node).unwrap_or(&none), new.get(node).unwrap_or(&none));
        keys.extend(a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned());
    }
    keys
}
