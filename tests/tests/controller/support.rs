//! A controller as it runs, people who call it, and agents that join it: true sockets, TLS and PostgreSQL.

use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};
use tombolo_controller::{Bound, Config, Deps, build, config};
use tombolo_feed::{Client, Options, RequestError, State, Status, TlsConnector, post_once};
use tombolo_model::{
    Locality, SpiffeId, TrustDomain,
    install::TrialStatus,
    inventory::{Inventory, ServiceKey, ServiceRecord},
    snapshot::{ClusterResource, NameSpec, ResourceKey},
};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey, Validity, parse_pin, pinned_client_config};
use tombolo_runtime::{
    clock::{Clock as _, ManualClock, SystemClock},
    task,
};
use tombolo_testkit::{build::name, postgres::Database, wait};
use tombolo_wire::{
    message::{
        AgentStatus, GatewayReport, IntermediateRequest, IntermediateResponse, InventoryAck, InventoryUpdate,
        JoinRequest, JoinResponse,
    },
    version::Hello,
};

/// Until something that should be there at once must be there, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A controller.
pub(crate) struct Site {
    pub(crate) bound: Bound,
    pub(crate) clock: ManualClock,
    pub(crate) owner: String,
}

impl Site {
    /// One on this database; its files are in this folder.
    pub(crate) async fn start(database: &Database, folder: &Path) -> Self {
        Self::start_with(database, folder, |_| {}).await
    }

    /// The same, with other options.
    pub(crate) async fn start_with(
        database: &Database,
        folder: &Path,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        if std::env::var_os("TOMBOLO_LOG").is_some() {
            // once for the process is enough
            let _ = tombolo_runtime::telemetry::init(tombolo_runtime::telemetry::LogFormat::Text);
        }
        let clock = ManualClock::new(SystemClock.now());
        let mut config = Config::for_tests(folder, config::Database::Url(database.url().to_owned()));
        change(&mut config);
        let bound = build(config, Deps { clock: Arc::new(clock.clone()) }).await.unwrap();
        let owner = std::fs::read_to_string(folder.join("owner-token")).unwrap().trim().to_owned();
        Self { bound, clock, owner }
    }

    /// Asks the API. The status, and the body.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        let url = format!("https://{}/api/v1{path}", self.bound.api);
        let mut request = client.request(method.parse().unwrap(), url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// As [`Site::call`], and it must go well.
    pub(crate) async fn must(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(token, method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// A new organization.
    pub(crate) async fn organization(&self, org: &str) -> Org {
        let made = self.must(&self.owner, "POST", "/organizations", Some(json!({ "name": org }))).await;
        let body = json!({ "name": "admin", "role": "admin" });
        let token = self.must(&self.owner, "POST", &format!("/organizations/{org}/tokens"), Some(body)).await;
        Org {
            name: org.to_owned(),
            admin: token["token"].as_str().unwrap().to_owned(),
            trust_domain: name(made["trust_domain"].as_str().unwrap()),
        }
    }

    /// A new cluster, and a token for it.
    pub(crate) async fn cluster(&self, org: &Org, cluster: &str) -> String {
        self.must(&org.admin, "POST", &org.path("/clusters"), Some(json!({ "name": cluster }))).await;
        self.onboarding(org, cluster).await
    }

    /// A new token for a cluster.
    pub(crate) async fn onboarding(&self, org: &Org, cluster: &str) -> String {
        let path = org.path(&format!("/clusters/{cluster}/onboarding-tokens"));
        self.must(&org.admin, "POST", &path, Some(json!({}))).await["token"].as_str().unwrap().to_owned()
    }

    /// A global namespace over the namespace `default` of all clusters.
    pub(crate) async fn gns(&self, org: &Org, gns: &str, domain: &str) {
        let rule = json!({ "cluster": { "labels": {} }, "namespace": { "name": "default" } });
        let body = json!({ "name": gns, "domain": domain, "rules": [rule] });
        self.must(&org.admin, "POST", &org.path("/global-namespaces"), Some(body)).await;
    }

    /// A new cluster that has joined.
    pub(crate) async fn agent(&self, org: &Org, cluster: &str) -> Agent {
        let token = self.cluster(org, cluster).await;
        self.join(org, cluster, &token).await.unwrap()
    }

    /// Joins.
    pub(crate) async fn join(&self, org: &Org, cluster: &str, token: &str) -> Result<Agent, RequestError> {
        let id = SpiffeId::cluster(&org.trust_domain, &name(cluster));
        self.join_as(org, cluster, token, &id).await
    }

    /// Joins as a cluster whose nodes stand in this region.
    pub(crate) async fn join_from(&self, org: &Org, cluster: &str, region: &str) {
        let token = self.onboarding(org, cluster).await;
        let id = SpiffeId::cluster(&org.trust_domain, &name(cluster));
        let nodes = Locality { region: Some(region.to_owned()), zone: None };
        self.join_with(org, (cluster, nodes), &token, &id).await.unwrap();
    }

    /// Joins, asking for an intermediate of this identity.
    pub(crate) async fn join_as(
        &self,
        org: &Org,
        cluster: &str,
        token: &str,
        id: &SpiffeId,
    ) -> Result<Agent, RequestError> {
        self.join_with(org, (cluster, Locality::default()), token, id).await
    }

    async fn join_with(
        &self,
        org: &Org,
        (cluster, nodes): (&str, Locality),
        token: &str,
        id: &SpiffeId,
    ) -> Result<Agent, RequestError> {
        self.join_by(org, (cluster, nodes), token, (PrivateKey::generate().unwrap(), id)).await
    }

    /// Joins with this key.
    pub(crate) async fn join_by(
        &self,
        org: &Org,
        (cluster, nodes): (&str, Locality),
        token: &str,
        (key, id): (PrivateKey, &SpiffeId),
    ) -> Result<Agent, RequestError> {
        let request = JoinRequest {
            hello: Hello::current("tombolo-agent"),
            cluster: name(cluster),
            csr: key.csr(id).unwrap(),
            locality: Locality::default(),
            nodes,
        };
        let answer: JoinResponse =
            post_once(&self.connector(None), "/agent/v1/join", Some(token), &request).await?;
        assert_eq!(answer.trust_domain, org.trust_domain);
        Ok(Agent::new(Intermediate::new(key, &answer.intermediate).unwrap()))
    }

    /// To this controller, as this agent.
    pub(crate) fn connector(&self, credentials: Option<&Credentials>) -> TlsConnector {
        let pin = parse_pin(&self.bound.ca_fingerprint).unwrap();
        let config = pinned_client_config(pin, credentials, &[b"h2"]);
        TlsConnector::new(&self.bound.api.ip().to_string(), self.bound.api.port(), config).unwrap()
    }

    /// What the API says of a cluster.
    pub(crate) async fn status(&self, org: &Org, cluster: &str) -> Value {
        self.must(&org.admin, "GET", &org.path(&format!("/clusters/{cluster}/status")), None).await
    }

    /// Waits until a cluster is in this state.
    pub(crate) async fn until_state(&self, org: &Org, cluster: &str, state: &str) -> Value {
        let look = || self.status(org, cluster);
        wait::until("the cluster's state", SOON, look, |status| status["state"] == state).await
    }
}

/// An organization.
pub(crate) struct Org {
    pub(crate) name: String,
    pub(crate) admin: String,
    pub(crate) trust_domain: TrustDomain,
}

impl Org {
    /// A path under it.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/organizations/{}{rest}", self.name)
    }
}

/// An agent that has joined.
pub(crate) struct Agent {
    pub(crate) intermediate: Intermediate,
    pub(crate) credentials: Credentials,
}

impl Agent {
    pub(crate) fn new(intermediate: Intermediate) -> Self {
        let id = SpiffeId::agent(&intermediate.id().trust_domain, &intermediate.id().cluster);
        let credentials = Credentials::new(id.clone());
        let agent = Self { intermediate, credentials };
        agent.renew_leaf();
        agent
    }

    /// Takes a new certificate of its own into use.
    pub(crate) fn renew_leaf(&self) {
        let now = SystemClock.now();
        let validity = Validity {
            not_before: now - Duration::from_secs(60),
            not_after: now + Duration::from_secs(3600),
        };
        let key = PrivateKey::generate().unwrap();
        let id = self.credentials.id();
        let chain = self.intermediate.sign_leaf(&key.csr(id).unwrap(), id, validity).unwrap();
        self.credentials.set(&chain, key).unwrap();
    }

    /// Opens its feed at this controller.
    pub(crate) fn feed(&self, site: &Site) -> Feed {
        let options = Options::new("/agent/v1/feed", "/agent/v1/ack");
        let (client, running) = Client::build(site.connector(Some(&self.credentials)), options);
        Feed { client, running: task::spawn("feed", running.run()) }
    }

    /// Sends a request of its own.
    pub(crate) async fn post<T: serde::Serialize, U: serde::de::DeserializeOwned>(
        &self,
        site: &Site,
        path: &str,
        body: &T,
    ) -> Result<U, RequestError> {
        post_once(&site.connector(Some(&self.credentials)), path, None, body).await
    }

    /// Reports a whole inventory.
    pub(crate) async fn report(&self, site: &Site, epoch: &str, inventory: Inventory) -> InventoryAck {
        let update = InventoryUpdate {
            epoch: epoch.to_owned(),
            sequence: 1,
            whole: true,
            namespaces: inventory.namespaces,
            services: inventory.services,
            removed_namespaces: Default::default(),
            removed_services: Default::default(),
        };
        self.post(site, "/agent/v1/inventory", &update).await.unwrap()
    }

    /// Reports one service anew.
    pub(crate) async fn update(
        &self,
        site: &Site,
        (epoch, sequence): (&str, u64),
        service: (&str, ServiceRecord),
    ) -> Result<InventoryAck, RequestError> {
        let key = ServiceKey::try_from(service.0.to_owned()).unwrap();
        let update = InventoryUpdate {
            epoch: epoch.to_owned(),
            sequence,
            whole: false,
            namespaces: Default::default(),
            services: [(key, service.1)].into(),
            removed_namespaces: Default::default(),
            removed_services: Default::default(),
        };
        self.post(site, "/agent/v1/inventory", &update).await
    }

    /// Asks for an intermediate of this key.
    pub(crate) async fn renew(&self, site: &Site, key: &PrivateKey) -> Result<Agent, RequestError> {
        let request = IntermediateRequest { csr: key.csr(self.intermediate.id()).unwrap() };
        let answer: IntermediateResponse = self.post(site, "/agent/v1/certificate", &request).await?;
        Ok(Agent::new(
            Intermediate::new(PrivateKey::from_pem(&key.to_pem()).unwrap(), &answer.intermediate).unwrap(),
        ))
    }

    /// Reports how its cluster is.
    pub(crate) async fn say(&self, site: &Site, ingress: &[&str]) -> Result<(), RequestError> {
        self.say_with(site, ingress, Vec::new()).await
    }

    /// The same, with its gateways.
    pub(crate) async fn say_with(
        &self,
        site: &Site,
        ingress: &[&str],
        gateways: Vec<GatewayReport>,
    ) -> Result<(), RequestError> {
        self.say_tried(site, ingress, gateways, None).await
    }

    /// The same, with what it would do for an order that it was asked to try.
    pub(crate) async fn say_tried(
        &self,
        site: &Site,
        ingress: &[&str],
        gateways: Vec<GatewayReport>,
        trial: Option<TrialStatus>,
    ) -> Result<(), RequestError> {
        let mut status = said(ingress);
        (status.gateways, status.trial) = (gateways, trial);
        self.post(site, "/agent/v1/status", &status).await
    }

    /// The status of an agent that can't read where peers reach its cluster.
    pub(crate) async fn say_nothing_of_addresses(&self, site: &Site) -> Result<(), RequestError> {
        let status = AgentStatus { ingress_unknown: true, ..said(&[]) };
        self.post(site, "/agent/v1/status", &status).await
    }
}

fn said(ingress: &[&str]) -> AgentStatus {
    AgentStatus {
        intermediate: None,
        software: "tombolo-agent/test".to_owned(),
        generation: tombolo_model::Generation::ZERO,
        problems: Vec::new(),
        ingress: ingress.iter().map(ToString::to_string).collect(),
        ingress_unknown: false,
        gateways: Vec::new(),
        install: None,
        trial: None,
    }
}

/// An open feed. It ends when this is dropped.
pub(crate) struct Feed {
    pub(crate) client: Client<ClusterResource>,
    pub(crate) running: tokio::task::JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Feed {
    /// The state in force.
    pub(crate) fn state(&self) -> Arc<State<ClusterResource>> {
        self.client.state().borrow().clone()
    }

    /// How the feed is.
    pub(crate) fn status(&self) -> Status {
        self.client.status().borrow().clone()
    }

    /// A global name in the state in force.
    pub(crate) fn name(&self, full: &str) -> Option<NameSpec> {
        match self.state().resources.get(&ResourceKey::new("name", full)) {
            Some(ClusterResource::Name(spec)) => Some(NameSpec::clone(spec)),
            _ => None,
        }
    }

    /// Waits until a name is there, and is as it should be.
    pub(crate) async fn until_name(&self, full: &str, good: impl Fn(&NameSpec) -> bool) -> NameSpec {
        let look = || async { self.name(full) };
        wait::until(full, SOON, look, |found| found.as_ref().is_some_and(&good)).await.unwrap()
    }

    /// Waits for a state that is as it should be.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&State<ClusterResource>) -> bool) {
        let mut states = self.client.state();
        let waited = tokio::time::timeout(SOON, states.wait_for(|state| good(state))).await;
        assert!(matches!(waited, Ok(Ok(_))), "{what}: not within {SOON:?}: {:#?}", self.state());
    }

    /// Waits until the status is as it should be.
    pub(crate) async fn until_status(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let mut statuses = self.client.status();
        let waited = tokio::time::timeout(SOON, statuses.wait_for(|status| good(status))).await;
        match waited {
            Ok(Ok(status)) => status.clone(),
            _ => panic!("{what}: not within {SOON:?}: {:#?}", self.status()),
        }
    }
}

/// A database of its own.
pub(crate) async fn database() -> Database {
    tokio::task::spawn_blocking(Database::create).await.unwrap()
}

/// A controller with a database of its own.
pub(crate) async fn site() -> (Site, Database, tempfile::TempDir) {
    let database = database().await;
    let folder = tempfile::tempdir().unwrap();
    (Site::start(&database, folder.path()).await, database, folder)
}

/// The problem type of a refusal, without `/problems/`.
#[track_caller]
pub(crate) fn problem<T>(answer: Result<T, RequestError>) -> String {
    match answer {
        Err(RequestError::Refused { problem, .. }) => {
            assert!(!problem.detail.is_empty(), "a refusal explains itself: {problem:?}");
            problem.kind.trim_start_matches("/problems/").to_owned()
        }
        Err(other) => panic!("refused in another way: {other:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}
