//! What agents ask: to join, to be fed, and to say what they have. See the table in `tombolo_wire::message`.
//!
//! An agent is known by its client certificate, but for its first request, which carries a one-time token.

mod ack;
mod body;
mod certificate;
mod door;
mod feed;
mod gateway_address;
mod inventory;
mod join;
mod peer;
mod size;
mod status;
mod version;

use crate::{
    app::Deps,
    http::limit::{Limiter, Quota},
    metrics::Agents,
    reconcile::Liveness,
};
use axum::{
    Extension, Router, middleware,
    routing::{MethodRouter, get, post},
};
use door::Brings;
pub(crate) use door::Door;
use std::{sync::Arc, time::Duration};
use tombolo_runtime::{drain, places::Source};
use tower_http::timeout::TimeoutLayer;

/// How long a request may take; feeds have no end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Joining is rare; whoever tries often is guessing, or broken.
const JOINS: Quota = Quota { burst: 60, per_second: 1.0 };

/// For [`Agent::joins`].
pub(crate) fn join_limiter() -> Arc<Limiter<Source>> {
    Arc::new(Limiter::new(JOINS, 10_000))
}

/// The name by which the controller introduces itself.
const PROGRAM: &str = "tombolo-controller";

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Agent {
    /// What the people's API works with too.
    pub(crate) deps: Arc<Deps>,
    /// Who is connected.
    pub(crate) liveness: Arc<Liveness>,
    /// What is counted.
    pub(crate) metrics: Agents,
    /// How often one address may try to join.
    pub(crate) joins: Arc<Limiter<Source>>,
    /// What each cluster and organization may take.
    pub(crate) door: Arc<Door>,
    /// Whether an ingress gateway may be at a loopback address.
    pub(crate) allow_loopback: bool,
    /// Ends feeds in order.
    pub(crate) stop: drain::Watch,
}

/// What an agent may ask: the path, who answers, and what the request brings. To a feed nothing, and it has no end.
fn routes() -> [(&'static str, MethodRouter<Agent>, Option<Brings>); 6] {
    [
        ("/agent/v1/join", post(join::join), Some(Brings::Join)),
        ("/agent/v1/ack", post(ack::ack), Some(Brings::Ack)),
        ("/agent/v1/certificate", post(certificate::certificate), Some(Brings::Certificate)),
        ("/agent/v1/status", post(status::status), Some(Brings::Status)),
        ("/agent/v1/inventory", post(inventory::inventory), Some(Brings::Inventory)),
        ("/agent/v1/feed", get(feed::feed), None),
    ]
}

/// `/agent/v1/…`
pub(crate) fn router(agent: Agent) -> Router {
    let bounded = |(path, answers, brings): (&str, MethodRouter<Agent>, Option<Brings>)| {
        let one = Router::new().route(path, answers);
        let timeout = TimeoutLayer::with_status_code(http::StatusCode::REQUEST_TIMEOUT, PATIENCE);
        brings.map_or(one.clone(), |brings| one.layer(Extension(brings)).layer(timeout))
    };
    routes()
        .into_iter()
        .fold(Router::new(), |all, route| all.merge(bounded(route)))
        .layer(middleware::from_fn(version::check))
        .with_state(agent)
}

#[cfg(test)]
mod tests;
