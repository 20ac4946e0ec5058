//! Whether every replica of the agent answers the API server: each is dialled as the API server dials it, and believed by what that was
//! told to believe.

use futures::future::join_all;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tombolo_mtls::{connect_pinned, web_client_config};
use tombolo_runtime::telemetry::chain;

/// How long a replica may take. The API server waits longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How the injector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Injection {
    /// It was not looked yet, or another replica looks.
    #[default]
    Unknown,
    /// This agent takes no questions about pods.
    Absent,
    /// The cluster has no sidecar containers: pods get no proxies, and all else works.
    TooOld,
    /// The API server is not told whom to ask, and why.
    Untold(String),
    /// The API server was told. How many replicas there are, and which don't serve what it believes, and why.
    Told {
        /// All of them.
        replicas: usize,
        /// By pod.
        silent: BTreeMap<String, String>,
    },
}

impl Injection {
    /// Whether a pod gets its proxy whichever replica is asked.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Told { replicas: 1.., silent } if silent.is_empty())
    }
}

/// Dials all replicas. `believed` is what the API server believes, PEM; `name` how it calls them.
pub(super) async fn serving(
    replicas: &BTreeMap<String, IpAddr>,
    port: u16,
    name: &str,
    believed: &str,
) -> Injection {
    let (config, name) = match (web_client_config(believed), ServerName::try_from(name.to_owned())) {
        (Ok(config), Ok(name)) => (config, name),
        (Err(error), _) => {
            return Injection::Untold(format!("its caBundle can't be used: {}", chain(&error)));
        }
        (_, Err(_)) => return Injection::Untold(format!("{name} is no DNS name")),
    };
    let one = |(pod, address): (&String, &IpAddr)| {
        let pod = pod.clone();
        let dialled = dial(SocketAddr::new(*address, port), Arc::clone(&config), name.clone());
        async move {
            match timeout(PATIENCE, dialled).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some((pod, why)),
                Err(_) => Some((pod, format!("no handshake within {} s", PATIENCE.as_secs()))),
            }
        }
    };
    let silent = join_all(replicas.iter().map(one)).await.into_iter().flatten().collect();
    Injection::Told { replicas: replicas.len(), silent }
}

async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    connect_pinned(stream, config, name).await.map(drop).map_err(|error| chain(&error))
}
