//! The lab's networks, and the programs in them.

use crate::{SOON, image::Image, talk};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;
use tombolo_testkit::{
    netlab::{Lab, Namespace},
    postgres::Database,
    process::{Program, binary},
};

/// The service that c1 calls and c2 serves.
pub(crate) const NAME: &str = "echo.acme.example.com";
/// The service that c2 calls and c1 serves.
pub(crate) const HOME: &str = "home.acme.example.com";
/// Their port.
pub(crate) const PORT: u16 = 7000;

/// Where sidecars take incoming connections.
pub(crate) const INBOUND: u16 = 15_006;
/// A port that is captured, and that nobody listens on.
pub(crate) const NOBODY: u16 = 7001;

/// The controller's pool of virtual IPv6 addresses.
const VIPS6: &str = "fd74:6f6d:6265:6c6f::/64";

const ONE: &str = "apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: default}
---
apiVersion: v1
kind: Service
metadata:
  name: home
  namespace: default
  annotations: {tombolo.io/service-account: caller}
spec:
  ports: [{name: tcp, port: 7000, targetPort: 7000}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: home-1
  namespace: default
  labels: {kubernetes.io/service-name: home}
addressType: IPv4
ports: [{name: tcp, port: 7000, protocol: TCP}]
endpoints:
  - addresses: [\"10.0.0.2\"]
    conditions: {ready: true}
";
const TWO: &str = "apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: echo, namespace: default}
---
apiVersion: v1
kind: Service
metadata:
  name: echo
  namespace: default
  annotations: {tombolo.io/service-account: echo}
spec:
  ports: [{name: tcp, port: 7000, targetPort: 7000}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  namespace: default
  labels: {kubernetes.io/service-name: echo}
addressType: IPv4
ports: [{name: tcp, port: 7000, protocol: TCP}]
endpoints:
  - addresses: [\"10.0.0.2\"]
    conditions: {ready: true}
";

/// Both clusters and the controller. Fields are dropped in order: programs, then networks, then files.
pub(crate) struct Clusters {
    pub(crate) one: Cluster,
    pub(crate) two: Cluster,
    pub(crate) controller: Program,
    middle: Namespace,
    _lab: Lab,
    database: Database,
    files: TempDir,
}

impl Clusters {
    /// Builds all and joins it, until every program is ready.
    pub(crate) async fn start() -> Self {
        let mut lab = Lab::new();
        let files = tempfile::tempdir().expect("a folder");
        let middle = lab.namespace("controller");
        middle.ip(&["link", "add", "wan", "type", "bridge"]);
        middle.address("wan", "198.51.100.254/24");
        let database = tokio::task::spawn_blocking(Database::create).await.expect("a database");
        let controller = controller(&middle, &database, files.path()).await;
        let one = Cluster::networks(&mut lab, &middle, files.path(), 1);
        let two = Cluster::networks(&mut lab, &middle, files.path(), 2);
        let mut this = Self { one, two, controller, middle, _lab: lab, database, files };
        let (owner, admin) = (this.text("owner-token"), this.text("admin-token"));
        this.cli(&owner, &["org", "create", "acme", "--admin-token-file", &admin]);
        this.user(&["gns", "create", "acme", "--domain", "acme.example.com"]);
        for (name, account) in [("c1", "caller"), ("c2", "echo")] {
            let token = this.text(&format!("{name}/join-token"));
            this.user(&["cluster", "create", name, "--join-token-file", &token]);
            let fingerprint = this.fingerprint();
            let cluster = if name == "c1" { &mut this.one } else { &mut this.two };
            cluster.join(&token, &fingerprint);
            cluster.run(account).await;
        }
        this
    }

    /// Starts the controller again, on what the one before left.
    pub(crate) async fn start_controller(&mut self) {
        self.controller = controller(&self.middle, &self.database, self.files.path()).await;
    }

    /// A file of the lab.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.files.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    fn fingerprint(&self) -> String {
        self.controller.ready()["ca_fingerprint"].as_str().expect("a fingerprint").to_owned()
    }

    /// The CLI, as the organization's admin.
    pub(crate) fn user(&self, args: &[&str]) -> String {
        self.cli(&self.text("admin-token"), &[&["-O", "acme"], args].concat())
    }

    fn cli(&self, token_file: &str, args: &[&str]) -> String {
        let mut command = self.middle.command(binary("tombolo"));
        command.env("HOME", self.files.path()).env_remove("XDG_CONFIG_HOME");
        command.args(["--server", "https://198.51.100.254:8443", "--ca-fingerprint", &self.fingerprint()]);
        command.args(["--token-file", token_file]).args(args);
        let output = must(&mut command);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

async fn controller(middle: &Namespace, database: &Database, files: &Path) -> Program {
    let ready = files.join("controller.json");
    let mut command = middle.command(binary("tombolo-controller"));
    command.args(["serve", "--listen", "198.51.100.254:8443", "--data"]).arg(files.join("controller"));
    command.arg("--owner-token-file").arg(files.join("owner-token")).arg("--ready-file").arg(&ready);
    command.arg("--ca-key-file").arg(files.join("ca.key")).env("DATABASE_URL", database.url());
    Program::start("controller", command, &ready, SOON).await
}

/// One cluster: a machine with its gateways, and a pod that knows that machine alone.
pub(crate) struct Cluster {
    pub(crate) name: String,
    number: u8,
    pub(crate) gateway: Namespace,
    pub(crate) pod: Namespace,
    programs: Vec<(&'static str, Program)>,
    files: PathBuf,
}

impl Cluster {
    fn networks(lab: &mut Lab, middle: &Namespace, files: &Path, number: u8) -> Self {
        let name = format!("c{number}");
        let (gateway, pod) =
            (lab.namespace(&format!("{name}-gateway")), lab.namespace(&format!("{name}-pod")));
        lab.link((&gateway, "inner0", "10.0.0.1/24"), (&pod, "eth0", "10.0.0.2/24"));
        gateway.sysctl("net/ipv4/ip_forward", "0");
        pod.route("240.0.0.0/4", "10.0.0.1");
        gateway.address("inner0", "fd00::1/64");
        pod.address("eth0", "fd00::2/64");
        pod.route(VIPS6, "fd00::1");
        pod.resolver("10.0.0.1");
        middle.ip(&["link", "add", &name, "type", "veth", "peer", "name", "wan0", "netns", gateway.name()]);
        middle.ip(&["link", "set", &name, "master", "wan", "up"]);
        gateway.address("wan0", &format!("198.51.100.{number}/24"));
        let word = if number == 1 { "c1" } else { "c2" };
        talk::serve(&pod, ([10, 0, 0, 2], PORT).into(), word);
        let files = files.join(&name);
        fs::create_dir_all(files.join("manifests")).expect("a folder");
        let manifests = if number == 1 { ONE } else { TWO };
        fs::write(files.join("manifests/all.yaml"), manifests).expect("the manifests");
        Self { name, number, gateway, pod, programs: Vec::new(), files }
    }

    /// A file of the cluster.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.files.join(file)
    }

    /// The IPv4 address of a name, as its DNS says to its pod, with the service's port.
    pub(crate) fn resolve(&self, name: &str) -> Option<SocketAddr> {
        self.ask(name, "A").filter(SocketAddr::is_ipv4)
    }

    /// The IPv6 address.
    pub(crate) fn resolve_v6(&self, name: &str) -> Option<SocketAddr> {
        self.ask(name, "AAAA").filter(SocketAddr::is_ipv6)
    }

    fn ask(&self, name: &str, kind: &str) -> Option<SocketAddr> {
        let mut command = self.pod.command("dig");
        // Of the server in the pod's own resolv.conf.
        let output = must(command.args(["+short", "+time=2", "+tries=3", name, kind]));
        let address: IpAddr = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
        Some((address, PORT).into())
    }

    fn join(&self, token_file: &str, fingerprint: &str) {
        let mut command = self.gateway.command(binary("tombolo-agent"));
        command.args([
            "join",
            "--controller",
            "https://198.51.100.254:8443",
            "--ca-fingerprint",
            fingerprint,
        ]);
        command.args(["--cluster", &self.name, "--token-file", token_file, "--data"]).arg(self.path("agent"));
        must(&mut command);
    }

    async fn run(&mut self, account: &str) {
        let mut command = self.gateway.command(binary("tombolo-agent"));
        command.args(["run", "--dns", "10.0.0.1:53", "--dns-forward", "refuse", "--data"]);
        command.arg(self.path("agent")).arg("--manifests").arg(self.path("manifests"));
        command.arg("--gateway-socket").arg(self.path("gateways.sock"));
        self.start("agent", command).await;
        self.start("egress", self.carrier("egress")).await;
        self.start("ingress", self.carrier("ingress")).await;

        self.redirect();
        let mut command = self.pod.command(binary("tombolo-gateway"));
        self.options(&mut command, "sidecar", "10.0.0.2:15008");
        command.args(["--capture", "sidecar", "--inbound-port", &INBOUND.to_string()]);
        command.args(["--serve", "10.0.0.2", "--workload"]);
        command.arg(format!("default/{account}"));
        self.start("sidecar", command).await;
    }

    /// As a pod's init container does it.
    fn redirect(&self) {
        let gateway = binary("tombolo-gateway");
        let image = Image::make(self.path("image"), &[&gateway, Path::new("/usr/sbin/nft")]);
        let vips = format!("240.0.0.0/4,{VIPS6}");
        let (inbound, ports) = (INBOUND.to_string(), format!("{PORT},{NOBODY}"));
        let args = ["/bin/tombolo-gateway", "redirect", "--vips", &vips, "--port", "15001"];
        let incoming = ["--inbound", &ports, "--inbound-port", &inbound];
        // Twice, as where the kubelet starts it again.
        for _ in 0..2 {
            let output = image.run(&self.pod, &[&args[..], &incoming].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "redirect: {}: {said}", output.status);
        }
    }

    /// The egress or ingress gateway.
    fn carrier(&self, role: &str) -> Command {
        let mut command = self.gateway.command(binary("tombolo-gateway"));
        if role == "ingress" {
            let address = format!("198.51.100.{}:15443", self.number);
            self.options(&mut command, role, &address);
            command.args(["--advertise", &address]);
        } else {
            self.options(&mut command, role, "10.0.0.1:15008");
        }
        command
    }

    fn options(&self, command: &mut Command, role: &str, tunnel: &str) {
        command.args(["run", "--role", role, "--instance", role, "--tunnel", tunnel, "--agent-socket"]);
        command.arg(self.path("gateways.sock"));
        command.arg("--access-log").arg(self.path(&format!("{role}-access.log")));
        command.arg("--cache").arg(self.path(&format!("{role}.cache")));
    }

    async fn start(&mut self, role: &'static str, mut command: Command) {
        let ready = self.path(&format!("{role}.json"));
        command.arg("--ready-file").arg(&ready);
        let program = Program::start(&format!("{}-{role}", self.name), command, &ready, SOON).await;
        self.programs.push((role, program));
    }

    /// Kills a program; what it said to the others stands.
    pub(crate) fn kill(&mut self, role: &str) {
        self.programs.retain(|(name, _)| *name != role);
    }

    /// The access log of a gateway, line by line; the last one may be on its way, and is none yet.
    pub(crate) fn access_log(&self, role: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(&format!("{role}-access.log"))).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Kills the egress or ingress gateway and starts it again; the cache of the one before is there.
    pub(crate) async fn restart(&mut self, role: &'static str) {
        self.kill(role);
        self.start(role, self.carrier(role)).await;
    }
}

fn must(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} (make deps-test)"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}
