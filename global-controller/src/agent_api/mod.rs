//! What agents ask: to join, to be fed, and to say what they have. See the table in `tombolo_wire::message`.
//!
//! An agent is known by its client certificate, but for its first request, which carries a one-time token.

mod ack;
mod body;
mod certificate;
mod feed;
mod gateway_address;
mod inventory;
mod join;
mod peer;
mod status;
mod version;

use crate::{
    app::Deps,
    http::limit::{Limiter, Quota},
    metrics::Agents,
    reconcile::Liveness,
};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, get, post},
};
use std::{sync::Arc, time::Duration};
use tombolo_runtime::{drain, places::Source};
use tower_http::timeout::TimeoutLayer;

/// The longest inventory, in bytes of JSON. Only agents in good standing may send one: bodies are read after that is known.
const MAX_INVENTORY: usize = 64 * 1024 * 1024;

/// The longest status: of each gateway, what it counts.
const MAX_STATUS: usize = 4 * 1024 * 1024;

/// The longest of the other bodies. Nobody needs to be known to send one.
const MAX_BODY: usize = 64 * 1024;

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
    /// Whether an ingress gateway may be at a loopback address.
    pub(crate) allow_loopback: bool,
    /// Ends feeds in order.
    pub(crate) stop: drain::Watch,
}

/// What an agent may ask: the path, who answers, and how long the body may be. A feed has none, and no end.
fn routes() -> [(&'static str, MethodRouter<Agent>, Option<usize>); 6] {
    [
        ("/agent/v1/join", post(join::join), Some(MAX_BODY)),
        ("/agent/v1/ack", post(ack::ack), Some(MAX_BODY)),
        ("/agent/v1/certificate", post(certificate::certificate), Some(MAX_BODY)),
        ("/agent/v1/status", post(status::status), Some(MAX_STATUS)),
        ("/agent/v1/inventory", post(inventory::inventory), Some(MAX_INVENTORY)),
        ("/agent/v1/feed", get(feed::feed), None),
    ]
}

/// `/agent/v1/…`
pub(crate) fn router(agent: Agent) -> Router {
    let bounded = |(path, answers, most): (&str, MethodRouter<Agent>, Option<usize>)| {
        let one = Router::new().route(path, answers);
        let timeout = TimeoutLayer::with_status_code(http::StatusCode::REQUEST_TIMEOUT, PATIENCE);
        most.map_or(one.clone(), |most| one.layer(DefaultBodyLimit::max(most)).layer(timeout))
    };
    routes()
        .into_iter()
        .fold(Router::new(), |all, route| all.merge(bounded(route)))
        .layer(middleware::from_fn(version::check))
        .with_state(agent)
}

#[cfg(test)]
mod tests;
