//! `/owner-tokens` and `/audit-events`: the installation.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Authenticated, Body, Named, Query},
};
use crate::app::{
    audit::{self, AuditEvent},
    once::Answer,
    owner::{self as app, NewOwnerToken},
    page::List,
    token::{ApiToken, CreatedApiToken},
};
use axum::{Json, extract::State, http::StatusCode};

/// List the owner's tokens
///
/// Those that stand, without their secrets. For the installation's owner.
#[utoipa::path(get, path = "/owner-tokens", operation_id = "list_owner_tokens", tag = "installation",
    responses((status = OK, description = "A page of tokens.", body = List<ApiToken>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Authenticated { caller, .. }: Authenticated,
    query: Query,
) -> Outcome<Json<List<ApiToken>>> {
    app::list(&api.deps, &caller, &query.page("owner-tokens")?).await.map(Json)
}

/// Create an owner's token
///
/// The answer has the secret. It is not shown again. For the installation's owner.
#[utoipa::path(post, path = "/owner-tokens", operation_id = "create_owner_token", tag = "installation",
    request_body = NewOwnerToken,
    responses((status = CREATED, description = "The token with its secret.", body = CreatedApiToken)))]
pub(super) async fn create(
    State(api): State<Api>,
    Authenticated { caller, request_id }: Authenticated,
    body: Body<NewOwnerToken>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::create(&api.deps, &caller, body.value, once, &request_id).await
}

/// Revoke an owner's token
///
/// The last one that does not end by itself stays. For the installation's owner.
#[utoipa::path(delete, path = "/owner-tokens/{token}", operation_id = "revoke_owner_token", tag = "installation",
    responses((status = NO_CONTENT, description = "It opens nothing any more.")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Authenticated { caller, request_id }: Authenticated,
    path: Named<1>,
) -> Outcome<StatusCode> {
    let [token] = path.0;
    app::revoke(&api.deps, &caller, &token, &request_id).await.map(|()| StatusCode::NO_CONTENT)
}

/// List audit events of the installation
///
/// Of the owner's tokens, and of organizations that were deleted; those of an organization are in its own log. For the
/// installation's owner.
#[utoipa::path(get, path = "/audit-events", operation_id = "list_installation_audit_events", tag = "installation",
    responses((status = OK, description = "A page of audit events.", body = List<AuditEvent>)))]
pub(super) async fn audit(
    State(api): State<Api>,
    Authenticated { caller, .. }: Authenticated,
    query: Query,
) -> Outcome<Json<List<AuditEvent>>> {
    audit::list_installation(&api.deps, &caller, &query.page("installation-audit-events")?).await.map(Json)
}
