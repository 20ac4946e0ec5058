//! DNS as a process of its own, beside the agent: names resolve while no agent runs.

use super::{Config, Metrics, Server, ZoneWriter, kept, server::BindError};
use crate::state::{DataDir, StateError};
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::net::TcpListener;
use tombolo_runtime::{
    admin::{self, Readiness, Routes},
    drain::{self, Drained},
    metrics, task,
};

/// Why it can't start.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The agent's directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The DNS server.
    #[error(transparent)]
    Dns(#[from] BindError),
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

/// A DNS server with everything bound, that does not run yet.
#[derive(Debug)]
pub struct Process {
    server: Server,
    admin: Option<TcpListener>,
    metrics: Arc<metrics::Metrics>,
    zones: ZoneWriter,
    data: DataDir,
}

impl Process {
    /// Binds what it listens on. The agent whose directory `data` is need not have run yet.
    ///
    /// # Errors
    /// A [`ProcessError`]; each says what to do.
    pub async fn build(data: &Path, config: Config, admin: Option<SocketAddr>) -> Result<Self, ProcessError> {
        let data = DataDir::create(data)?;
        let metrics = Arc::new(metrics::Metrics::new("dns"));
        let zones = ZoneWriter::new();
        let server = Server::bind(config, zones.reader(), Metrics::register(&metrics)).await?;
        let admin = match admin {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address).await.map_err(|source| ProcessError::Admin { address, source })?,
            ),
        };
        Ok(Self { server, admin, metrics, zones, data })
    }

    /// Where DNS is answered.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Runs until `stop`, then answers what it was asked, for at most `deadline`.
    pub async fn run(self, stop: impl Future<Output = ()>, deadline: Duration) -> Drained {
        let (drain, watch) = drain::channel();
        let readiness = Readiness::new();
        let follow = task::spawn("kept snapshot", kept::follow(self.data, self.zones, readiness.clone()));
        if let Some(listener) = self.admin {
            task::spawn(
                "admin",
                admin::serve(listener, self.metrics, readiness, Routes::new(), drain.watch()),
            );
        }
        let (server, stopped) = (self.server, drain.watch());
        task::spawn("dns", async move { server.run(stopped.signaled()).await });
        drop(watch);
        stop.await;
        let drained = drain.drain(deadline).await;
        follow.abort();
        drained
    }
}
