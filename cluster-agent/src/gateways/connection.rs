//! One connection of a gateway: HTTP/2, until it ends or the agent does.

use super::answer::Body;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{convert::Infallible, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tombolo_runtime::drain::Watch;

/// Requests of one gateway at a time.
const MAX_STREAMS: u32 = 16;
/// How often a peer is asked whether it lives, and how long it may take: a node that died says nothing.
const PING: Duration = Duration::from_secs(10);

/// Answers requests until the other side goes, `given_up`, or the agent ends.
pub(super) async fn serve<I, F, R>(io: I, respond: F, given_up: impl Future<Output = ()>, stop: &Watch)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = respond(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10)
        // what is not read yet waits at the other end, not here
        .initial_stream_window_size(32 << 10)
        .initial_connection_window_size(64 << 10)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = given_up => Ok(()),
        () = stop.signaled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cut() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a gateway's connection ended early");
    }
}
