//! Takes connections: TLS with an optional client certificate, then HTTP/1.1 or HTTP/2, with a bound on everything a
//! stranger may make us hold.

use super::{
    activity::Activity,
    places::{Full, Limits, Place, Places},
};
use crate::{app::error::Reason, metrics::Listener};
use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tombolo_mtls::{Peer, accept_optional};
use tombolo_runtime::{drain, places::Source, task};
use tower::ServiceExt as _;

/// How long a client may take for its handshake, for each request's head, and to go once it is told to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at a time on one connection.
const MAX_STREAMS: u32 = 128;
/// The head of a request, in bytes.
const MAX_HEAD: u32 = 16 * 1024;
/// A client that does not answer a ping for this long is gone.
const PING: Duration = Duration::from_secs(5);
/// How long after a failed accept the next one is tried (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end, as an extension of each request: the identity of the client certificate, where one was shown
/// and believed.
#[derive(Clone, Debug)]
pub(crate) struct Client(pub(crate) Option<Arc<Peer>>);

/// Serves an application.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) app: Router,
    pub(crate) metrics: Listener,
    pub(crate) limits: Limits,
}

impl Server {
    /// Takes connections until the draining begins; then each ends after the requests it has.
    pub(crate) async fn run(self, listener: TcpListener, stop: drain::Watch) {
        let places = Places::new(self.limits);
        let hands = Arc::new(Semaphore::new(self.limits.handshakes().max(1)));
        loop {
            // while too many shake hands, others wait in the listener's queue
            let Ok(hand) = Arc::clone(&hands).acquire_owned().await else { return };
            let accepted = tokio::select! {
                biased;
                () = stop.signaled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let source = Source::of(address.ip());
                    let place = match places.knock(source) {
                        Ok(place) => place,
                        Err(full) => {
                            self.refused(full, address);
                            continue;
                        }
                    };
                    let (server, stop) = (self.clone(), stop.clone());
                    task::spawn("https connection", async move {
                        server.metrics.connections.inc();
                        server.connection(stream, address, (place, hand), stop).await;
                        server.metrics.connections.dec();
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn refused(&self, full: Full, address: SocketAddr) {
        self.metrics.refused.get_or_create(&[("full", full.name())]).inc();
        tracing::debug!(client = %address, full = full.name(), "no place for a connection");
    }

    async fn connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        (mut place, hand): (Place, OwnedSemaphorePermit),
        stop: drain::Watch,
    ) {
        // a feed is many small lines; waiting to fill a packet only delays them
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(PATIENCE, accept_optional(stream, Arc::clone(&self.tls)));
        let (stream, peer) = match handshake.await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                self.metrics.handshakes_failed.inc();
                tracing::debug!(client = %address, error = tombolo_runtime::telemetry::chain(&error), "handshake failed");
                return;
            }
            Err(_) => {
                self.metrics.handshakes_failed.inc();
                tracing::debug!(client = %address, "handshake took too long");
                return;
            }
        };
        drop(hand);
        if let Err(full) = place.settle(peer.as_ref()) {
            self.refused(full, address);
            return;
        }
        let client = Client(peer.map(Arc::new));
        let activity = Activity::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            let busy = activity.begin();
            request.extensions_mut().insert(client.clone());
            request.extensions_mut().insert(ConnectInfo(address));
            let answer = self.app.clone().oneshot(request);
            let refusals = self.metrics.requests_refused.clone();
            async move {
                let response = answer.await?;
                if let Some(Reason(reason)) = response.extensions().get() {
                    refusals.get_or_create(&[("reason", *reason)]).inc();
                    tracing::debug!(client = %address, reason, "request refused");
                }
                Ok::<_, Infallible>(response.map(|body| busy.until_sent(body)))
            }
        });
        let builder = builder();
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            biased;
            served = connection.as_mut() => served,
            () = stop.signaled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    served = connection.as_mut() => served,
                    () = stop.cut() => return,
                }
            }
            () = activity.stalled(self.limits.idle) => {
                self.metrics.stalled.inc();
                tracing::debug!(client = %address, "an answer waited for its reader for too long");
                return;
            }
            () = activity.idle(self.limits.idle) => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(PATIENCE, connection.as_mut()).await {
                    Ok(served) => served,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = served {
            tracing::debug!(client = %address, error = tombolo_runtime::telemetry::chain(error.as_ref()), "connection ended");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_send_buf_size(1024 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
