//! Standalone clusters on loopback, as the demo has them: a caller, one that serves in the same zone, and one far off
//! that serves a little of the same.

use crate::{
    SOON,
    servers::{FAR, NEAR, Servers},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tombolo_mtls::{parse_pin, pinned_client_config};
use tombolo_testkit::{
    process::{Program, binary},
    wait::{until, until_ok},
};

/// The controller's API.
pub(crate) struct Api {
    http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) fingerprint: String,
    token: String,
}

impl Api {
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token).send();
        answer.await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token);
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{path}: {body}");
        body
    }

    pub(crate) async fn join_token(&self, cluster: &str) -> String {
        let path = format!("/organizations/acme/clusters/{cluster}/onboarding-tokens");
        self.post(&path, json!({})).await["token"].as_str().unwrap().to_owned()
    }
}

/// Everything that runs. Dropped in this order; the folder last.
pub(crate) struct World {
    pub(crate) egress: Program,
    pub(crate) agent: Program,
    pub(crate) others: Vec<(String, Program)>,
    pub(crate) controller: Program,
    pub(crate) api: Api,
    pub(crate) servers: Servers,
    base: u8,
    dir: tempfile::TempDir,
}

/// Where psql is: the program itself, not a wrapper around it, for a workload is known by its executable.
pub(crate) fn psql() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin/psql")).find(|path| path.exists());
    let found = found.or_else(|| std::env::var_os("TOMBOLO_PG_BIN").map(|bin| Path::new(&bin).join("psql")));
    let path = found.filter(|path| path.exists());
    path.expect("no psql found: install the package postgresql-client").canonicalize().unwrap()
}

fn nc() -> PathBuf {
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("nc.openbsd"))
        .find(|path| path.exists());
    path.expect("no nc.openbsd found: install the package netcat-openbsd")
}

impl World {
    pub(crate) async fn start() -> Self {
        // For a thousand connections with both ends here. The programs raise their own (see `usual_limit`).
        tombolo_runtime::limits::raise_open_files().unwrap();
        let dir = tempfile::Builder::new().prefix("tombolo-e2e-").tempdir().unwrap();
        // As root, PostgreSQL runs as another user and must get through.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        for name in ["nc", "stranger"] {
            fs::copy(nc(), dir.path().join(name)).unwrap();
        }
        let base = base().await;
        let (controller, api) = controller(dir.path()).await;
        let servers = Servers::start(machine(base, 2), machine(base, 3)).await;
        let mut others = Vec::new();
        for cluster in 1..=3 {
            let name = format!("cluster-{cluster}");
            let home = dir.path().join(&name);
            fs::create_dir_all(home.join("manifests")).unwrap();
            let region = if cluster == 3 { "north" } else { "south" };
            let locality = json!({ "region": region, "zone": format!("{region}-a") });
            api.post("/organizations/acme/clusters", json!({ "name": name, "locality": locality })).await;
            let token = api.join_token(&name).await;
            let joined = join(&api, &name, &home.join("agent"), &token).await;
            assert!(joined.status.success(), "{joined:?}");
            let agent = Self::start_agent(dir.path(), base, cluster).await;
            others.push((format!("{name}-agent"), agent));
            others.push((format!("{name}-dns"), Self::start_dns(dir.path(), base, cluster).await));
            for role in ["egress", "ingress", "sidecar"] {
                let gateway = Self::start_gateway(dir.path(), base, cluster, role).await;
                others.push((format!("{name}-{role}"), gateway));
            }
        }
        let take = |others: &mut Vec<(String, Program)>, name: &str| {
            let at = others.iter().position(|(other, _)| other == name).unwrap();
            others.remove(at).1
        };
        let (agent, egress) = (take(&mut others, "cluster-1-agent"), take(&mut others, "cluster-1-egress"));
        let world = Self { egress, agent, others, controller, api, servers, base, dir };
        let clients =
            [("tester", std::env::current_exe().unwrap().canonicalize().unwrap()), ("psql", psql())];
        let clients = clients.into_iter().chain([("nc", world.path("nc").canonicalize().unwrap())]);
        world.manifests(1, &clients.map(|(name, path)| account(name, &path)).collect::<String>());
        world.manifests(2, &world.servers.manifests());
        world.manifests(3, &world.servers.far_manifests());
        let rules = json!([{ "cluster": { "labels": {} }, "namespace": { "name": "default" } }]);
        let body = json!({ "name": "acme", "domain": "acme.example.com", "rules": rules });
        world.api.post("/organizations/acme/global-namespaces", body).await;
        until_ok("a first connection across the clusters", SOON, || world.greeted()).await;
        world
    }

    async fn start_agent(dir: &Path, base: u8, cluster: u8) -> Program {
        let home = dir.join(format!("cluster-{cluster}"));
        let mut command = usual_limit("tombolo-agent");
        command.args(["run", "--admin", "127.0.0.1:0"]);
        for (option, name) in [
            ("--data", "agent"),
            ("--manifests", "manifests"),
            ("--gateway-socket", "gateways.sock"),
            ("--ready-file", "agent.json"),
        ] {
            command.arg(option).arg(home.join(name));
        }
        command.arg("--explicit-prefix").arg(format!("127.{}.0.0/16", base + cluster));
        Program::start(&format!("cluster-{cluster}-agent"), command, &home.join("agent.json"), SOON).await
    }

    async fn start_dns(dir: &Path, base: u8, cluster: u8) -> Program {
        let home = dir.join(format!("cluster-{cluster}"));
        let mut command = Command::new(binary("tombolo-agent"));
        command
            .args(["dns", "--dns-forward", "refuse", "--dns"])
            .arg(format!("{}:5353", machine(base, cluster)));
        command.arg("--data").arg(home.join("agent")).arg("--ready-file").arg(home.join("dns.json"));
        Program::start(&format!("cluster-{cluster}-dns"), command, &home.join("dns.json"), SOON).await
    }

    async fn start_gateway(dir: &Path, base: u8, cluster: u8, role: &str) -> Program {
        let home = dir.join(format!("cluster-{cluster}"));
        let address = machine(base, cluster);
        let mut command = usual_limit("tombolo-gateway");
        command.args(["run", "--role", role, "--admin", "127.0.0.1:0", "--instance", role]);
        for (option, name) in [
            ("--agent-socket", "gateways.sock".to_owned()),
            ("--access-log", format!("{role}-access.log")),
            ("--cache", format!("{role}.cache")),
            ("--ready-file", format!("{role}.json")),
        ] {
            command.arg(option).arg(home.join(name));
        }
        match role {
            "ingress" => {
                let address = format!("{address}:15443");
                command.args(["--tunnel", &address, "--advertise", &address]);
            }
            "sidecar" => {
                command.args(["--tunnel", &format!("{address}:0"), "--capture", "explicit"]);
                command.args(["--serve", &address.to_string()]);
            }
            _ => {
                command.args(["--tunnel", &format!("{address}:0")]);
            }
        }
        let ready = home.join(format!("{role}.json"));
        Program::start(&format!("cluster-{cluster}-{role}"), command, &ready, SOON).await
    }

    /// Cluster-1's agent, once more.
    pub(crate) async fn restart_agent(&mut self) {
        self.agent = Self::start_agent(self.dir.path(), self.base, 1).await;
    }

    /// Cluster-1's egress gateway, once more.
    pub(crate) async fn restart_egress(&mut self) {
        self.egress = Self::start_gateway(self.dir.path(), self.base, 1, "egress").await;
    }

    /// Kills the ingress gateway of cluster-2 without a word.
    pub(crate) fn kill_ingress(&mut self) {
        let ingress = self.others.iter_mut().find(|(name, _)| name == "cluster-2-ingress");
        ingress.unwrap().1.kill();
    }

    /// Cluster-2's ingress gateway, once more, where it was.
    pub(crate) async fn restart_ingress(&mut self) {
        let new = Self::start_gateway(self.dir.path(), self.base, 2, "ingress").await;
        self.others.iter_mut().find(|(name, _)| name == "cluster-2-ingress").unwrap().1 = new;
    }

    /// How cluster-1's egress gateway finds the ingress gateway of a cluster.
    pub(crate) async fn health(&self, cluster: &str) -> String {
        let url = format!("http://{}/state", self.egress.address("admin"));
        let state: Value = self.api.http.get(url).send().await.unwrap().json().await.unwrap();
        let peers = state["peers"][cluster].as_object();
        let one = peers.and_then(|peers| peers.values().next());
        one.and_then(|peer| peer["health"].as_str()).unwrap_or("not known").to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn manifests(&self, cluster: u8, text: &str) {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n";
        let path = self.path(&format!("cluster-{cluster}/manifests/all.yaml"));
        fs::write(path, format!("{namespace}{text}")).unwrap();
    }

    /// A question to cluster-1's DNS: the first address it answers for a service.
    pub(crate) async fn resolve(&self, service: &str) -> Result<Ipv4Addr, String> {
        let name = format!("{service}.acme.example.com");
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect((machine(self.base, 1), 5353)).await.unwrap();
        socket.send(&query).await.map_err(|error| error.to_string())?;
        let mut answer = [0; 1500];
        let received = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
        let len = received.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        // The answer's name is a pointer (2 bytes), then type, class, TTL and length (10 bytes).
        let at = query.len() + 12;
        if answer[7] == 0 || len < at + 4 {
            return Err(format!("{name}: no address: {:02x?}", &answer[..len]));
        }
        Ok(Ipv4Addr::new(answer[at], answer[at + 1], answer[at + 2], answer[at + 3]))
    }

    /// A connection from cluster-1, by name.
    pub(crate) async fn connect(&self, service: &str) -> TcpStream {
        let ip = until_ok(&format!("{service} resolves"), SOON, || self.resolve(service)).await;
        TcpStream::connect((ip, 7000)).await.unwrap()
    }

    /// One whole new connection, from the name to a server's word.
    pub(crate) async fn greeted(&self) -> Result<(), String> {
        self.greeting().await.map(drop)
    }

    /// The same, with the word that came: of which cluster.
    pub(crate) async fn greeting(&self) -> Result<&'static str, String> {
        use tokio::io::AsyncReadExt as _;
        let ip = self.resolve("greet").await?;
        let mut text = String::new();
        let talk = async { TcpStream::connect((ip, 7000)).await?.read_to_string(&mut text).await };
        let talked = tokio::time::timeout(Duration::from_secs(5), talk).await;
        talked.map_err(|_| "no word from the server".to_owned())?.map_err(|error| error.to_string())?;
        let known = [NEAR, FAR].into_iter().find(|word| *word == text);
        known.ok_or_else(|| format!("the server said {text:?}"))
    }

    /// Waits for a line of an access log.
    pub(crate) async fn logged(&self, log: &str, word: &str) -> String {
        let path = self.path(log);
        let look = || std::future::ready(fs::read_to_string(&path).unwrap_or_default());
        let text = until(&format!("{log} has {word}"), SOON, look, |text| text.contains(word)).await;
        text.lines().rfind(|line| line.contains(word)).unwrap_or_default().to_owned()
    }

    /// Open files of the gateway that has most.
    pub(crate) fn most_files(&self) -> usize {
        let programs = self.others.iter().map(|(_, program)| program).chain([&self.egress]);
        programs
            .map(|program| fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count())
            .max()
            .unwrap()
    }

    /// Resident memory of the programs, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        let programs = self.others.iter().map(|(_, program)| program).chain([&self.egress, &self.agent]);
        let resident = programs.map(|program| {
            let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        });
        resident.sum::<u64>() / 1024
    }
}

/// A program that begins with the limit of open files that a shell gives, not with the one that this process raised for itself.
fn usual_limit(program: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={USUAL_FILES}:")).arg(binary(program));
    command
}

/// Open files that a process may have before it raises the limit, on most machines.
pub(crate) const USUAL_FILES: usize = 1024;

fn machine(base: u8, cluster: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, base, cluster, 1)
}

/// A part of loopback that nobody uses.
async fn base() -> u8 {
    for base in (3..=93).step_by(5) {
        let mut free = true;
        for cluster in 1..=3 {
            let at = machine(base, cluster);
            free &= TcpListener::bind((at, 15443)).await.is_ok() && UdpSocket::bind((at, 5353)).await.is_ok();
        }
        if free {
            return base;
        }
    }
    panic!("no free addresses on loopback");
}

async fn controller(dir: &Path) -> (Program, Api) {
    let (ready, owner) = (dir.join("controller.json"), dir.join("owner-token"));
    let mut command = Command::new(binary("tombolo-controller"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--allow-loopback-gateways"]);
    command.arg("--data").arg(dir.join("controller"));
    command.arg("--owner-token-file").arg(&owner).arg("--ready-file").arg(&ready);
    let program = Program::start("controller", command, &ready, SOON).await;
    let fingerprint = program.ready()["ca_fingerprint"].as_str().unwrap().to_owned();
    let tls = pinned_client_config(parse_pin(&fingerprint).unwrap(), None, &[b"h2"]);
    let http = reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).build().unwrap();
    let token = fs::read_to_string(owner).unwrap().trim().to_owned();
    let mut api = Api { http, url: format!("https://{}", program.address("api")), fingerprint, token };
    api.post("/organizations", json!({ "name": "acme" })).await;
    let made = api.post("/organizations/acme/tokens", json!({ "name": "t", "role": "admin" })).await;
    made["token"].as_str().unwrap().clone_into(&mut api.token);
    (program, api)
}

/// Joins as a user does: the true agent, the token on its stdin.
pub(crate) async fn join(api: &Api, cluster: &str, data: &Path, token: &str) -> Output {
    use tokio::io::AsyncWriteExt as _;
    let mut command = tokio::process::Command::new(binary("tombolo-agent"));
    command.args(["join", "--cluster", cluster, "--token-file", "-", "--controller", &api.url]);
    command.args(["--ca-fingerprint", &api.fingerprint]).arg("--data").arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).await.unwrap();
    tokio::time::timeout(SOON, child.wait_with_output()).await.expect("join ends").unwrap()
}

pub(crate) fn account(name: &str, path: &Path) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/selector: \"path={},uid={}\"
",
        path.display(),
        nix::unistd::geteuid()
    );
    text
}

pub(crate) fn service(name: &str, port: u16, at: SocketAddrV4) -> String {
    let (ip, target) = (at.ip(), at.port());
    format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: default
  annotations:
    tombolo.io/service-account: server
    tombolo.io/health-check: none
spec:
  ports:
    - name: main
      port: {port}
      targetPort: {target}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: default
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
ports:
  - name: main
    port: {target}
    protocol: TCP
endpoints:
  - addresses: [\"{ip}\"]
    conditions:
      ready: true
"
    )
}

pub(crate) fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(v4) => v4,
        SocketAddr::V6(v6) => panic!("{v6} is not IPv4"),
    }
}
