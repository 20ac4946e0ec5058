//! A simulated agent: everything it tells and is told is as the true one has it, by the same code where that is a part of its own (the feed, the
//! reporter of inventories). What it leaves out is what it would do in its cluster.

use crate::{changes::Changes, connector::Way, parts};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tombolo_agent::report::Reporter;
use tombolo_feed::{Client, Options, Requests, State, Status, post_once};
use tombolo_model::{
    ClusterName, GatewayRole, Locality, SpiffeId,
    health::Health,
    inventory::{Inventory, ServiceKey},
    snapshot::{ClusterResource, Resources},
};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey, Validity, parse_pin, pinned_client_config};
use tombolo_runtime::{
    clock::{Clock as _, SystemClock},
    task,
};
use tombolo_testkit::wait::until_ok;
use tombolo_wire::{
    message::{AgentStatus, GatewayReport, GatewayStatus, JoinRequest, JoinResponse, PeerState},
    version::Hello,
};

/// Between two statuses at most, and at least; as the true agent has it.
const MOST: Duration = Duration::from_secs(10);
const LEAST: Duration = Duration::from_secs(1);

/// How to come to the controller.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) server: SocketAddr,
    pub(crate) fingerprint: String,
}

impl Door {
    fn connector(&self, source: Ipv4Addr, credentials: Option<&Credentials>) -> Way {
        let pin = parse_pin(&self.fingerprint).unwrap();
        Way::new(source, self.server, pinned_client_config(pin, credentials, &[b"h2"]))
    }
}

/// A cluster that has joined.
pub(crate) struct Joined {
    number: usize,
    intermediate: Intermediate,
    credentials: Credentials,
}

impl Joined {
    pub(crate) const fn number(&self) -> usize {
        self.number
    }
}

/// Joins, with a token.
pub(crate) async fn join(door: &Door, number: usize, token: &str) -> Joined {
    let key = PrivateKey::generate().unwrap();
    let request = JoinRequest {
        hello: Hello::current("tombolo-agent"),
        cluster: parts::cluster(number),
        csr: key.unnamed_csr().unwrap(),
        locality: Locality::default(),
        nodes: parts::locality(number),
    };
    let connector = door.connector(parts::source(number), None);
    let ask = || post_once::<_, _, JoinResponse>(&connector, "/agent/v1/join", Some(token), &request);
    let answer = until_ok("a cluster joins", parts::SOON, ask).await;
    let intermediate = Intermediate::new(key, &answer.intermediate).unwrap();
    let id = SpiffeId::agent(&intermediate.id().trust_domain, &intermediate.id().cluster);
    let credentials = Credentials::new(id.clone());
    let now = SystemClock.now();
    let validity = Validity {
        not_before: now - Duration::from_secs(60),
        not_after: now + Duration::from_secs(12 * 3600),
    };
    let leaf = PrivateKey::generate().unwrap();
    let chain = intermediate.sign_leaf(&leaf.csr(&id).unwrap(), &id, validity).unwrap();
    credentials.set(&chain, leaf).unwrap();
    Joined { number, intermediate, credentials }
}

/// An agent that runs. It ends when this is dropped.
pub(crate) struct Agent {
    pub(crate) number: usize,
    client: Client<ClusterResource>,
    inventory: watch::Sender<Option<Arc<Inventory>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Agent {
    /// Starts: feed, inventory, status, and somebody who looks at each state that comes in force.
    pub(crate) fn start(
        joined: &Joined,
        door: &Door,
        inventory: Inventory,
        (changes, group): (Arc<Changes>, usize),
    ) -> Self {
        let number = joined.number;
        let connector = door.connector(parts::source(number), Some(&joined.credentials));
        let options = Options::new("/agent/v1/feed", "/agent/v1/ack");
        let (client, running) = Client::build(connector, options);
        let (told, inventory) = watch::channel(Some(Arc::new(inventory)));
        let reporter = Reporter::new(format!("simulated-{number}"));
        let status = Said { number, intermediate: joined.intermediate.fingerprint(), states: client.state() };
        let mut states = client.state();
        let look = async move {
            while states.changed().await.is_ok() {
                let state = Arc::clone(&states.borrow_and_update());
                changes.look(group, number, &state.resources);
            }
        };
        let tasks = vec![
            task::spawn("feed", running.run()),
            task::spawn("inventory", reporter.run(client.requests(), inventory)),
            task::spawn("status", status.run(client.requests())),
            task::spawn("look", look),
        ];
        Self { number, client, inventory: told, tasks }
    }

    /// The state in force.
    pub(crate) fn state(&self) -> Arc<State<ClusterResource>> {
        self.client.state().borrow().clone()
    }

    /// How the feed is.
    pub(crate) fn status(&self) -> Status {
        self.client.status().borrow().clone()
    }

    /// Ready endpoints of a service here.
    pub(crate) fn ready(&self, service: &ServiceKey) -> u32 {
        self.inventory.borrow().as_ref().unwrap().services[service].ready
    }

    /// Another number of endpoints of a service is ready.
    pub(crate) fn set_ready(&self, service: &ServiceKey, ready: u32) {
        self.change(|all| {
            all.services.get_mut(service).unwrap().ready = ready;
        });
    }

    /// Something else runs here.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Inventory)) {
        self.inventory.send_modify(|all| change(Arc::make_mut(all.as_mut().unwrap())));
    }
}

/// How the cluster is, as its agent says.
struct Said {
    number: usize,
    intermediate: tombolo_model::snapshot::CaFingerprint,
    states: watch::Receiver<Arc<State<ClusterResource>>>,
}

impl Said {
    /// At a change, no oftener than once a second, and every ten seconds. That a generation is called otherwise is no change.
    async fn run(mut self, requests: Requests) {
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            if let Err(error) = requests.post::<_, ()>("/agent/v1/status", &self.status(&state)).await {
                sleep(error.wait(LEAST)).await;
                continue;
            }
            sleep(LEAST).await;
            let other = self.states.wait_for(|now| !Arc::ptr_eq(&now.resources, &state.resources));
            if let Ok(Err(_)) = tokio::time::timeout(MOST - LEAST, other).await {
                return;
            }
        }
    }

    fn status(&self, state: &State<ClusterResource>) -> AgentStatus {
        AgentStatus {
            software: Hello::current("tombolo-agent").software,
            generation: state.generation,
            problems: Vec::new(),
            ingress: [parts::ingress(self.number)].into(),
            ingress_unknown: false,
            gateways: vec![
                gateway("egress-1", GatewayRole::Egress, peers(&state.resources)),
                gateway("ingress-1", GatewayRole::Ingress, BTreeMap::new()),
            ],
            install: None,
            intermediate: Some(self.intermediate.clone()),
            trial: None,
        }
    }
}

type Peers = BTreeMap<ClusterName, BTreeMap<String, PeerState>>;

/// Each peer, found well.
fn peers(state: &Resources<ClusterResource>) -> Peers {
    let well = || PeerState { health: Health::Healthy, handshake: true, rtt_us: None, error: None };
    let peers = state.values().filter_map(|resource| match resource {
        ClusterResource::Peer(peer) => Some(peer),
        _ => None,
    });
    peers
        .map(|peer| (peer.cluster.clone(), peer.ingress.iter().map(|at| (at.clone(), well())).collect()))
        .collect()
}

fn gateway(instance: &str, role: GatewayRole, peers: Peers) -> GatewayReport {
    GatewayReport {
        instance: instance.to_owned(),
        role,
        software: Hello::current("tombolo-gateway").software,
        admin: None,
        status: GatewayStatus { peers, ..GatewayStatus::default() },
    }
}
