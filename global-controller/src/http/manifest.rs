//! `/install/agent.yaml`: the manifest of a cluster's agent, for anybody: who applies it needs no token of ours, and gets
//! no secret.

use super::{auth::Api, extract::Query};
use crate::app::{
    error::Refusal,
    manifest::{ManifestRequest, manifest},
};
use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing,
};

async fn agent(State(api): State<Api>, mut query: Query) -> Result<Response, Refusal> {
    let request = ManifestRequest {
        organization: query.take("organization").unwrap_or_default(),
        cluster: query.take("cluster").unwrap_or_default(),
        registry: query.take("registry"),
        version: query.take("version"),
    };
    query.done()?;
    let text = manifest(&api.deps, &request)?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// What needs no token.
pub(super) fn router(api: Api) -> Router {
    Router::new().route("/install/agent.yaml", routing::get(agent)).with_state(api)
}
