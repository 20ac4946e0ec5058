//! A true API server with its etcd, and nothing else: no nodes, no controllers. What those would write, the test writes.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tombolo_testkit::{process::Program, wait::until_ok};

/// A server starts in seconds; on a machine that does other things, in more.
const START: Duration = Duration::from_secs(120);
/// Who may everything.
pub(crate) const ADMIN: &str = "admin";
/// Who may what the agent's role allows.
pub(crate) const AGENT: &str = "agent";

/// The folder of etcd and kube-apiserver.
fn programs() -> PathBuf {
    let given = std::env::var_os("TOMBOLO_KUBERNETES_BIN").map(PathBuf::from);
    // Where tests/kubernetes/binaries links what it built.
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.run/kubernetes/bin");
    let folder = given.unwrap_or_else(built);
    for program in ["etcd", "kube-apiserver"] {
        assert!(
            folder.join(program).exists(),
            "{} has no {program}; run make test-kubernetes, or let TOMBOLO_KUBERNETES_BIN name a folder that has it",
            folder.display()
        );
    }
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// etcd, and the API servers on it.
pub(crate) struct Store {
    programs: PathBuf,
    home: PathBuf,
    etcd: String,
    _etcd: Program,
}

impl Store {
    pub(crate) fn start(home: &Path) -> Self {
        let (programs, home) = (programs(), home.to_owned());
        fs::create_dir_all(&home).expect("a folder");
        let (client, peer) =
            (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new(programs.join("etcd"));
        command.arg("--data-dir").arg(home.join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
        let store = Self { programs, home, etcd: client, _etcd: Program::spawn("etcd", command) };
        store.write_keys();
        store
    }

    fn write_keys(&self) {
        let key = || KeyPair::generate().expect("a key");
        let (authority, server, accounts) = (key(), key(), key());
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&authority).expect("a certificate");
        let issuer = Issuer::new(params, authority);
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf =
            CertificateParams::new(names).expect("names").signed_by(&server, &issuer).expect("a certificate");
        let tokens: String = [(ADMIN, "system:masters"), (AGENT, "tombolo")]
            .map(|(user, group)| format!("{user}-token,{user},{user},\"{group}\"\n"))
            .concat();
        for (file, text) in [
            ("ca.crt", ca.pem()),
            ("server.crt", leaf.pem()),
            ("server.key", server.serialize_pem()),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("tokens.csv", tokens),
        ] {
            fs::write(self.home.join(file), text).expect("a key is written");
        }
    }

    /// An API server, once it is ready.
    pub(crate) async fn server(&self) -> Server {
        self.server_with(&[]).await
    }

    /// The same with these options too.
    pub(crate) async fn server_with(&self, options: &[&str]) -> Server {
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Server { port: free_port(), home: self.home.clone(), options, program: None };
        self.run(&mut server).await;
        server
    }

    /// The server runs (again), on its port.
    pub(crate) async fn run(&self, server: &mut Server) {
        let file = |name: &str| self.home.join(name).display().to_string();
        let mut command = Command::new(self.programs.join("kube-apiserver"));
        command.args([
            format!("--etcd-servers={}", self.etcd),
            format!("--secure-port={}", server.port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody here makes the service accounts of namespaces.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
        ]);
        command.args(&server.options);
        server.program = Some(Program::spawn("kube-apiserver", command));
        let client = server.client(ADMIN).await;
        let ready =
            || client.request_text(http::Request::get("/readyz").body(Vec::new()).expect("a request"));
        until_ok("the API server is ready", START, ready).await;
    }
}

/// An API server.
pub(crate) struct Server {
    port: u16,
    home: PathBuf,
    options: Vec<String>,
    program: Option<Program>,
}

impl Server {
    /// Where it listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The kubeconfig of a user.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.kubeconfig_through(user, self.port)
    }

    /// The same for who comes by another port.
    pub(crate) fn kubeconfig_through(&self, user: &str, port: u16) -> PathBuf {
        let path = self.home.join(format!("{user}-{port}.kubeconfig"));
        let server = format!("https://127.0.0.1:{port}");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": self.home.join("ca.crt")}}],
            "users": [{"name": "u", "user": {"token": format!("{user}-token")}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(&path, config.to_string()).expect("a kubeconfig is written");
        path
    }

    pub(crate) async fn config(&self, user: &str) -> Config {
        let file = Kubeconfig::read_from(self.kubeconfig(user)).expect("a kubeconfig");
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a config")
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        Client::try_from(self.config(user).await).expect("a client")
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        self.program = None;
    }
}
