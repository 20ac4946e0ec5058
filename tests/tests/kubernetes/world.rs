//! A controller, and an agent that reads Kubernetes.

use crate::server::{AGENT, Server};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;
use tombolo_agent::join::{JoinConfig, join};
use tombolo_model::Locality;
use tombolo_mtls::{parse_pin, pinned_client_config};
use tombolo_runtime::clock::SystemClock;
use tombolo_testkit::{
    postgres::Database,
    process::{Program, binary},
};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The controller of organization `acme`, with one cluster and the GNS `acme.example.com` over its namespaces `shop`.
pub(crate) struct Controller {
    bound: tombolo_controller::Bound,
    http: reqwest::Client,
    token: String,
    _data: tempfile::TempDir,
    _database: Database,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// One at this address of the machine.
    pub(crate) async fn start_at(address: IpAddr) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let database = tokio::task::spawn_blocking(Database::create).await.expect("a database");
        let stored = tombolo_controller::config::Database::Url(database.url().to_owned());
        let mut config = tombolo_controller::Config::for_tests(data.path(), stored);
        config.listen = SocketAddr::new(address, 0);
        let deps = tombolo_controller::Deps { clock: Arc::new(SystemClock) };
        let bound = tombolo_controller::build(config, deps).await.expect("a controller");
        let pin = parse_pin(&bound.ca_fingerprint).expect("a fingerprint");
        let tls = pinned_client_config(pin, None, &[b"h2"]);
        let http =
            reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).build().expect("a client");
        let token = fs::read_to_string(data.path().join("owner-token")).expect("a token").trim().to_owned();
        let mut this = Self { bound, http, token, _data: data, _database: database };
        this.call(Method::POST, "/organizations", Some(json!({ "name": "acme" }))).await;
        let token = json!({ "name": "t", "role": "admin" });
        let token = this.call(Method::POST, "/organizations/acme/tokens", Some(token)).await;
        token["token"].as_str().expect("a token").clone_into(&mut this.token);
        let cluster = json!({ "name": "cluster-1" });
        this.call(Method::POST, "/organizations/acme/clusters", Some(cluster)).await;
        let rule = json!({ "cluster": { "labels": {} }, "namespace": { "name": "shop" } });
        let gns = json!({ "name": "acme", "domain": "acme.example.com", "rules": [rule] });
        this.call(Method::POST, "/organizations/acme/global-namespaces", Some(gns)).await;
        this
    }

    /// The GNS is about these namespaces, and chooses their capture mode, or does not.
    pub(crate) async fn choose(&self, namespaces: &[&str], capture: Option<&str>) {
        let rule = |name: &&str| json!({ "cluster": { "labels": {} }, "namespace": { "name": name } });
        let rules: Vec<Value> = namespaces.iter().map(rule).collect();
        let gns = json!({ "domain": "acme.example.com", "rules": rules, "capture": capture });
        self.order("/organizations/acme/global-namespaces/acme", &gns).await;
    }

    /// Another GNS chooses the capture mode of a namespace.
    pub(crate) async fn claim(&self, name: &str, namespace: &str, capture: &str) {
        let rule = json!({ "cluster": { "labels": {} }, "namespace": { "name": namespace } });
        let domain = format!("{name}.example.com");
        let gns = json!({ "name": name, "domain": domain, "rules": [rule], "capture": capture });
        self.call(Method::POST, "/organizations/acme/global-namespaces", Some(gns)).await;
    }

    /// Puts something in place of what there is.
    pub(crate) async fn order(&self, path: &str, body: &Value) {
        self.call_with(Method::PUT, path, Some(body.clone()), &[("if-match", "*")]).await;
    }

    /// Takes something out.
    pub(crate) async fn withdraw(&self, path: &str) {
        self.call_with(Method::DELETE, path, None, &[("if-match", "*")]).await;
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.call_with(method, path, body, &[]).await
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Value {
        let url = format!("{}/api/v1{path}", self.bound.public_url);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        // Who asks again and again is told to wait, on a machine that is fast enough; as any client does, this one does.
        let may = tokio::time::Instant::now() + SOON;
        loop {
            let request = request.try_clone().expect("a body that is there");
            let response = request.send().await.expect("an answer");
            let status = response.status();
            let wait =
                response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let body: Value = response.json().await.unwrap_or_default();
            match wait {
                Some(wait)
                    if status == StatusCode::TOO_MANY_REQUESTS && tokio::time::Instant::now() < may =>
                {
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                }
                _ => {
                    assert!(status.is_success(), "{path}: {status} {body}");
                    return body;
                }
            }
        }
    }

    /// Whether nothing of this is there.
    pub(crate) async fn lacks(&self, path: &str) -> bool {
        let url = format!("{}/api/v1{path}", self.bound.public_url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await.expect("an answer");
        answer.status() == reqwest::StatusCode::NOT_FOUND
    }

    /// It goes away.
    pub(crate) async fn stop(self) {
        self.bound.drain().await;
    }

    /// What the controller has of the cluster's status.
    pub(crate) async fn problems(&self) -> Vec<String> {
        let status = self.call(Method::GET, "/organizations/acme/clusters/cluster-1/status", None).await;
        let text = |problem: &Value| {
            format!(
                "{}: {}",
                problem["subject"].as_str().unwrap_or("?"),
                problem["message"].as_str().unwrap_or("?")
            )
        };
        status["problems"].as_array().into_iter().flatten().map(text).collect()
    }

    /// A one-time token for the cluster.
    pub(crate) async fn onboarding_token(&self) -> String {
        self.token_for("cluster-1").await
    }

    async fn token_for(&self, cluster: &str) -> String {
        let path = format!("/organizations/acme/clusters/{cluster}/onboarding-tokens");
        let token = self.call(Method::POST, &path, Some(json!({}))).await;
        token["token"].as_str().expect("a token").to_owned()
    }

    /// The command line's options to be who may everything in the organization; the token lies in `home`.
    pub(crate) fn credentials(&self, home: &Path) -> Vec<String> {
        let file = home.join("token");
        fs::write(&file, &self.token).expect("a token is written");
        vec![
            format!("--server={}", self.bound.public_url),
            format!("--ca-fingerprint={}", self.bound.ca_fingerprint),
            format!("--token-file={}", file.display()),
            "--organization=acme".to_owned(),
        ]
    }

    /// Where it is, and the fingerprint of its CA.
    pub(crate) fn place(&self) -> (&str, &str) {
        (&self.bound.public_url, &self.bound.ca_fingerprint)
    }

    /// Joins the cluster, with the agent's state in `home`.
    pub(crate) async fn join(&self, home: &Path) {
        self.join_as(home, "cluster-1").await;
    }

    /// Joins a cluster of this name, which is made where it is another one.
    pub(crate) async fn join_as(&self, home: &Path, name: &str) {
        if name != "cluster-1" {
            self.call(Method::POST, "/organizations/acme/clusters", Some(json!({ "name": name }))).await;
        }
        let token = self.token_for(name).await;
        let config = JoinConfig {
            controller: self.bound.public_url.clone(),
            ca_fingerprint: self.bound.ca_fingerprint.clone(),
            cluster: name.parse().expect("a name"),
            data: home.join("data"),
            locality: Locality::default(),
            nodes: Locality::default(),
        };
        join(&config, &token).await.expect("joined");
    }
}

/// An egress gateway of the cluster, at this address.
pub(crate) async fn egress(home: &Path, address: IpAddr) -> Program {
    gateway(home, "egress", address).await
}

/// A gateway of this role.
pub(crate) async fn gateway(home: &Path, role: &str, address: IpAddr) -> Program {
    let ready = home.join(format!("{role}.json"));
    let mut command = Command::new(binary("tombolo-gateway"));
    command.args(["run", "--role", role, "--tunnel", &SocketAddr::new(address, 0).to_string()]);
    command.arg("--agent-socket").arg(home.join("agent.sock")).arg("--ready-file").arg(&ready);
    Program::start(role, command, &ready, SOON).await
}

/// The true agent.
pub(crate) struct Agent {
    pub(crate) trust_domain: String,
    pub(crate) program: Program,
    http: reqwest::Client,
}

impl Agent {
    pub(crate) async fn start(home: &Path, server: &Server, options: &[&str]) -> Self {
        Self::start_with(home, &server.kubeconfig(AGENT), options).await
    }

    pub(crate) async fn start_with(home: &Path, kubeconfig: &Path, options: &[&str]) -> Self {
        let ready = home.join("ready.json");
        let mut command = Command::new(binary("tombolo-agent"));
        command.arg("run").arg("--data").arg(home.join("data"));
        command.arg("--kubernetes").arg("--kubeconfig").arg(kubeconfig);
        command.args(options);
        command.args(["--dns", "127.0.0.1:0", "--dns-forward", "refuse", "--admin", "127.0.0.1:0"]);
        command.arg("--gateway-socket").arg(home.join("agent.sock"));
        command.arg("--ready-file").arg(&ready);
        let program = Program::start("agent", command, &ready, SOON).await;
        let state = fs::read(home.join("data/state.json")).expect("a state");
        let state: Value = serde_json::from_slice(&state).expect("JSON");
        let trust_domain = state["trust_domain"].as_str().expect("a trust domain").to_owned();
        Self { trust_domain, program, http: reqwest::Client::new() }
    }

    /// Where gateways in pods come.
    pub(crate) fn gateways(&self) -> SocketAddr {
        self.program.address("gateways")
    }

    /// A dump of the admin port.
    pub(crate) async fn dump(&self, what: &str) -> Value {
        let url = format!("http://{}/dump/{what}", self.program.address("admin"));
        let response = self.http.get(url).send().await.expect("an answer");
        response.json().await.unwrap_or_default()
    }

    /// The organization's root, once there is a snapshot.
    pub(crate) async fn root(&self) -> Option<String> {
        root_in(&self.dump("snapshot").await)
    }

    /// An address of its ready file.
    pub(crate) fn address(&self, what: &str) -> SocketAddr {
        self.program.address(what)
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// What the agent reports: by service, `ready/total` and its accounts.
    pub(crate) async fn inventory(&self) -> Vec<String> {
        let inventory = self.dump("inventory").await;
        let line = |(name, service): (&String, &Value)| {
            format!("{name} {}/{} {}", service["ready"], service["total"], service["accounts"])
        };
        inventory["services"].as_object().into_iter().flatten().map(line).collect()
    }

    /// The A record of a name, or what is answered instead.
    pub(crate) async fn ask(&self, name: &str) -> Result<Ipv4Addr, String> {
        ask(self.program.address("dns"), name).await
    }
}

/// The root that stands in a snapshot.
pub(crate) fn root_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => match map.get("roots").and_then(|roots| roots[0].as_str()) {
            Some(root) => Some(root.to_owned()),
            None => map.values().find_map(root_in),
        },
        Value::Array(all) => all.iter().find_map(root_in),
        _ => None,
    }
}

/// The A record of a name at this server, or what is answered instead.
pub(crate) async fn ask(server: SocketAddr, name: &str) -> Result<Ipv4Addr, String> {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RData, RecordType},
    };
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(format!("{name}.")).expect("a name");
    message.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a socket");
    socket.send_to(&message.to_vec().expect("a packet"), server).await.expect("sent");
    let mut packet = [0; 1500];
    let received = tokio::time::timeout(SOON, socket.recv(&mut packet)).await.expect("in time");
    let packet = &packet[..received.expect("a packet")];
    let answer = Message::from_vec(packet).expect("DNS");
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0),
        _ => None,
    };
    answer.answers.iter().find_map(|record| address(&record.data)).ok_or_else(|| answer.to_string())
}
