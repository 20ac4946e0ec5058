//! The same requests over TLS 1.3, for gateways in pods. The agent shows its own certificate; who asks is in the token of
//! each request.

use super::{
    connection,
    peer::Peer,
    problem::Problem,
    review::{Ask, Reviews, by},
    routes::Context,
};
use rustls::ServerConfig;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tombolo_model::NamespaceName;
use tombolo_mtls::{Credentials, accept_optional, agent_server_config};
use tombolo_runtime::{
    clock::Clock,
    drain::Watch,
    places::{Place, Places, Shares, Source},
    task,
    telemetry::chain,
};

/// How long a handshake may take, and how long a connection may show no token.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of pods that the API server knows; of each, for it may have some that nobody has seen die yet.
const KNOWN: Shares = Shares { all: 8192, each: 16 };
/// Connections of those who showed no token yet; from each address, behind which there may be a whole node.
const UNKNOWN: Shares = Shares { all: 512, each: 128 };
/// How long after a failed accept the next one is tried (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the port can't be had.
#[derive(Debug, Error)]
#[error("can't listen for gateways on {address}; give another --gateway-listen, or end what listens there")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// The bound port.
#[derive(Debug)]
pub struct PodListener {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
}

/// Who may come in: whom the API server knows.
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    reviews: Arc<Reviews>,
    own: NamespaceName,
}

impl Doorkeeper {
    /// Asks the API server of this client; `own` is the agent's namespace.
    #[must_use]
    pub fn new(client: kube::Client, own: NamespaceName, clock: Arc<dyn Clock>) -> Self {
        Self::asking(by(client), own, clock)
    }

    pub(super) fn asking(ask: Ask, own: NamespaceName, clock: Arc<dyn Clock>) -> Self {
        Self { reviews: Arc::new(Reviews::new(ask, clock)), own }
    }
}

impl PodListener {
    /// Binds the port. `credentials` are the agent's own.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(address: SocketAddr, credentials: &Credentials) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls: agent_server_config(credentials, &[b"h2"]) })
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves gateways until the draining; then their feeds end with a goodbye.
    pub async fn run(self, context: Context, doorkeeper: Doorkeeper) {
        let stop: Watch = context.stop.clone();
        let (unknown, known) = (Places::new(UNKNOWN), Places::new(KNOWN));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.signaled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let place = match unknown.take(&Source::of(address.ip())) {
                        Ok(place) => place,
                        Err(full) => {
                            tracing::debug!(peer = %address, full = ?full, "no place for a gateway's connection");
                            continue;
                        }
                    };
                    let visit = Visit { address, place, known: known.clone() };
                    let (context, keeper) = (context.clone(), doorkeeper.clone());
                    let tls = Arc::clone(&self.tls);
                    task::spawn("gateway connection", serve(stream, visit, tls, context, keeper));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the port for gateways could not accept; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection of somebody who is not known yet.
struct Visit {
    address: SocketAddr,
    /// Until a token is shown.
    place: Place,
    /// Where there is one from then on, by the uid of the pod.
    known: Places<String>,
}

async fn serve(
    stream: TcpStream,
    Visit { address, place, known: places }: Visit,
    tls: Arc<ServerConfig>,
    context: Context,
    keeper: Doorkeeper,
) {
    // Small lines that should arrive at once.
    let _ = stream.set_nodelay(true);
    let accepted = tokio::select! {
        accepted = timeout(PATIENCE, accept_optional(stream, tls)) => accepted,
        () = place.lost() => return,
    };
    let stream = match accepted {
        Ok(Ok((stream, _))) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(peer = %address, error = chain(&error), "a gateway's handshake failed");
        }
        Err(_) => return tracing::debug!(peer = %address, "a gateway's handshake took too long"),
    };
    let stop = context.stop.clone();
    let known: Arc<OnceLock<Place<String>>> = Arc::default();
    let seen = CancellationToken::new();
    let settled = (Arc::clone(&known), seen.clone());
    let respond = move |request: http::Request<hyper::body::Incoming>| {
        let (context, keeper, places, (known, seen)) =
            (context.clone(), keeper.clone(), places.clone(), settled.clone());
        async move {
            match keeper.whose(request.headers(), Source::of(address.ip())).await {
                Ok(peer) => {
                    if known.get().is_none() {
                        match places.take(&peer.uid()) {
                            // two requests may come at once; one place is enough
                            Ok(place) => drop(known.set(place)),
                            Err(_) => return Problem::crowded().into_response(),
                        }
                        seen.cancel();
                    }
                    context.respond(request, peer).await
                }
                Err(problem) => {
                    tracing::warn!(peer = %address, error = problem.detail(), "who asks for a gateway is not known");
                    problem.into_response()
                }
            }
        }
    };
    // A stranger does not keep a place, and nobody keeps more of them than others need.
    let given_up = async move {
        tokio::select! {
            () = seen.cancelled() => {}
            () = place.lost() => return,
            () = sleep(PATIENCE) => return,
        }
        drop(place);
        match known.get() {
            Some(place) => place.lost().await,
            None => std::future::pending().await,
        }
    };
    connection::serve(stream, respond, given_up, &stop).await;
}

impl Doorkeeper {
    async fn whose(&self, headers: &http::HeaderMap, from: Source) -> Result<Peer, Problem> {
        let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(Problem::no_token)?;
        let caller = self.reviews.whose(token.trim(), from).await?;
        Ok(Peer::Pod { caller, own: self.own.clone() })
    }
}

#[cfg(test)]
mod tests;
