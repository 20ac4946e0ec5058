//! Asks the other replicas, each for itself: those pods of the agent's account in its namespace that have an address.

use super::hub::Hub;
use crate::{index::View, state::Membership};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tombolo_feed::{RequestError, TlsConnector, TokenFile, connect::ConnectError, dial};
use tombolo_model::{
    AccountName, NamespaceName,
    snapshot::{ClusterResource, ResourceKey},
};
use tombolo_mtls::{BundleStore, agent_client_config};
use tombolo_runtime::{task, telemetry::chain};
use tombolo_wire::{
    message::{ReplicaAnswer, ReplicaRequest},
    version::Hello,
};

/// As whom the replicas run.
pub(super) const ACCOUNT: &str = "tombolo-agent";
/// How long an answer may take: more than one without news does.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long after a failure it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What this replica needs to know to ask the others.
#[derive(Clone, Debug)]
pub struct Siblings {
    /// The name of its own pod.
    pub own: AccountName,
    /// The agent's namespace.
    pub namespace: NamespaceName,
    /// The port at which each of them takes gateways.
    pub port: u16,
    /// The token of its own pod, with the audience of gateways' tokens.
    pub token: TokenFile,
    /// Whose agents they are.
    pub membership: Arc<Membership>,
    /// The pods.
    pub view: watch::Receiver<Arc<View>>,
    /// The snapshot in force, for its roots.
    pub snapshot: watch::Receiver<Arc<tombolo_feed::State<ClusterResource>>>,
    /// The gateways.
    pub hub: Arc<Hub>,
    /// Whether one of the others says that it holds the Lease.
    pub another_leads: watch::Sender<bool>,
}

#[derive(Debug, Error)]
enum AskError {
    #[error("there is no snapshot yet, so no root to know it by")]
    NoRoots,
    #[error("the roots can't be used")]
    Roots(#[from] tombolo_mtls::Error),
    #[error("its address can't be used")]
    Address(#[from] ConnectError),
    #[error("it can't be asked")]
    Request(#[from] RequestError),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the connection ended")]
    Ended,
}

impl Siblings {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let leading: Arc<watch::Sender<BTreeMap<String, bool>>> =
            Arc::new(watch::Sender::new(BTreeMap::new()));
        let mut leads = leading.subscribe();
        let mut asked: BTreeMap<String, (SocketAddr, AbortOnDropHandle<()>)> = BTreeMap::new();
        loop {
            let found = siblings(&self.view.borrow_and_update(), &self.namespace, &self.own);
            asked.retain(|name, (address, _)| {
                let keep = found.get(name).is_some_and(|ip| SocketAddr::new(*ip, self.port) == *address);
                if !keep {
                    self.hub.lost(name);
                    leading.send_if_modified(|all| all.remove(name).is_some());
                }
                keep
            });
            for (name, ip) in found {
                asked.entry(name.clone()).or_insert_with(|| {
                    let address = SocketAddr::new(ip, self.port);
                    let work = self.clone().follow(name, address, Arc::clone(&leading));
                    (address, AbortOnDropHandle::new(task::spawn("replica", work)))
                });
            }
            self.another_leads.send_if_modified(|old| {
                let now = leads.borrow_and_update().values().any(|leads| *leads);
                std::mem::replace(old, now) != now
            });
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { return },
                // The sender is held here.
                _ = leads.changed() => {}
            }
        }
    }

    async fn follow(
        self,
        name: String,
        address: SocketAddr,
        leading: Arc<watch::Sender<BTreeMap<String, bool>>>,
    ) {
        let mut told = (String::new(), 0);
        let mut said = String::new();
        loop {
            let Err(error) = self.ask(&name, address, &mut told, &leading).await;
            let error = chain(&error);
            if error != said {
                tracing::info!(
                    replica = name,
                    error,
                    "another replica does not answer; its gateways are looked for"
                );
                said = error;
            }
            self.hub.lost(&name);
            told = (String::new(), 0);
            leading.send_if_modified(|all| all.remove(&name).is_some());
            sleep(AGAIN).await;
        }
    }

    /// One connection.
    async fn ask(
        &self,
        name: &str,
        address: SocketAddr,
        told: &mut (String, u64),
        leading: &watch::Sender<BTreeMap<String, bool>>,
    ) -> Result<std::convert::Infallible, AskError> {
        let roots = {
            let snapshot = self.snapshot.borrow();
            match snapshot.resources.get(&ResourceKey::new("bundle", "")) {
                Some(ClusterResource::Bundle(bundle)) => bundle.roots.clone(),
                _ => return Err(AskError::NoRoots),
            }
        };
        let tls = agent_client_config(&roots, &BundleStore::new(), &self.membership.agent_id(), &[b"h2"])?;
        let connector = TlsConnector::new(&address.ip().to_string(), address.port(), tls)?;
        let (requests, connection) = dial(&connector, Some(self.token.clone())).await?;
        tokio::pin!(connection);
        loop {
            let request = ReplicaRequest {
                hello: Hello::current("tombolo-agent"),
                process: told.0.clone(),
                since: told.1,
            };
            let answer = tokio::select! {
                answer = timeout(PATIENCE, requests.post::<_, ReplicaAnswer>("/gateway/v1/replica", &request)) => {
                    answer.map_err(|_| AskError::Silent)??
                }
                () = &mut connection => return Err(AskError::Ended),
            };
            *told = (answer.process.clone(), answer.stamp);
            leading.send_if_modified(|all| all.insert(name.to_owned(), answer.leads) != Some(answer.leads));
            self.hub.heard(name, answer);
        }
    }
}

/// All replicas that have an address, by their pods' names.
pub(crate) fn replicas(view: &View, namespace: &NamespaceName) -> BTreeMap<String, IpAddr> {
    let of_agent = view.pods.of(namespace).filter(|pod| pod.account.as_str() == ACCOUNT);
    of_agent.filter_map(|pod| Some((pod.name.to_string(), *pod.addresses.first()?))).collect()
}

/// The other ones.
fn siblings(view: &View, namespace: &NamespaceName, own: &AccountName) -> BTreeMap<String, IpAddr> {
    let mut others = replicas(view, namespace);
    others.remove(own.as_str());
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::PodObject;

    #[test]
    fn the_agents_other_pods() {
        let mut view = View::default();
        let pods = [
            ("tombolo-system", "tombolo-agent", "own", "10.0.0.1"),
            ("tombolo-system", "tombolo-agent", "other", "10.0.0.2"),
            ("tombolo-system", "tombolo-agent", "new", ""),
            ("tombolo-system", "tombolo-egress", "egress", "10.0.0.3"),
            ("shop", "tombolo-agent", "stranger", "10.0.0.4"),
        ];
        let all = Arc::make_mut(&mut view.pods);
        for (namespace, account, name, ip) in pods {
            let pod = PodObject {
                namespace: namespace.parse().unwrap(),
                name: name.parse().unwrap(),
                uid: name.into(),
                node: None,
                addresses: ip.parse().into_iter().collect(),
                host_network: false,
                account: account.parse().unwrap(),
            };
            all.insert(pod);
        }
        let found = siblings(&view, &"tombolo-system".parse().unwrap(), &"own".parse().unwrap());
        assert_eq!(found, BTreeMap::from([("other".to_owned(), "10.0.0.2".parse().unwrap())]));
    }
}
