//! At which addresses other clusters reach the ingress gateways. Pure.

use super::objects::TUNNEL;
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr};
use tombolo_model::install::Exposure;

/// More nodes than these need not be dialled: any of them leads to every gateway.
const MOST_NODES: usize = 8;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ready: bool,
    /// Its address for others: the external one where it has one.
    pub(super) address: IpAddr,
}

impl Node {
    /// As it was read; none without an address.
    pub(super) fn read(node: &Value) -> Option<Self> {
        let list = |of: &str| node["status"][of].as_array().cloned().unwrap_or_default();
        let addresses = list("addresses");
        let of = |kind: &str| {
            addresses
                .iter()
                .find(|one| one["type"] == kind)
                .and_then(|one| one["address"].as_str()?.parse().ok())
        };
        let ready = list("conditions").iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let gone = node["spec"]["unschedulable"] == true || !node["metadata"]["deletionTimestamp"].is_null();
        Some(Self {
            name: node["metadata"]["name"].as_str()?.to_owned(),
            ready: ready && !gone,
            address: of("ExternalIP").or_else(|| of("InternalIP"))?,
        })
    }
}

/// What was found, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// `host:port` each.
    pub(super) found: BTreeSet<String>,
    /// In words.
    pub(super) waiting: Vec<String>,
}

/// Works the addresses out. `hosts` are the nodes on which ready ingress gateways run.
pub(super) fn addresses(
    ways: &[Exposure],
    service: Option<&Value>,
    nodes: &BTreeSet<Node>,
    hosts: &BTreeSet<String>,
) -> Addresses {
    let mut all = Addresses::default();
    for way in ways {
        let (found, otherwise) = match way {
            Exposure::LoadBalancer { .. } => (
                balanced(service),
                "the Service tombolo-ingress has no address of a load balancer; where the cluster makes none, install with \
                 --ingress node-port or host-network, or give addresses",
            ),
            Exposure::NodePort { .. } => {
                (node_ports(service, nodes), "the Service tombolo-ingress has no node port yet")
            }
            Exposure::HostNetwork => {
                let on = nodes.iter().filter(|node| hosts.contains(&node.name));
                (
                    on.map(|node| at(node.address, TUNNEL)).collect(),
                    "no ingress gateway is ready on a node's network",
                )
            }
            Exposure::Address { addresses } => (addresses.clone(), ""),
        };
        if found.is_empty() {
            all.waiting.push(otherwise.to_owned());
        }
        all.found.extend(found);
    }
    all
}

fn at(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

fn balanced(service: Option<&Value>) -> BTreeSet<String> {
    let ways = service.and_then(|s| s["status"]["loadBalancer"]["ingress"].as_array());
    let one = |way: &Value| {
        let ip = way["ip"].as_str().and_then(|ip| ip.parse().ok()).map(|ip| at(ip, TUNNEL));
        ip.or_else(|| way["hostname"].as_str().map(|name| format!("{name}:{TUNNEL}")))
    };
    ways.into_iter().flatten().filter_map(one).collect()
}

fn node_ports(service: Option<&Value>, nodes: &BTreeSet<Node>) -> BTreeSet<String> {
    // others may have added ports of their own, and before ours
    let ports = service.and_then(|s| s["spec"]["ports"].as_array());
    let tunnel = ports.and_then(|ports| ports.iter().find(|port| port["name"] == "tunnel"));
    let port = tunnel.and_then(|port| port["nodePort"].as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return BTreeSet::new() };
    // where none is ready, it may be that nobody hears of them any more; they are no worse than none
    let any = nodes.iter().any(|node| node.ready);
    let these = nodes.iter().filter(|node| node.ready || !any).take(MOST_NODES);
    these.map(|node| at(node.address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_node_port_is_the_tunnels_wherever_it_stands() {
        let node = Node { name: "n1".to_owned(), ready: true, address: "192.0.2.1".parse().unwrap() };
        let foreign = json!({ "name": "theirs", "port": 80, "nodePort": 30_080 });
        let tunnel = json!({ "name": "tunnel", "port": TUNNEL, "nodePort": 31_443 });
        let nodes = BTreeSet::from([node]);
        for ports in [json!([foreign, tunnel]), json!([tunnel, foreign])] {
            let service = json!({ "spec": { "ports": ports } });
            assert_eq!(node_ports(Some(&service), &nodes), BTreeSet::from(["192.0.2.1:31443".to_owned()]));
        }
        let service = json!({ "spec": { "ports": [foreign] } });
        assert!(node_ports(Some(&service), &nodes).is_empty(), "a port of others leads to no gateway");
    }
}
