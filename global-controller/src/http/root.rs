//! `/organizations/{org}/root-rotation`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Body, Keeper, Viewer},
};
use crate::app::{
    once::Answer,
    root::{self as app, NewRootRotation, RootRotation},
};
use axum::{Json, extract::State};

/// Read how far the rotation of the root is
#[utoipa::path(get, path = "/organizations/{org}/root-rotation", operation_id = "get_root_rotation",
    tag = "certificates",
    responses((status = OK, description = "How far it is, and whom it waits for.", body = RootRotation)))]
pub(super) async fn get(State(api): State<Api>, Viewer(scope): Viewer) -> Outcome<Json<RootRotation>> {
    app::get(&api.deps, &scope).await.map(Json)
}

/// Rotate the root
///
/// Makes a new root beside the one that signs. All else goes by itself, each step when nobody is hurt by it: clusters
/// believe both, the new one signs, clusters get new intermediates, the old one goes. Connections go on through all of it.
#[utoipa::path(post, path = "/organizations/{org}/root-rotation", operation_id = "create_root_rotation",
    tag = "certificates", request_body = NewRootRotation,
    responses((status = CREATED, description = "It begins.", body = RootRotation)))]
pub(super) async fn create(
    State(api): State<Api>,
    Keeper(scope): Keeper,
    body: Body<NewRootRotation>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::begin(&api.deps, &scope, once).await
}
