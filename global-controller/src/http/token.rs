//! `/organizations/{org}/tokens`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Body, Keeper, Named, Query},
};
use crate::app::{
    once::Answer,
    page::List,
    token::{self as app, ApiToken, CreatedApiToken, NewApiToken},
};
use axum::{Json, extract::State, http::StatusCode};

/// List API tokens
///
/// Those that stand, without their secrets. For admins of the organization, and the installation's owner.
#[utoipa::path(get, path = "/organizations/{org}/tokens", operation_id = "list_tokens", tag = "tokens",
    responses((status = OK, description = "A page of tokens.", body = List<ApiToken>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Keeper(scope): Keeper,
    query: Query,
) -> Outcome<Json<List<ApiToken>>> {
    app::list(&api.deps, &scope, &query.page("tokens")?).await.map(Json)
}

/// Create an API token
///
/// The answer has the secret. It is not shown again.
#[utoipa::path(post, path = "/organizations/{org}/tokens", operation_id = "create_token", tag = "tokens",
    request_body = NewApiToken,
    responses((status = CREATED, description = "The token with its secret.", body = CreatedApiToken)))]
pub(super) async fn create(
    State(api): State<Api>,
    Keeper(scope): Keeper,
    body: Body<NewApiToken>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::create(&api.deps, &scope, body.value, once).await
}

/// Read an API token
#[utoipa::path(get, path = "/organizations/{org}/tokens/{token}", operation_id = "get_token", tag = "tokens",
    responses((status = OK, description = "The token, without its secret.", body = ApiToken)))]
pub(super) async fn get(
    State(api): State<Api>,
    Keeper(scope): Keeper,
    path: Named<1>,
) -> Outcome<Json<ApiToken>> {
    let [token] = path.0;
    app::get(&api.deps, &scope, &token).await.map(Json)
}

/// Revoke an API token
#[utoipa::path(delete, path = "/organizations/{org}/tokens/{token}", operation_id = "revoke_token", tag = "tokens",
    responses((status = NO_CONTENT, description = "It opens nothing any more.")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Keeper(scope): Keeper,
    path: Named<1>,
) -> Outcome<StatusCode> {
    let [token] = path.0;
    app::revoke(&api.deps, &scope, &token).await.map(|()| StatusCode::NO_CONTENT)
}
