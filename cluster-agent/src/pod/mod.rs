//! The agent as a pod: nobody runs `tombolo-agent join` there, and no disk stays.
//!
//! - [`joining`]: the replica that holds the Lease joins with the token that lies in a mounted Secret, once; a new token
//!   there makes it join again.
//! - [`secret`]: what joining gave (who this cluster is, its intermediate, the next one) is in the Secret `tombolo-state`.
//!   All replicas have it mounted; the holder writes it, by PATCH of that one name. Of what is mounted and what is in the
//!   data directory, the later intermediate counts: a Secret takes a minute to reach its mounts.
//! - [`snapshot`]: the last good snapshot is in ConfigMaps, for a pod that starts while the controller is away.

mod joining;
mod secret;
pub(crate) mod snapshot;

pub use joining::Following;

use crate::{
    dns,
    lease::{Standing, Standings},
    state::StateError,
};
use joining::Joining;
use secret::StateSecret;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};
use tombolo_model::{ClusterName, Locality, NamespaceName};
use tombolo_runtime::{
    admin::{self, Readiness, Routes},
    drain,
    metrics::Metrics,
    task,
};

/// What an agent in a pod is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the Secret with the state is mounted.
    pub state_dir: PathBuf,
    /// How to join, where there is no state yet.
    pub join: Option<Join>,
}

/// How to join.
#[derive(Clone, Debug)]
pub struct Join {
    /// Where the one-time token is. It need not be there.
    pub token_file: PathBuf,
    /// The controller's URL.
    pub controller: String,
    /// The fingerprint of its CA.
    pub ca_fingerprint: String,
    /// The cluster to join as.
    pub cluster: ClusterName,
    /// Where it runs.
    pub locality: Locality,
}

/// Why an agent in a pod can't start.
#[derive(Debug, Error)]
pub enum PodError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The admin port.
    #[error("can't listen on {address} for the admin port; give another --admin, or end what listens there")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// An agent in a pod, before it may be known where it belongs.
pub struct Prepared {
    /// What it is told.
    pub config: Config,
    /// The API server.
    pub client: kube::Client,
    /// The agent's namespace.
    pub namespace: NamespaceName,
    /// Whether this replica holds the Lease.
    pub standing: watch::Receiver<Standing>,
}

impl Prepared {
    /// Waits until the cluster has joined. Meanwhile the admin port says why it has not; then it is closed, for the agent
    /// to have. What lies in the cluster of the last snapshot is put in the data directory.
    ///
    /// # Errors
    /// [`PodError`].
    pub async fn joined(self, data: &Path, admin: Option<SocketAddr>) -> Result<Following, PodError> {
        let (drain, stop) = drain::channel();
        let readiness = Readiness::new();
        let mut serving = None;
        if let Some(address) = admin {
            let failed = |source| PodError::Admin { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let metrics = Arc::new(Metrics::new("agent"));
            let work = admin::serve(listener, metrics, readiness.clone(), Routes::new(), stop);
            serving = Some(task::spawn("admin", work));
        } else {
            drop(stop);
        }
        let standings = Standings::new(self.standing, watch::channel(false).1);
        let secret =
            StateSecret::new(self.client.clone(), self.namespace.clone(), self.config.state_dir.clone());
        let mut joining = Joining::new(self.config, data, secret, standings)?;
        joining.joined(|why| readiness.set_not_ready(why)).await;
        snapshot::restore(&self.client, &self.namespace, joining.data(), dns::kept::SNAPSHOT).await;
        // The port is free once it is gone; so are those who still ask whether it has joined.
        drain.drain(Duration::ZERO).await;
        if let Some(serving) = serving {
            let _ = serving.await;
        }
        Ok(joining.follow())
    }
}
