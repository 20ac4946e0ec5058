//! Whether other clusters will reach the ingress gateways the way that `--ingress` names.

use super::{Asked, Finding, Verdict, finding, name, nodes::Node, refused, some, text};
use crate::problem::CliError;
use serde_json::{Value, json};
use std::{fmt, ops::RangeInclusive, str::FromStr};

const WHAT: &str = "ingress";
/// Where peers' tunnels come in.
const TUNNEL: u16 = 15443;
/// The node ports that an API server gives where it is told nothing.
const RANGE: RangeInclusive<u16> = 30_000..=32_767;
/// Who gives addresses to Services, and the API group or the custom resource by which each is seen.
const BALANCERS: [(&str, &str); 4] = [
    ("MetalLB", "/apis/metallb.io"),
    ("Cilium", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ciliumloadbalancerippools.cilium.io"),
    ("kube-vip", "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-vip-ds"),
    ("OpenELB", "/apis/network.kubesphere.io"),
];
/// Machines of these have a controller for it.
const CLOUDS: [&str; 10] =
    ["aws", "azure", "digitalocean", "gce", "hcloud", "ibm", "linode", "oci", "openstack", "vultr"];

/// A way from other clusters to the ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    LoadBalancer,
    /// With the port that is asked for.
    NodePort(Option<u16>),
    HostNetwork,
    /// `host:port`.
    Address(String),
}

impl FromStr for Way {
    type Err = CliError;

    fn from_str(way: &str) -> Result<Self, CliError> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        match way.split_once('=') {
            None if way == "load-balancer" => Ok(Self::LoadBalancer),
            None if way == "node-port" => Ok(Self::NodePort(None)),
            None if way == "host-network" => Ok(Self::HostNetwork),
            Some(("node-port", number)) if port(number).is_some() => Ok(Self::NodePort(port(number))),
            None if way.rsplit_once(':').is_some_and(|(_, number)| port(number).is_some()) => {
                Ok(Self::Address(way.to_owned()))
            }
            _ => {
                let all = "load-balancer, node-port, node-port=31443, host-network or HOST:PORT";
                Err(CliError::Usage(format!("--ingress {way}: write {all}")))
            }
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer => f.write_str("load-balancer"),
            Self::NodePort(None) => f.write_str("node-port"),
            Self::NodePort(Some(port)) => write!(f, "node-port={port}"),
            Self::HostNetwork => f.write_str("host-network"),
            Self::Address(address) => f.write_str(address),
        }
    }
}

pub(super) async fn look(asked: &Asked<'_>, way: &Way, nodes: &Result<Vec<Node>, String>) -> Finding {
    let (verdict, said) = match way {
        Way::LoadBalancer => balancer(asked, nodes.as_deref().unwrap_or_default()).await,
        Way::NodePort(port) => node_port(asked, *port, nodes.as_deref()).await,
        Way::HostNetwork => {
            let pods =
                asked.list("/api/v1/pods?fieldSelector=status.phase!=Succeeded,status.phase!=Failed").await;
            match (nodes, pods) {
                (Ok(nodes), Ok(pods)) => host_network(nodes, &pods),
                (Err(why), _) => unseen("nodes", why),
                (_, Err(why)) => unseen("pods", &why),
            }
        }
        Way::Address(_) => {
            (Verdict::Good, "somebody else leads it to the Service tombolo-system/tombolo-ingress".to_owned())
        }
    };
    finding(WHAT, verdict, format!("{way}: {said}"))
}

/// What can't be listed is not nothing.
fn unseen(what: &str, why: &str) -> (Verdict, String) {
    (Verdict::Less, format!("the {what} can't be looked at: {why}"))
}

async fn balancer(asked: &Asked<'_>, nodes: &[Node]) -> (Verdict, String) {
    let services = match asked.list("/api/v1/services").await {
        Ok(services) => services,
        Err(why) => return unseen("Services", &why),
    };
    let mut known = None;
    for (who, path) in BALANCERS {
        if matches!(asked.find(path).await, Ok(Some(_))) {
            known = Some(who);
            break;
        }
    }
    balanced(&services, nodes, known)
}

fn balanced(services: &[Value], nodes: &[Node], known: Option<&str>) -> (Verdict, String) {
    let of_kind: Vec<&Value> = services.iter().filter(|one| one["spec"]["type"] == "LoadBalancer").collect();
    let given = |service: &&&Value| {
        service["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|all| !all.is_empty())
    };
    if let Some(service) = of_kind.iter().find(given) {
        return (Verdict::Good, format!("Services get addresses here, as {}", name(service)));
    }
    let waiting: Vec<String> = of_kind.iter().map(|service| name(service)).collect();
    if !waiting.is_empty() {
        let said = format!(
            "{} waits for an address; see to what gives them, or install with --ingress node-port, host-network or HOST:PORT",
            some(&waiting)
        );
        return (Verdict::Less, said);
    }
    let cloud = nodes.iter().find(|node| CLOUDS.contains(&node.provider.as_str()));
    match (known, cloud) {
        (Some(who), _) => (Verdict::Good, format!("{who} is here")),
        (None, Some(node)) => {
            (Verdict::Good, format!("the nodes are of {}, which has load balancers", node.provider))
        }
        (None, None) => {
            let said = "nobody is seen here who gives addresses to Services; install MetalLB or the like, or install with \
                        --ingress node-port, host-network or HOST:PORT";
            (Verdict::Less, said.to_owned())
        }
    }
}

/// Asked by a trial, which nothing comes of.
async fn node_port(
    asked: &Asked<'_>,
    port: Option<u16>,
    nodes: Result<&[Node], &String>,
) -> (Verdict, String) {
    let mut one = json!({ "port": TUNNEL });
    if let Some(port) = port {
        one["nodePort"] = json!(port);
    }
    match asked.try_service(&json!({ "type": "NodePort", "ports": [one] })).await {
        // of a trial the API server does not say that a port is outside of its range
        Ok(_) => match port.filter(|port| !RANGE.contains(port)) {
            None => nodes.map_or_else(|why| unseen("nodes", why), reachable),
            Some(_) => {
                let said = format!(
                    "outside of Kubernetes' own range, {} to {}; ask for another port, or see that the API server's \
                     --service-node-port-range has it",
                    RANGE.start(),
                    RANGE.end()
                );
                (Verdict::Less, said)
            }
        },
        Err(error) => {
            let why = refused(&error);
            // anybody may have refused it, for anything
            let of_port =
                matches!(&error, kube::Error::Api(status) if status.code == 422) && why.contains("nodePort");
            if of_port {
                (Verdict::Missing, format!("refused ({why}); ask for another port, or for none"))
            } else {
                (Verdict::Less, format!("it can't be tried: {why}"))
            }
        }
    }
}

/// Whether others can reach the nodes, as far as their addresses say.
fn reachable(nodes: &[Node]) -> (Verdict, String) {
    if nodes.iter().any(|node| !node.external.is_empty()) {
        return (Verdict::Good, "at the nodes' external addresses".to_owned());
    }
    let internal: Vec<String> = nodes.iter().flat_map(|node| node.internal.clone()).collect();
    if internal.is_empty() {
        let said = "no node has an address that is known; install with --ingress load-balancer or HOST:PORT";
        return (Verdict::Less, said.to_owned());
    }
    (
        Verdict::Good,
        format!(
            "at {}, which the other clusters must reach: no node has an external address",
            some(&internal)
        ),
    )
}

fn host_network(nodes: &[Node], pods: &[Value]) -> (Verdict, String) {
    let takes = |pod: &&Value| {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
        let on_host = pod["spec"]["hostNetwork"] == true;
        ports.any(|port| port["hostPort"] == TUNNEL || (on_host && port["containerPort"] == TUNNEL))
    };
    let ours = |pod: &Value| text(pod, "/metadata/namespace") == super::super::NAMESPACE;
    let taken: Vec<&Value> = pods.iter().filter(takes).filter(|pod| !ours(pod)).collect();
    let is_free =
        |node: &&Node| node.is_usable() && !taken.iter().any(|pod| text(pod, "/spec/nodeName") == node.name);
    let free = nodes.iter().filter(is_free).count();
    let names: Vec<String> = taken.iter().map(|pod| name(pod)).collect();
    let by =
        if names.is_empty() { String::new() } else { format!(", for {} has it elsewhere", some(&names)) };
    match free {
        0 if names.is_empty() => (Verdict::Less, "no node takes pods now".to_owned()),
        0 => (Verdict::Missing, format!("port {TUNNEL} is free on no node{by}")),
        1 => (
            Verdict::Less,
            format!(
                "port {TUNNEL} is free on one node{by}: there is room for one ingress gateway, not for two; add a node"
            ),
        ),
        free => {
            let (verdict, said) = reachable(nodes);
            (verdict, format!("port {TUNNEL} is free on {free} nodes, {said}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, ingress: Value) -> Value {
        json!({ "metadata": { "namespace": "web", "name": name }, "spec": { "type": "LoadBalancer" },
                "status": { "loadBalancer": { "ingress": ingress } } })
    }

    fn node(name: &str) -> Node {
        super::super::nodes::tests_node(name)
    }

    #[test]
    fn who_gives_addresses() {
        let (given, waiting) = (service("a", json!([{ "ip": "203.0.113.1" }])), service("b", json!(null)));
        let good = |services: &[Value], nodes: &[Node], known| balanced(services, nodes, known).0;
        assert_eq!(good(&[waiting.clone(), given], &[], None), Verdict::Good);
        let (verdict, said) = balanced(&[waiting], &[], Some("MetalLB"));
        assert!(verdict == Verdict::Less && said.contains("web/b waits"), "{said}");
        assert_eq!(good(&[], &[], Some("MetalLB")), Verdict::Good);
        let mut machine = node("a");
        assert_eq!(good(&[], std::slice::from_ref(&machine), None), Verdict::Less);
        machine.provider = "gce".to_owned();
        assert_eq!(good(&[], &[machine], None), Verdict::Good);
    }

    #[test]
    fn a_port_of_the_nodes() {
        let (one, two) = (node("a"), node("b"));
        let pod = |on: &str, spec: Value| {
            let mut pod = json!({ "metadata": { "namespace": "web", "name": "p" }, "spec": spec });
            pod["spec"]["nodeName"] = json!(on);
            pod
        };
        let ports = |port: Value| json!([{ "ports": [port] }]);
        let nodes = [one, two];
        assert_eq!(host_network(&nodes, &[]).0, Verdict::Good);
        let takes =
            pod("a", json!({ "containers": ports(json!({ "containerPort": 1, "hostPort": TUNNEL })) }));
        let (verdict, said) = host_network(&nodes, std::slice::from_ref(&takes));
        assert!(verdict == Verdict::Less && said.contains("web/p"), "{said}");
        let too =
            pod("b", json!({ "hostNetwork": true, "containers": ports(json!({ "containerPort": TUNNEL })) }));
        assert_eq!(host_network(&nodes, &[takes, too]).0, Verdict::Missing);
        let own = pod("b", json!({ "containers": ports(json!({ "containerPort": TUNNEL })) }));
        assert_eq!(host_network(&nodes, &[own]).0, Verdict::Good, "in a network of its own");
    }

    #[test]
    fn ways_are_read_as_they_are_written() {
        for way in ["load-balancer", "node-port", "node-port=31443", "host-network", "gw.example.com:443"] {
            assert_eq!(way.parse::<Way>().unwrap().to_string(), way);
        }
        for wrong in ["nodeport", "node-port=x", "gw.example.com", "host-network=1"] {
            assert!(wrong.parse::<Way>().is_err(), "{wrong}");
        }
    }
}
