//! `/organizations`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Authenticated, Body, Landlord, Query, Visitor},
};
use crate::app::{
    once::Answer,
    organization::{self as app, NewOrganization, Organization},
    page::List,
};
use axum::{Json, extract::State, http::StatusCode};

/// List organizations
///
/// All of them for the installation's owner; for other tokens the one that they are of.
#[utoipa::path(get, path = "/organizations", operation_id = "list_organizations", tag = "organizations",
    responses((status = OK, description = "A page of organizations.", body = List<Organization>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Authenticated { caller, .. }: Authenticated,
    query: Query,
) -> Outcome<Json<List<Organization>>> {
    app::list(&api.deps, &caller, &query.page("organizations")?).await.map(Json)
}

/// Create an organization
///
/// Makes its root of trust too. Only the installation's owner may.
#[utoipa::path(post, path = "/organizations", operation_id = "create_organization", tag = "organizations",
    request_body = NewOrganization,
    responses((status = CREATED, description = "The organization.", body = Organization)))]
pub(super) async fn create(
    State(api): State<Api>,
    Authenticated { caller, request_id }: Authenticated,
    body: Body<NewOrganization>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::create(&api.deps, caller, body.value, once, request_id).await
}

/// Read an organization
#[utoipa::path(get, path = "/organizations/{org}", operation_id = "get_organization", tag = "organizations",
    responses((status = OK, description = "The organization.", body = Organization)))]
pub(super) async fn get(Visitor(scope): Visitor) -> Outcome<Json<Organization>> {
    Ok(Json(Organization::show(&scope.org)))
}

/// Delete an organization
///
/// With everything in it, its audit log too. It must have no clusters. Only the installation's owner may.
#[utoipa::path(delete, path = "/organizations/{org}", operation_id = "delete_organization", tag = "organizations",
    responses((status = NO_CONTENT, description = "It is no more.")))]
pub(super) async fn delete(State(api): State<Api>, Landlord(scope): Landlord) -> Outcome<StatusCode> {
    app::delete(&api.deps, &scope).await.map(|()| StatusCode::NO_CONTENT)
}
