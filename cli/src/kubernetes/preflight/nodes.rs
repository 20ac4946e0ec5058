//! Whether there are nodes on which the pods of agent and gateways run: of a kind that there are images of, and with room.

use super::{super::NAMESPACE, Asked, Finding, Verdict, finding, name, quantity::milli, some, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const WHAT: &str = "nodes";
const ROOM: &str = "room";
/// What there are images for.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Agents, egress and ingress gateways: two each.
const PODS: usize = 6;
/// What each of them asks for, in thousandths: of processors, of bytes.
const CPU: i128 = 50;
const MEMORY: i128 = 1_000 * (64 << 20);

/// A node, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    architecture: String,
    system: String,
    /// Why no pod of ours goes there.
    closed: Option<String>,
    pub(super) external: Vec<String>,
    pub(super) internal: Vec<String>,
    /// Who runs the machine, as `aws`; empty where nobody says so.
    pub(super) provider: String,
    cpu: i128,
    memory: i128,
    pods: i128,
}

impl Node {
    /// Whether pods of ours run there.
    pub(super) fn is_usable(&self) -> bool {
        self.closed.is_none() && self.has_images()
    }

    fn has_images(&self) -> bool {
        self.system == "linux" && ARCHITECTURES.contains(&self.architecture.as_str())
    }

    fn of(node: &Value) -> Self {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.filter(|one| one["type"] == "Ready").any(|one| one["status"] == "True");
        let mut taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let taint = taints.find(|taint| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute"));
        let closed = match taint {
            _ if !ready => Some("not ready".to_owned()),
            _ if node["spec"]["unschedulable"] == true => Some("cordoned".to_owned()),
            Some(taint) => Some(format!("taint {}", text(taint, "/key"))),
            None => None,
        };
        let addresses = |kind: &str| {
            let all = node["status"]["addresses"].as_array().into_iter().flatten();
            all.filter(|one| one["type"] == kind).map(|one| text(one, "/address").to_owned()).collect()
        };
        let allocatable = |what: &str| milli(text(node, &format!("/status/allocatable/{what}"))).unwrap_or(0);
        let provider = text(node, "/spec/providerID").split_once("://").map_or("", |(provider, _)| provider);
        Self {
            name: name(node),
            architecture: text(node, "/status/nodeInfo/architecture").to_owned(),
            system: text(node, "/status/nodeInfo/operatingSystem").to_owned(),
            closed,
            external: addresses("ExternalIP"),
            internal: addresses("InternalIP"),
            provider: provider.to_owned(),
            cpu: allocatable("cpu"),
            memory: allocatable("memory"),
            pods: allocatable("pods") / 1_000,
        }
    }
}

/// The nodes, or why they can't be looked at.
pub(super) async fn read(asked: &Asked<'_>) -> Result<Vec<Node>, String> {
    Ok(asked.list("/api/v1/nodes").await?.iter().map(Node::of).collect())
}

pub(super) async fn look(asked: &Asked<'_>, nodes: &Result<Vec<Node>, String>) -> Vec<Finding> {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(why) => return vec![finding(WHAT, Verdict::Less, format!("they can't be looked at: {why}"))],
    };
    let kinds = kinds(nodes);
    if !nodes.iter().any(Node::is_usable) {
        return vec![kinds];
    }
    let room =
        match asked.list("/api/v1/pods?fieldSelector=status.phase!=Succeeded,status.phase!=Failed").await {
            Ok(pods) => room(nodes, &pods),
            Err(why) => finding(ROOM, Verdict::Less, format!("it can't be looked at: {why}")),
        };
    vec![kinds, room]
}

fn kinds(nodes: &[Node]) -> Finding {
    let usable: Vec<&Node> = nodes.iter().filter(|node| node.is_usable()).collect();
    let why = |node: &Node| match &node.closed {
        _ if !node.has_images() => format!("{} ({}/{})", node.name, node.system, node.architecture),
        Some(why) => format!("{} ({why})", node.name),
        None => node.name.clone(),
    };
    if nodes.is_empty() {
        return finding(WHAT, Verdict::Less, "there is none yet; an autoscaler has to make one, or you");
    }
    if usable.is_empty() {
        let all = some(&nodes.iter().map(why).collect::<Vec<_>>());
        let images = format!("images are for linux/{}", ARCHITECTURES.join(" and linux/"));
        if !nodes.iter().any(Node::has_images) {
            let said = format!("none of a kind that there are images for: {all}; {images}: add a node");
            return finding(WHAT, Verdict::Missing, said);
        }
        let said = format!(
            "none takes pods now: {all}. Take a taint off, or an autoscaler has to make one; {images}"
        );
        return finding(WHAT, Verdict::Less, said);
    }
    let architectures: BTreeSet<&str> = usable.iter().map(|node| node.architecture.as_str()).collect();
    let architectures = architectures.into_iter().collect::<Vec<_>>().join(", ");
    let others: Vec<String> = nodes.iter().filter(|node| !node.has_images()).map(why).collect();
    if !others.is_empty() {
        let said = format!(
            "{} of {} usable ({architectures}); there are no images for {}: pods there get no proxy, and reach global names as in mode gateway",
            usable.len(),
            nodes.len(),
            some(&others)
        );
        return finding(WHAT, Verdict::Less, said);
    }
    if usable.len() == 1 {
        let said = format!(
            "one usable ({}, {architectures}): both replicas of each part are there, and it is one thing to fail",
            usable[0].name
        );
        return finding(WHAT, Verdict::Less, said);
    }
    finding(WHAT, Verdict::Good, format!("{} of {} usable ({architectures})", usable.len(), nodes.len()))
}

fn room(nodes: &[Node], pods: &[Value]) -> Finding {
    let mut asked: BTreeMap<&str, (i128, i128, i128)> = BTreeMap::new();
    // our own are counted among the six
    for pod in pods.iter().filter(|pod| text(pod, "/metadata/namespace") != NAMESPACE) {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let of = |container: &Value, what: &str| {
            milli(text(container, &format!("/resources/requests/{what}"))).unwrap_or(0)
        };
        let all = asked.entry(text(pod, "/spec/nodeName")).or_default();
        for container in containers {
            (all.0, all.1) = (all.0 + of(container, "cpu"), all.1 + of(container, "memory"));
        }
        all.2 += 1;
    }
    let fit = |node: &&Node| {
        let (cpu, memory, pods) = asked.get(node.name.as_str()).copied().unwrap_or_default();
        let by = [(node.cpu - cpu) / CPU, (node.memory - memory) / MEMORY, node.pods - pods];
        usize::try_from(by.into_iter().min().unwrap_or(0)).unwrap_or(0)
    };
    let fits: usize = nodes.iter().filter(|node| node.is_usable()).map(|node| fit(&node)).sum();
    if fits >= PODS {
        return finding(ROOM, Verdict::Good, format!("for {PODS} pods with {CPU}m of CPU and 64Mi each"));
    }
    let said = format!(
        "for {fits} pods of {PODS} (agents and gateways, {CPU}m of CPU and 64Mi each): the others wait until an autoscaler makes a node, or \
         you do, or something else goes (they have the priority system-cluster-critical)"
    );
    finding(ROOM, Verdict::Less, said)
}

/// One that takes pods, for tests.
#[cfg(test)]
pub(super) fn tests_node(name: &str) -> Node {
    let internal = vec!["10.0.0.1".to_owned()];
    let (architecture, system) = ("amd64".to_owned(), "linux".to_owned());
    Node { name: name.to_owned(), architecture, system, internal, ..Node::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, architecture: &str) -> Value {
        json!({
            "metadata": { "name": name },
            "spec": { "providerID": "aws:///eu-1/i-1" },
            "status": {
                "nodeInfo": { "architecture": architecture, "operatingSystem": "linux" },
                "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
                "allocatable": { "cpu": "1", "memory": "1Gi", "pods": "10" },
            },
        })
    }

    fn verdict(nodes: &[Value]) -> (Verdict, String) {
        let found = kinds(&nodes.iter().map(Node::of).collect::<Vec<_>>());
        (found.verdict, found.said)
    }

    #[test]
    fn pods_run_where_there_are_images() {
        assert_eq!(verdict(&[node("a", "amd64"), node("b", "arm64")]).0, Verdict::Good);
        assert_eq!(verdict(&[node("a", "amd64")]).0, Verdict::Less, "one thing to fail");
        let (found, said) = verdict(&[node("a", "amd64"), node("b", "arm64"), node("c", "s390x")]);
        assert!(found == Verdict::Less && said.contains("c (linux/s390x)"), "{said}");
        let mut windows = node("w", "amd64");
        windows["status"]["nodeInfo"]["operatingSystem"] = json!("windows");
        let (found, said) = verdict(&[windows]);
        assert!(found == Verdict::Missing && said.contains("w (windows/amd64)"), "{said}");
        assert_eq!(verdict(&[]).0, Verdict::Less, "an autoscaler makes some");
        let of = Node::of(&node("a", "amd64"));
        assert_eq!(
            (of.provider.as_str(), of.internal.as_slice()),
            ("aws", ["10.0.0.1".to_owned()].as_slice())
        );
    }

    #[test]
    fn pods_run_where_they_may() {
        let mut tainted = node("t", "amd64");
        tainted["spec"]["taints"] = json!([{ "key": "dedicated", "effect": "NoSchedule" }]);
        let mut cordoned = node("c", "amd64");
        cordoned["spec"]["unschedulable"] = json!(true);
        let mut lost = node("l", "amd64");
        lost["status"]["conditions"][0]["status"] = json!("Unknown");
        let (found, said) = verdict(&[tainted.clone(), cordoned, lost]);
        assert_eq!(found, Verdict::Less, "an autoscaler makes others");
        for why in ["t (taint dedicated)", "c (cordoned)", "l (not ready)"] {
            assert!(said.contains(why), "{why}: {said}");
        }
        tainted["spec"]["taints"][0]["effect"] = json!("PreferNoSchedule");
        assert!(verdict(&[tainted]).1.contains("one usable"));
    }

    #[test]
    fn there_is_room() {
        let nodes = [Node::of(&node("a", "amd64"))];
        let pod = |cpu: &str, memory: &str| {
            let container = json!({ "resources": { "requests": { "cpu": cpu, "memory": memory } } });
            json!({ "spec": { "nodeName": "a", "containers": [container] } })
        };
        assert_eq!(room(&nodes, &[]).verdict, Verdict::Good);
        assert_eq!(room(&nodes, &[pod("700m", "0")]).verdict, Verdict::Good, "300m are enough");
        let found = room(&nodes, &[pod("710m", "0")]);
        assert!(found.verdict == Verdict::Less && found.said.starts_with("for 5 pods"), "{found:?}");
        assert_eq!(room(&nodes, &[pod("0", "1Gi")]).verdict, Verdict::Less, "what is full may grow");
        let mut own = pod("1", "1Gi");
        own["metadata"]["namespace"] = json!(NAMESPACE);
        assert_eq!(room(&nodes, &[own]).verdict, Verdict::Good, "it is what room is asked for");
        let many: Vec<Value> = (0..6).map(|_| pod("0", "0")).collect();
        assert!(room(&nodes, &many).said.starts_with("for 4 pods"), "of ten pods");
        let elsewhere = json!({ "spec": { "nodeName": "b", "containers": [{ "resources": { "requests": { "cpu": "9" } } }] } });
        assert_eq!(room(&nodes, &[elsewhere]).verdict, Verdict::Good);
    }
}
