//! The whole process against an agent's socket: what a caller, a scraper, an operator and an agent see of it, together.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tombolo_gateway::{
    config::{Agent as AgentAt, Capture, Config},
    process::{self, Bound},
};
use tombolo_model::{
    GatewayRole, Locality,
    inventory::{PortSpec, Protocol},
    snapshot::{GatewayResource, RouteSpec, SelfSpec, WorkloadSelector, WorkloadSpec},
};
use tombolo_runtime::{clock::SystemClock, drain::Drained};
use tombolo_testkit::{
    agent::{Agent, Listening},
    ca::Organization,
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);

/// A machine with an agent, and what its proxy is told.
struct Machine {
    organization: Organization,
    agent: Agent,
    _listening: Listening,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let mut organization = Organization::new("acme.test");
        let agent = Agent::new(organization.join("c1"));
        let dir = tempfile::tempdir().unwrap();
        let listening = agent.listen(&dir.path().join("agent.sock"));
        Self { organization, agent, _listening: listening, dir }
    }

    /// One route to nowhere, and these workloads.
    fn publish(&self, generation: u64, route: SocketAddr, workloads: &[(&str, &[WorkloadSelector])]) {
        let id = self.agent.cluster().intermediate.id().clone();
        let itself = SelfSpec {
            cluster: id.cluster.clone(),
            trust_domain: id.trust_domain.clone(),
            locality: Locality::default(),
        };
        let route = RouteSpec {
            name: "catalog.acme.example.com".parse().unwrap(),
            addresses: [route.ip()].into(),
            ports: vec![PortSpec {
                port: route.port(),
                protocol: Protocol::Tcp,
                name: None,
                app_protocol: None,
            }]
            .into(),
            captured_at: Default::default(),
            targets: Vec::new(),
        };
        let workloads = workloads.iter().map(|(account, selectors)| {
            let identity = self.agent.cluster().workload("default", account);
            GatewayResource::Workload(
                WorkloadSpec { identity, selectors: selectors.iter().cloned().collect() }.into(),
            )
        });
        let base = [
            GatewayResource::Itself(itself.into()),
            GatewayResource::Bundle(self.organization.bundle_spec().into()),
            GatewayResource::Route(route.into()),
            GatewayResource::Gateways { egress: Default::default() },
        ];
        self.agent.publish(generation, base.into_iter().chain(workloads));
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    async fn proxy(&self) -> Bound {
        let mut config = Config::new(GatewayRole::Sidecar, "test one", loopback());
        config.agent = Some(AgentAt::Socket { path: self.dir.path().join("agent.sock"), uid: None });
        config.capture = Capture::Explicit;
        config.serve = [IpAddr::from([127, 0, 0, 1])].into();
        config.admin = Some(loopback());
        config.access_log = Some(self.log());
        process::build(config, Arc::new(SystemClock), Handle::current()).await.unwrap()
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An address of loopback and a port on it that are free.
async fn free(ip: [u8; 4]) -> SocketAddr {
    TcpListener::bind(SocketAddr::from((ip, 0))).await.unwrap().local_addr().unwrap()
}

async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The lines of the access log, once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || async {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    until("lines of the access log", SOON, read, |lines| lines.len() >= count).await
}

/// A caller, which is reset: how it sees every refusal. It connects as most programs do, and blocks: the reset may come
/// while another kind of connect still looks whether it succeeded.
async fn refused(name: SocketAddr) -> SocketAddr {
    let call = move || {
        use std::io::Read;
        let mut caller = std::net::TcpStream::connect(name).unwrap();
        caller.set_read_timeout(Some(SOON)).unwrap();
        let local = caller.local_addr().unwrap();
        match caller.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            Ok(_) => panic!("a byte came"),
        }
        local
    };
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test]
async fn who_is_unknown_or_two_is_refused_and_log_metrics_and_report_agree() {
    let machine = Machine::new();
    let name = free([127, 83, 0, 1]).await;
    let me = nix::unistd::getuid().as_raw();
    machine.publish(1, name, &[("shopping", &[WorkloadSelector::Uid(me + 1)])]);
    let bound = machine.proxy().await;
    tokio::time::timeout(SOON, bound.ready()).await.expect("ready");
    let caller = refused(name).await;

    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let cart = [WorkloadSelector::Path(exe), WorkloadSelector::Uid(me)];
    let two = [("shopping", &cart[1..]), ("cart", &cart[..])];
    machine.publish(2, name, &two);
    let applied = bound.control().unwrap().applied();
    until("table 2", SOON, || async { applied.borrow().get() }, |generation| *generation == 2).await;
    refused(name).await;

    machine.publish(3, name, &[("shopping", &[WorkloadSelector::Uid(me)])]);
    until("table 3", SOON, || async { applied.borrow().get() }, |generation| *generation == 3).await;
    refused(name).await;

    let found = lines(&machine.log(), 3).await;
    assert_eq!(found[0]["reason"], "unknown_workload");
    assert_eq!(found[0]["original"], name.to_string());
    assert_eq!(found[0]["client"], caller.to_string());
    assert!(found[0]["detail"].as_str().unwrap().contains(&format!("uid={me}")), "{}", found[0]);
    assert_eq!(found[1]["reason"], "unknown_workload");
    let detail = found[1]["detail"].as_str().unwrap();
    assert!(detail.contains("sa/shopping") && detail.contains("sa/cart"), "{detail}");
    // known now, and nobody serves the name
    assert_eq!(found[2]["source"], machine.agent.cluster().workload("default", "shopping").to_string());
    assert_eq!(found[2]["destination"], format!("catalog.acme.example.com:{}", name.port()));
    let last = found[2]["reason"].as_str().unwrap();
    assert!(last != "ok" && last != "unknown_workload", "{last}");

    let (status, metrics) = get(bound.admin.unwrap(), "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "tombolo_gateway_captured_total 3".to_owned(),
        "tombolo_gateway_refusals_total{direction=\"outbound\",reason=\"unknown_workload\",hop=\"here\"} 2"
            .to_owned(),
        format!("tombolo_gateway_connections_total{{direction=\"outbound\",reason=\"{last}\"}} 1"),
        "tombolo_gateway_accesslog_dropped_total 0".to_owned(),
        "tombolo_gateway_snapshot_generation 3.0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    let edges =
        || async { machine.agent.heard(|h| h.statuses.last().map(|s| s.edges.clone()).unwrap_or_default()) };
    let edges = until("the edge in a report", SOON, edges, |edges| {
        edges.iter().any(|edge| edge.source == "default/shopping" && edge.failed == 1)
    })
    .await;
    assert!(edges.iter().all(|edge| edge.ok == 0));
    assert_eq!(bound.drain(SOON).await, Drained::All);
    assert!(TcpStream::connect(name).await.is_err(), "closed");
}

#[tokio::test]
async fn dumps_and_problems() {
    let machine = Machine::new();
    let holder = TcpListener::bind("127.83.0.2:0").await.unwrap();
    let name = holder.local_addr().unwrap();
    machine.publish(1, name, &[("shopping", &[WorkloadSelector::Uid(7)])]);
    let bound = machine.proxy().await;
    tokio::time::timeout(SOON, bound.ready()).await.expect("a taken port does not hold the others up");
    let admin = bound.admin.unwrap();
    let ready = || async { get(admin, "/readyz").await };
    until("readyz", SOON, ready, |(status, _)| *status == 200).await;
    let (_, table) = get(admin, "/table").await;
    for part in [
        "sidecar test one of c1, table 1",
        "tombolo-agent/",
        "PROBLEMS",
        &format!("capture of {name}: another process listens here"),
        "catalog.acme.example.com  127.83.0.2",
        "served nowhere",
        "spiffe://acme.test/cluster/c1/ns/default/sa/shopping  uid=7",
        "spiffe://acme.test/cluster/c1/gateway/sidecar  until 20",
    ] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let (_, state) = get(admin, "/state?name=catalog.acme.example.com").await;
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["generation"], &state["role"]), (&1.into(), &"sidecar".into()));
    assert_eq!(state["routes"].as_array().unwrap().len(), 1);
    let (_, none) = get(admin, "/state?name=other.acme.example.com").await;
    assert_eq!(serde_json::from_str::<Value>(&none).unwrap()["routes"].as_array().unwrap().len(), 0);
    let (_, metrics) = get(admin, "/metrics").await;
    assert!(metrics.contains("tombolo_gateway_capture_problems 1\n"), "{metrics}");
    let told = || async {
        machine.agent.heard(|h| h.statuses.last().map(|s| s.problems.clone()).unwrap_or_default())
    };
    until("the problem in a report", SOON, told, |problems| problems.len() == 1).await;

    drop(holder);
    let solved = || async { get(admin, "/metrics").await.1.contains("tombolo_gateway_capture_problems 0\n") };
    until("bound in the end", SOON, solved, |solved| *solved).await;
    until("told", SOON, told, Vec::is_empty).await;
}

/// The true program.
struct Program(Child);
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_says_when_it_is_ready_opens_its_log_again_and_ends_in_order() {
    let machine = Machine::new();
    let name = free([127, 83, 0, 3]).await;
    machine.publish(1, name, &[("shopping", &[WorkloadSelector::Uid(nix::unistd::getuid().as_raw() + 1)])]);
    let path = |name: &str| machine.dir.path().join(name).to_str().unwrap().to_owned();
    let ready = machine.dir.path().join("ready.json");
    let child = Command::new(env!("CARGO_BIN_EXE_tombolo-gateway"))
        .args(["run", "--role", "sidecar", "--instance", "test one", "--capture", "explicit"])
        .args(["--agent-socket", &path("agent.sock"), "--tunnel", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args([
            "--access-log",
            &path("access.log"),
            "--cache",
            &path("cache.json"),
            "--ready-file",
            &path("ready.json"),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(child);
    until("the ready file", SOON, || async { ready.exists() }, |there| *there).await;
    let fields: Value = serde_json::from_str(&std::fs::read_to_string(&ready).unwrap()).unwrap();
    assert_eq!(fields["pid"], program.0.id());
    assert!(fields["tunnel"].as_str().unwrap().starts_with("127.0.0.1:"));
    let admin: SocketAddr = fields["admin"].as_str().unwrap().parse().unwrap();
    let readyz = || async { get(admin, "/readyz").await.0 };
    until("readyz", SOON, readyz, |status| *status == 200).await;

    refused(name).await;
    assert_eq!(lines(&machine.log(), 1).await[0]["reason"], "unknown_workload");
    let old = machine.dir.path().join("access.log.1");
    std::fs::rename(machine.log(), &old).unwrap();
    let pid = nix::unistd::Pid::from_raw(program.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    until("the log again", SOON, || async { machine.log().exists() }, |there| *there).await;
    refused(name).await;
    assert_eq!(lines(&machine.log(), 1).await.len(), 1);

    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = || {
        let ended = program.0.try_wait().unwrap();
        async move { ended }
    };
    let status = until("the end", SOON, ended, Option::is_some).await.unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_wrong_option_is_told_and_nothing_starts() {
    let done = Command::new(env!("CARGO_BIN_EXE_tombolo-gateway"))
        .args([
            "run",
            "--role",
            "egress",
            "--capture",
            "explicit",
            "--agent-socket",
            "/a",
            "--tunnel",
            "127.0.0.1:0",
        ])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("--capture is for --role sidecar"));
}
