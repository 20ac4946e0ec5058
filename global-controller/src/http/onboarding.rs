//! `/organizations/{org}/clusters/{cluster}/onboarding-tokens`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Body, Editor, Named, Query, Viewer},
};
use crate::app::{
    onboarding::{self as app, CreatedOnboardingToken, NewOnboardingToken, OnboardingToken},
    once::Answer,
    page::List,
};
use axum::{Json, extract::State, http::StatusCode};

/// List a cluster's onboarding tokens
///
/// The newest first, without their secrets.
#[utoipa::path(get, path = "/organizations/{org}/clusters/{cluster}/onboarding-tokens",
    operation_id = "list_onboarding_tokens", tag = "clusters",
    responses((status = OK, description = "A page of tokens.", body = List<OnboardingToken>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
    query: Query,
) -> Outcome<Json<List<OnboardingToken>>> {
    let [cluster] = path.0;
    app::list(&api.deps, &scope, &cluster, &query.page("onboarding-tokens")?).await.map(Json)
}

/// Create an onboarding token
///
/// With it the agent of this cluster joins, once. The answer has the secret, which is not shown again, and the command
/// to run.
#[utoipa::path(post, path = "/organizations/{org}/clusters/{cluster}/onboarding-tokens",
    operation_id = "create_onboarding_token", tag = "clusters", request_body = NewOnboardingToken,
    responses((status = CREATED, description = "The token with its secret.", body = CreatedOnboardingToken)))]
pub(super) async fn create(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    body: Body<NewOnboardingToken>,
) -> Outcome<Answer> {
    let [cluster] = path.0;
    let once = body.once()?;
    app::create(&api.deps, &scope, &cluster, body.value, once).await
}

/// Revoke an onboarding token
#[utoipa::path(delete, path = "/organizations/{org}/clusters/{cluster}/onboarding-tokens/{id}",
    operation_id = "revoke_onboarding_token", tag = "clusters",
    responses((status = NO_CONTENT, description = "Nobody can join with it any more.")))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<2>,
) -> Outcome<StatusCode> {
    let [cluster, id] = path.0;
    app::revoke(&api.deps, &scope, &cluster, &id).await.map(|()| StatusCode::NO_CONTENT)
}
