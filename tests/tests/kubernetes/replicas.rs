//! Two replicas of the agent, as pods would be: they join by themselves, one writes, both serve; and one more that starts
//! while the controller is away. The test does what the kubelet does: it mounts the Secret.

use crate::{
    identity::{AUDIENCE, Gateway, OWN, hello, pod, token},
    let_agent_may, make, make_endpoints, make_service, make_wide,
    server::{ADMIN, AGENT, Server, Store},
    world::{Controller, SOON, ask},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Secret, Service},
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tombolo_model::GatewayRole;
use tombolo_testkit::{
    process::{Program, binary},
    wait::until,
};

const CATALOG: &str = "catalog.acme.example.com";

fn free_port(ip: &str) -> u16 {
    TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// What the agent's role allows in its own namespace: of Secrets, to patch one.
async fn let_agent_write(client: &Client) {
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["tombolo-state"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "create", "patch", "delete"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    ]);
    let metadata = json!({"namespace": OWN, "name": "tombolo-agent"});
    make::<Role>(client, json!({"metadata": metadata, "rules": rules})).await;
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tombolo-agent"});
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    make::<RoleBinding>(client, json!({"metadata": metadata, "subjects": group, "roleRef": of})).await;
}

/// A replica's pod.
struct Replica {
    home: PathBuf,
    admin: SocketAddr,
    dns: SocketAddr,
    gateways: SocketAddr,
    http: reqwest::Client,
    program: Program,
}

impl Replica {
    async fn start(
        home: &Path,
        name: &str,
        ip: &str,
        port: u16,
        (client, server, controller): (&Client, &Server, &Controller),
    ) -> Self {
        let (url, fingerprint) = controller.place();
        let place = (url.to_owned(), fingerprint.to_owned());
        Self::start_with(home, name, ip, port, (client, server), &place).await
    }

    async fn start_with(
        home: &Path,
        name: &str,
        ip: &str,
        port: u16,
        (client, server): (&Client, &Server),
        (url, fingerprint): &(String, String),
    ) -> Self {
        let home = home.join(name);
        fs::create_dir_all(home.join("state")).expect("a folder");
        pod(client, OWN, "tombolo-agent", name, "n1", ip).await;
        let own = token(client, OWN, "tombolo-agent", Some(name), AUDIENCE).await;
        fs::write(home.join("own-token"), own).expect("a token is written");
        let at = |port| SocketAddr::new(ip.parse().expect("an address"), port);
        let (admin, dns) = (at(free_port(ip)), at(free_port(ip)));
        let mut command = Command::new(binary("tombolo-agent"));
        command.arg("run").arg("--data").arg(home.join("data")).args(["--kubernetes", "--namespace", OWN]);
        command.arg("--kubeconfig").arg(server.kubeconfig(AGENT));
        command.args(["--replica", name]).arg("--state-dir").arg(home.join("state"));
        command.arg("--replica-token-file").arg(home.join("own-token"));
        command.arg("--join-token-file").arg(home.join("join-token"));
        command.args(["--controller", url, "--ca-fingerprint", fingerprint, "--cluster", "cluster-1"]);
        command.args(["--gateway-listen", &at(port).to_string(), "--admin", &admin.to_string()]);
        command.args(["--dns", &dns.to_string(), "--dns-forward", "refuse"]);
        let program = Program::spawn(name, command);
        let http = reqwest::Client::new();
        Self { home, admin, dns, gateways: at(port), http, program }
    }

    /// What the kubelet does, sooner or later.
    async fn mount(&self, client: &Client) {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), OWN);
        let secret = secrets.get("tombolo-state").await.expect("a secret");
        for (name, content) in secret.data.unwrap_or_default() {
            fs::write(self.home.join("state").join(name), content.0).expect("mounted");
        }
    }

    fn give(&self, token: &str) {
        fs::write(self.home.join("join-token"), token).expect("a token is written");
    }

    async fn readiness(&self) -> String {
        match self.http.get(format!("http://{}/readyz", self.admin)).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("http://{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    async fn gateways(&self) -> Vec<String> {
        let url = format!("http://{}/dump/gateways", self.admin);
        let Ok(answer) = self.http.get(url).send().await else { return Vec::new() };
        let all: Value = answer.json().await.unwrap_or_default();
        let line = |gateway: &Value| {
            let instance =
                gateway["hello"]["instance"].as_str().unwrap_or("?").trim_start_matches("tombolo-system.");
            format!("{instance} {}", gateway["connected"])
        };
        let mut all: Vec<_> = all.as_array().into_iter().flatten().map(line).collect();
        all.sort();
        all
    }
}

async fn holder(client: &Client) -> String {
    let leases: Api<Lease> = Api::namespaced(client.clone(), OWN);
    let lease = leases.get_opt("tombolo-agent").await.expect("asked");
    lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
}

async fn state(client: &Client) -> Vec<u8> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OWN);
    let data = secrets.get("tombolo-state").await.expect("a secret").data.unwrap_or_default();
    data.get("intermediate.pem").map(|content| content.0.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas() {
    let home = tempfile::tempdir().expect("a folder");
    let home = home.path();
    let store = Store::start(&home.join("kubernetes"));
    let server: Server = store.server().await;
    let client = server.client(ADMIN).await;
    for name in ["shop", OWN] {
        make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
    }
    let reviews =
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]});
    let_agent_may(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"], &[reviews]).await;
    let_agent_write(&client).await;
    make::<Secret>(&client, json!({"metadata": {"namespace": OWN, "name": "tombolo-state"}})).await;
    make_service(&client, "shop", "catalog").await;
    make_endpoints(&client, "shop", "catalog").await;
    let controller = Controller::start().await;
    let port = free_port("127.0.0.11");
    let world = (&client, &server, &controller);

    // Without a token it says what to do; with a bad one, that it is; with a good one it joins, and keeps what it got.
    let one = Replica::start(home, "agent-1", "127.0.0.11", port, world).await;
    let says = |what: &'static str| move |text: &String| text.contains(what);
    until("what to do", SOON, || one.readiness(), says("there is no token in")).await;
    one.give("tmj_none");
    until("what is wrong", SOON, || one.readiness(), says("the controller refuse")).await;
    let begun = Instant::now();
    one.give(&controller.onboarding_token().await);
    until("ready", SOON, || one.is_ready(), |ready| *ready).await;
    eprintln!("token to ready: {} ms", begun.elapsed().as_millis());
    let name = until("the name", SOON, || ask(one.dns, CATALOG), Result::is_ok).await;
    let kept = until("the state is kept", SOON, || state(&client), |state| !state.is_empty()).await;
    assert_eq!(holder(&client).await, "agent-1");

    // Another one waits for the Secret, then serves too.
    let two = Replica::start(home, "agent-2", "127.0.0.12", port, world).await;
    until("it waits", SOON, || two.readiness(), says("another replica joins")).await;
    two.mount(&client).await;
    until("ready", SOON, || two.is_ready(), |ready| *ready).await;
    let _ = until("the name", SOON, || ask(two.dns, CATALOG), |found| *found == name).await;
    assert_eq!(holder(&client).await, "agent-1");

    // A gateway at each: both know both, and so does the controller.
    let root = root(&two).await;
    let trust_domain = trust_domain(&two);
    let mut gateways = Vec::new();
    for (pod_name, ip, at) in [("egress-1", "127.0.0.21", &one), ("egress-2", "127.0.0.22", &two)] {
        pod(&client, OWN, "tombolo-egress", pod_name, "n1", ip).await;
        let bound = token(&client, OWN, "tombolo-egress", Some(pod_name), AUDIENCE).await;
        let said = hello(GatewayRole::Egress, &format!("{OWN}.{pod_name}"), ip);
        let gateway = Gateway::at(home, (at.gateways, &trust_domain), &root, &bound, said);
        gateway.connected().await;
        gateways.push((gateway, bound));
    }
    let both = |all: &Vec<String>| *all == ["egress-1 true", "egress-2 true"];
    for replica in [&one, &two] {
        until("both gateways", SOON, || replica.gateways(), both).await;
    }
    let reported = || async {
        let path = "/organizations/acme/clusters/cluster-1/status";
        let status = controller.call(reqwest::Method::GET, path, None).await;
        status["gateways"].as_array().map_or(0, Vec::len)
    };
    until("both are reported", SOON, reported, |count| *count == 2).await;

    // The holder dies. The other one takes over; its own names never went away. The gateway comes over.
    let died = Instant::now();
    drop(one.program);
    let asked = || async {
        assert_eq!(ask(two.dns, CATALOG).await, name, "a name went away");
        holder(&client).await
    };
    until("the Lease is taken over", SOON, asked, |holder| holder == "agent-2").await;
    eprintln!("the Lease is taken over after {} ms", died.elapsed().as_millis());
    let (first, bound) = gateways.remove(0);
    drop(first);
    let said = hello(GatewayRole::Egress, &format!("{OWN}.egress-1"), "127.0.0.21");
    let moved = Gateway::at(home, (two.gateways, &trust_domain), &root, &bound, said);
    moved.connected().await;
    until("both gateways", SOON, || two.gateways(), both).await;
    // It speaks to the controller now.
    let external = json!({"type": "ExternalName", "externalName": "db.example.org"});
    let metadata = json!({"namespace": "shop", "name": "db"});
    make::<Service>(&client, json!({"metadata": metadata, "spec": external})).await;
    let said = |all: &Vec<String>| all.iter().any(|problem| problem.starts_with("Service shop/db"));
    until("what is wrong", SOON, || controller.problems(), said).await;

    // A new token: the cluster joins again, and what it has is kept. The used one is not tried again.
    two.give(&controller.onboarding_token().await);
    until("it joined again", SOON, || state(&client), |state| !state.is_empty() && *state != kept).await;

    // The controller goes. A replica that starts now has an empty disk, and serves what was kept in the cluster.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), OWN);
    let count = || async {
        maps.list(&ListParams::default().labels("tombolo.io/kept=snapshot"))
            .await
            .expect("a list")
            .items
            .len()
    };
    until("the snapshot is kept", SOON, count, |count| *count > 0).await;
    let place = controller.place();
    let place = (place.0.to_owned(), place.1.to_owned());
    controller.stop().await;
    let three = Replica::start_with(home, "agent-3", "127.0.0.13", port, (&client, &server), &place).await;
    three.mount(&client).await;
    until("ready", SOON, || three.is_ready(), |ready| *ready).await;
    let _ = until("the name", SOON, || ask(three.dns, CATALOG), |found| *found == name).await;
    until("both gateways", SOON, || three.gateways(), both).await;
    // The holder ends as it should: another one writes at once.
    let ended = Instant::now();
    let mut program = two.program;
    program.stop(Duration::from_secs(20)).await;
    until("the Lease is let go", SOON, || holder(&client), |holder| holder == "agent-3").await;
    assert!(
        ended.elapsed() < Duration::from_secs(12),
        "it was waited for the Lease's end: {:?}",
        ended.elapsed()
    );
    drop((gateways, moved));
}

fn trust_domain(replica: &Replica) -> String {
    let state = fs::read(replica.home.join("data/state.json")).expect("a state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    state["trust_domain"].as_str().expect("a trust domain").to_owned()
}

async fn root(replica: &Replica) -> String {
    let look = || async {
        let url = format!("http://{}/dump/snapshot", replica.admin);
        let snapshot: Value = replica.http.get(url).send().await.ok()?.json().await.ok()?;
        crate::world::root_in(&snapshot)
    };
    until("the root", SOON, look, Option::is_some).await.expect("a root")
}
