//! How long the API server may take to begin its answer. One that died without a word, behind an address that others serve
//! too, never begins: who waits for it writes nothing more, and another request would be answered.

use http::{Method, Request};
use kube::client::Body;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use thiserror::Error;
use tower::{BoxError, Layer, Service};

/// For what reads: the API server itself gives up after this. A watch begins at once, and lasts.
const READ: Duration = Duration::from_secs(60);
/// For what writes: one of the cluster's webhooks may take 30 s at most.
const WRITE: Duration = Duration::from_secs(35);
/// How long nothing at all may come on a connection of which something is expected: longer than a watch lasts, with what
/// it is given beyond that (65 s).
pub(super) const SILENCE: Duration = Duration::from_secs(75);

/// It did not begin to answer.
#[derive(Debug, Error)]
#[error("no answer within {} s", .0.as_secs())]
struct Silent(Duration);

/// Ends requests that are not answered, and with them the connection that they went by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience;

impl<S> Layer<S> for Patience {
    type Service = Patient<S>;

    fn layer(&self, inner: S) -> Patient<S> {
        Patient(inner)
    }
}

/// See [`Patience`].
#[derive(Clone, Debug)]
pub(super) struct Patient<S>(S);

impl<S> Service<Request<Body>> for Patient<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let most = if *request.method() == Method::GET { READ } else { WRITE };
        let answer = self.0.call(request);
        Box::pin(async move {
            tokio::time::timeout(most, answer).await.unwrap_or_else(|_| Err(Silent(most).into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use tokio::time::Instant;
    use tower::{ServiceExt as _, service_fn};

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_ends() {
        for (method, most) in [(Method::GET, READ), (Method::PATCH, WRITE), (Method::DELETE, WRITE)] {
            let silent = service_fn(async |_: Request<Body>| {
                std::future::pending::<Result<Response<Body>, BoxError>>().await
            });
            let began = Instant::now();
            let request = Request::builder().method(method).body(Body::empty()).unwrap();
            let error = Patience.layer(silent).oneshot(request).await.err().unwrap();
            assert_eq!(error.to_string(), format!("no answer within {} s", most.as_secs()));
            assert!((most..most + Duration::from_secs(1)).contains(&began.elapsed()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_late_is_taken() {
        let late = service_fn(async |_: Request<Body>| {
            tokio::time::sleep(Duration::from_secs(31)).await;
            Ok::<_, BoxError>(Response::new(Body::empty()))
        });
        let request = Request::builder().method(Method::PATCH).body(Body::empty()).unwrap();
        assert!(Patience.layer(late).oneshot(request).await.is_ok());
    }
}
