//! `/install/agent.yaml`: the manifest of a cluster's agent, for anybody: who applies it needs no token of ours, and gets
//! no secret. Images of another registry than the controller's, or of another version, are in it for an organization's admin alone: what it
//! names runs in the cluster with the agent's rights, and a link to the controller is believed.

use super::{
    auth::{self, Api},
    extract::{Authenticated, Query},
};
use crate::app::{
    caller::{Access, Role, Scope},
    error::Refusal,
    manifest::{ManifestRequest, manifest},
};
use axum::{
    Router,
    extract::State,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing,
};

async fn agent(
    State(api): State<Api>,
    who: Result<Authenticated, Refusal>,
    mut query: Query,
) -> Result<Response, Refusal> {
    let request = ManifestRequest {
        organization: query.take("organization").unwrap_or_default(),
        cluster: query.take("cluster").unwrap_or_default(),
        registry: query.take("registry"),
        version: query.take("version"),
        never_dial: query.take("never_dial"),
    };
    query.done()?;
    let text = manifest(&api.deps, &request)?;
    let (registry, version) = (&api.deps.image_registry, &api.deps.image_version);
    let others = [("registry", request.registry, registry), ("version", request.version, version)];
    let other = others.into_iter().find(|(_, asked, own)| asked.as_ref().is_some_and(|asked| asked != *own));
    if let Some((field, _, own)) = other {
        let organization = &request.organization;
        let entered = match who {
            Ok(Authenticated { caller, request_id }) => {
                let access = Access::Tenant(Role::Admin);
                Scope::enter(&api.deps, caller, organization, access, request_id).await.map(drop)
            }
            Err(nobody) => Err(nobody),
        };
        entered.map_err(|refusal| {
            let remedy = format!(
                "leave it out, for {own}; or ask with the token of an admin of the organization, as `tombolo cluster manifest NAME` does"
            );
            refusal.field(field, "is another one than the controller's", remedy)
        })?;
    }
    Ok(([(header::CONTENT_TYPE, "application/yaml")], text).into_response())
}

/// What needs no token, as a rule.
pub(super) fn router(api: Api) -> Router {
    let admission = middleware::from_fn_with_state(api.clone(), auth::layer);
    Router::new().route("/install/agent.yaml", routing::get(agent)).layer(admission).with_state(api)
}
