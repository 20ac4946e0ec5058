//! Capture mode `node`: pods of one node, which share its proxy, and are known apart by their addresses. One cluster, one node; the egress gateway is
//! on it too, and another pod serves.

use crate::talk::{self, greeting};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::Handle;
use tombolo_model::{
    Locality, Proximity, SpiffeId,
    inventory::{PortSpec, Protocol},
    snapshot::{
        EndToEnd, EndpointSpec, ExportPort, ExportSpec, GatewayResource, RouteSpec, RouteTarget, SelfSpec,
        WorkloadSelector, WorkloadSpec,
    },
};
use tombolo_testkit::{
    agent::{Agent, Listening},
    ca::Organization,
    netlab::{Lab, Namespace},
    process::{Program, binary},
    wait::{until, until_ok},
};

const SOON: Duration = Duration::from_secs(60);
const PORT: u16 = 7000;
const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);
const TUNNEL: u16 = 15_008;
const EGRESS: u16 = 15_009;
/// Where connections end that no proxy of ours takes, in the place of kube-proxy.
const PLAIN: u16 = 16_384;

/// A node with its pods. Fields are dropped in order: programs, then networks, then files.
struct Node {
    proxy: Program,
    _egress: Program,
    agent: Agent,
    organization: Organization,
    _listening: Listening,
    node: Namespace,
    pods: Vec<Namespace>,
    _lab: Lab,
    files: tempfile::TempDir,
}

/// The pods' numbers: two that call, one that serves, and one that the agent does not tell of.
const FIRST: u8 = 2;
const SECOND: u8 = 3;
const SERVER: u8 = 4;
const STRANGER: u8 = 5;

fn address(pod: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, pod)
}

impl Node {
    async fn start(how: &str) -> Self {
        Self::start_in(how, &[]).await
    }

    /// The proxy is started by this program.
    async fn start_in(how: &str, by: &[&str]) -> Self {
        let mut lab = Lab::new();
        let node = lab.namespace("node");
        node.ip(&["link", "add", "cni0", "type", "bridge"]);
        node.address("cni0", "10.244.0.1/24");
        node.sysctl("net/ipv4/ip_forward", "1");
        let pods: Vec<Namespace> = (FIRST..=STRANGER).map(|number| pod(&mut lab, &node, number)).collect();
        let files = tempfile::tempdir().expect("a folder");
        let mut organization = Organization::new("acme.test");
        let agent = Agent::new(organization.join("c1"));
        let listening = agent.listen(&files.path().join("agent.sock"));
        talk::serve(&pods[2], (address(SERVER), PORT).into(), "s1");
        talk::serve(&node, (NODE, PLAIN).into(), "gw");
        let telling = Telling { agent: &agent, organization: &organization, leaving: false };
        telling.publish(1, &[(FIRST, "first"), (SECOND, "second"), (SERVER, "server")]);
        let options = ["--node-capture", how];
        let (egress, proxy) = tokio::join!(
            gateway(&node, &files, "egress", EGRESS, &[], &[]),
            gateway(&node, &files, "node", TUNNEL, by, &options)
        );
        Self {
            proxy,
            _egress: egress,
            agent,
            organization,
            _listening: listening,
            node,
            pods,
            _lab: lab,
            files,
        }
    }

    fn pod(&self, number: u8) -> &Namespace {
        &self.pods[usize::from(number - FIRST)]
    }

    fn publish(&self, generation: u64, pods: &[(u8, &str)]) {
        let telling = Telling { agent: &self.agent, organization: &self.organization, leaving: false };
        telling.publish(generation, pods);
    }

    /// The proxy is about to end: as an agent tells it, nobody relies on it any more.
    fn publish_leaving(&self, generation: u64, pods: &[(u8, &str)]) {
        let telling = Telling { agent: &self.agent, organization: &self.organization, leaving: true };
        telling.publish(generation, pods);
    }

    /// The node holds the virtual address, too, as kube-proxy does for pods without a proxy.
    fn beside_kube_proxy(&self) {
        let plain = format!("redirect to :{PLAIN}");
        let rule = [
            "add",
            "rule",
            "ip",
            "kube",
            "services",
            "ip",
            "daddr",
            "240.0.0.1",
            "tcp",
            "dport",
            "7000",
            &plain,
        ];
        self.node.run("nft", &["add table ip kube"]);
        self.node.run("nft", &["add chain ip kube services { type nat hook prerouting priority -100; }"]);
        self.node.run("nft", &rule);
    }

    /// Who answers a pod that dials the name.
    fn call(&self, pod: u8) -> io::Result<String> {
        greeting(self.pod(pod), (VIP, PORT).into())
    }

    /// Whose connections the server's side saw last, proven by the callers' own TLS sessions.
    fn seen(&self) -> Option<String> {
        let text = fs::read_to_string(self.files.path().join("node-access.log")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let mut inbound =
            lines.filter(|line| line["direction"] == "inbound" && line["source_verified"] == true);
        inbound.next_back().and_then(|line| Some(line["source"].as_str()?.to_owned()))
    }

    /// Whether the node takes the virtual addresses for its own.
    fn local_route(&self) -> bool {
        self.node.run("ip", &["route", "show", "table", "local"]).contains("240.0.0.0/4")
    }

    async fn is_seen_as(&self, pod: u8, account: &str) {
        let wanted = self.agent.cluster().workload("default", account).to_string();
        let look = || {
            let said = self.call(pod);
            let seen = self.seen();
            let good = said.as_ref().is_ok_and(|word| word == "s1") && seen.as_ref() == Some(&wanted);
            std::future::ready(good.then_some(()).ok_or(format!("{said:?}, by {seen:?}")))
        };
        until_ok(&format!("pod {pod} is {account}"), SOON, look).await;
    }
}

fn pod(lab: &mut Lab, node: &Namespace, number: u8) -> Namespace {
    let pod = lab.namespace(&format!("pod-{number}"));
    let device = format!("veth{number}");
    node.ip(&["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", pod.name()]);
    node.ip(&["link", "set", &device, "master", "cni0", "up"]);
    pod.address("eth0", &format!("{}/24", address(number)));
    pod.route("default", &NODE.to_string());
    pod
}

async fn gateway(
    node: &Namespace,
    files: &tempfile::TempDir,
    role: &str,
    port: u16,
    by: &[&str],
    options: &[&str],
) -> Program {
    let path = |name: &str| files.path().join(name);
    let program = binary("tombolo-gateway");
    let mut command = match by.split_first() {
        None => node.command(program),
        Some((first, rest)) => {
            let mut command = node.command(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(["run", "--role", role, "--instance", role, "--tunnel", &format!("{NODE}:{port}")]);
    command.args(options).arg("--agent-socket").arg(path("agent.sock"));
    command.arg("--access-log").arg(path(&format!("{role}-access.log")));
    let ready = path(&format!("{role}.json"));
    command.arg("--ready-file").arg(&ready);
    Program::start(role, command, &ready, SOON).await
}

struct Telling<'a> {
    agent: &'a Agent,
    organization: &'a Organization,
    leaving: bool,
}

impl Telling<'_> {
    /// The name, served by one pod of the node, and the pods that the node's proxy captures, with their accounts.
    fn publish(&self, generation: u64, pods: &[(u8, &str)]) {
        let id = self.agent.cluster().intermediate.id().clone();
        let server: SpiffeId = self.agent.cluster().workload("default", "server");
        let name = "echo.acme.example.com".parse().expect("a name");
        let port = PortSpec { port: PORT, protocol: Protocol::Tcp, name: None, app_protocol: None };
        let target = RouteTarget {
            cluster: id.cluster.clone(),
            proximity: Proximity::Cluster,
            ports: [PORT].into(),
            ready: 1,
            end_to_end: if self.leaving { EndToEnd::Some } else { EndToEnd::All },
            identities: [server.clone()].into(),
        };
        let endpoint = EndpointSpec {
            address: (address(SERVER), PORT).into(),
            ready: true,
            tunnel: Some((NODE, TUNNEL).into()),
            leaving: self.leaving,
            identity: Some(server),
        };
        let of = |(pod, account): &(u8, &str)| {
            GatewayResource::Workload(
                WorkloadSpec {
                    identity: self.agent.cluster().workload("default", account),
                    selectors: [WorkloadSelector::Address(IpAddr::V4(address(*pod)))].into(),
                }
                .into(),
            )
        };
        let all = [
            GatewayResource::Itself(
                SelfSpec {
                    cluster: id.cluster.clone(),
                    trust_domain: id.trust_domain.clone(),
                    locality: Locality::default(),
                }
                .into(),
            ),
            GatewayResource::Bundle(self.organization.bundle_spec().into()),
            GatewayResource::Gateways {
                egress: std::collections::BTreeSet::from([SocketAddr::from((NODE, EGRESS))]).into(),
            },
            GatewayResource::Route(
                RouteSpec {
                    name,
                    addresses: [IpAddr::V4(VIP)].into(),
                    ports: vec![port].into(),
                    captured_at: Default::default(),
                    targets: vec![target],
                }
                .into(),
            ),
            GatewayResource::Export(
                ExportSpec {
                    name: "echo.acme.example.com".parse().expect("a name"),
                    callers: [id.cluster.clone()].into(),
                    ports: vec![ExportPort { port: PORT, endpoints: vec![endpoint] }].into(),
                }
                .into(),
            ),
        ];
        self.agent.publish(generation, all.into_iter().chain(pods.iter().map(of)));
    }
}

/// By the redirect, where kube-proxy holds the virtual address too.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_keep_their_identities() {
    beside_kube_proxy(Node::start("redirect").await, "redirect").await;
}

/// By the lookup, which this machine allows, there too. What it leaves is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_keep_their_identities_by_the_lookup() {
    let mut node = beside_kube_proxy(Node::start("auto").await, "auto").await;
    assert!(node.local_route(), "a local route brings connections");
    assert!(node.proxy.stderr().contains("lookup"), "{}", node.proxy.stderr());
    // a connection that goes on holds the route until it ends
    let (stream, word) = talk::open(node.pod(FIRST), (VIP, PORT).into()).expect("a connection");
    assert_eq!(word, "s1");
    let call = async || node.call(FIRST).map_err(|error| error.to_string());
    let ending = async {
        let word =
            until("new ones go as without a proxy", SOON, call, |word| word.as_deref() == Ok("gw")).await;
        let mut stream = stream;
        let mut back = [0; 5];
        stream.write_all(b"still").and_then(|()| stream.read_exact(&mut back)).expect("it goes on");
        assert_eq!((&back, word), (b"still", Ok("gw".to_owned())));
        stream.shutdown(Shutdown::Both).expect("it ends");
    };
    node.proxy.signal(Signal::SIGTERM);
    ending.await;
    assert!(node.proxy.wait(SOON).await.success(), "{}", node.proxy.stderr());
    assert!(!node.local_route(), "the route is gone with the last connection");
}

/// By the redirect where the lookup is not allowed: a container without the capability for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_bpf_redirects() {
    let node = Node::start_in("auto", &["setpriv", "--bounding-set", "-bpf,-sys_admin"]).await;
    let stderr = node.proxy.stderr();
    node.is_seen_as(FIRST, "first").await;
    node.is_seen_as(SECOND, "second").await;
    assert!(!node.local_route(), "{stderr}");
    let said = || std::future::ready(node.proxy.stderr());
    let _ = until("it says so", SOON, said, |said| said.contains("allows no socket lookup")).await;
}

/// Ends what runs beside, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a pod hears that calls all the while: how often each word, and what failed.
#[derive(Debug, Default)]
struct Heard {
    answers: BTreeMap<String, u32>,
    failures: Vec<String>,
}

impl Heard {
    fn often(&self, word: &str) -> u32 {
        self.answers.get(word).copied().unwrap_or_default()
    }
}

fn calling(pod: &Namespace, heard: &Mutex<Heard>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let answer = greeting(pod, (VIP, PORT).into());
        let mut heard = heard.lock().expect("no call panics");
        match answer {
            Ok(word) => *heard.answers.entry(word).or_default() += 1,
            Err(error) => heard.failures.push(error.to_string()),
        }
    }
}

/// As a DaemonSet replaces it: pods of the node that call all the while lose no call, neither when it ends nor when the next one begins; nor do
/// those who call a server behind it.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_while_a_nodes_proxy_is_replaced() {
    /// So often each pod hears a word before the next thing is done.
    const TIMES: u32 = 5;
    for how in ["auto", "redirect"] {
        let mut node = Node::start(how).await;
        node.beside_kube_proxy();
        node.is_seen_as(FIRST, "first").await;
        node.is_seen_as(SECOND, "second").await;
        node.publish_leaving(2, &[(FIRST, "first"), (SECOND, "second"), (SERVER, "server")]);
        let (over, pods) = (AtomicBool::new(false), [FIRST, SECOND].map(|pod| node.pod(pod).clone()));
        let all: [Mutex<Heard>; 2] = Default::default();
        let often =
            |word: &str| all.each_ref().map(|heard| heard.lock().expect("no call panics").often(word));
        let hear = async |word: &str| {
            let before = often(word);
            let more = |now: &[u32; 2]| now.iter().zip(before).all(|(now, before)| *now >= before + TIMES);
            until("they hear it", SOON, async || often(word), more).await;
        };
        let replacing = async |node: &mut Node| {
            for _ in 0..3 {
                hear("s1").await;
                assert!(node.proxy.stop(SOON).await.success(), "{}", node.proxy.stderr());
                hear("gw").await;
                let options = ["--node-capture", how];
                node.proxy = gateway(&node.node, &node.files, "node", TUNNEL, &[], &options).await;
            }
            hear("s1").await;
        };
        thread::scope(|scope| {
            let over = &over;
            for (pod, heard) in pods.iter().zip(&all) {
                scope.spawn(move || calling(pod, heard, over));
            }
            let _ends = Over(over);
            tokio::task::block_in_place(|| Handle::current().block_on(replacing(&mut node)));
        });
        for heard in all {
            let Heard { answers, failures } = heard.into_inner().expect("no call panicked");
            assert!(failures.is_empty(), "by {how}: {failures:?} beside {answers:?}");
        }
    }
}

async fn beside_kube_proxy(mut node: Node, how: &str) -> Node {
    node.beside_kube_proxy();
    node.is_seen_as(FIRST, "first").await;
    node.is_seen_as(SECOND, "second").await;
    node.is_seen_as(FIRST, "first").await;
    assert_eq!(node.call(STRANGER).expect("an answer"), "gw", "who is not told of goes as without a proxy");

    // A pod is gone, and another one has its address; a new one is there.
    node.publish(2, &[(FIRST, "first"), (SECOND, "third"), (SERVER, "server"), (STRANGER, "fourth")]);
    node.is_seen_as(SECOND, "third").await;
    node.is_seen_as(STRANGER, "fourth").await;

    // A proxy that ends in order gives its pods back; one that is killed keeps them.
    assert!(node.proxy.stop(SOON).await.success(), "{}", node.proxy.stderr());
    assert_eq!(node.call(FIRST).expect("an answer"), "gw");
    node.proxy = gateway(&node.node, &node.files, "node", TUNNEL, &[], &["--node-capture", how]).await;
    node.is_seen_as(FIRST, "first").await;
    node.proxy.kill();
    assert!(node.call(FIRST).is_err(), "it does not go around its proxy");
    node.proxy = gateway(&node.node, &node.files, "node", TUNNEL, &[], &["--node-capture", how]).await;
    node.is_seen_as(SECOND, "third").await;
    node
}

/// By the lookup, where kube-proxy does not.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_keep_their_identities_without_netfilter() {
    let mut node = Node::start("lookup").await;
    node.is_seen_as(FIRST, "first").await;
    node.is_seen_as(SECOND, "second").await;
    assert!(node.call(STRANGER).is_err(), "nobody knows who it is");
    assert_eq!(node.node.run("nft", &["list", "ruleset"]), "", "nothing of netfilter is used");
    node.publish(2, &[(FIRST, "third"), (SERVER, "server")]);
    node.is_seen_as(FIRST, "third").await;
    node.proxy.kill();
    assert!(node.call(FIRST).is_err(), "refused, and not sent on");
}
