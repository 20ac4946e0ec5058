//! `/organizations/{org}/clusters`.

use super::{
    answer::{Outcome, Versioned},
    auth::Api,
    extract::{Body, Editor, IfMatch, Named, Query, Viewer},
};
use crate::app::{
    cluster::{self as app, Cluster, ClusterPatch, NewCluster},
    once::Answer,
    page::List,
};
use axum::{Json, extract::State, http::StatusCode};

/// List clusters
#[utoipa::path(get, path = "/organizations/{org}/clusters", operation_id = "list_clusters", tag = "clusters",
    params(("revoked" = Option<bool>, Query, description = "Whether to list removed clusters too.")),
    responses((status = OK, description = "A page of clusters.", body = List<Cluster>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    mut query: Query,
) -> Outcome<Json<List<Cluster>>> {
    let revoked = query.flag("revoked")?;
    app::list(&api.deps, &scope, revoked, &query.page("clusters")?).await.map(Json)
}

/// Create a cluster
///
/// It is `pending` until an agent joins as it, with an onboarding token. The name of a removed cluster may be used
/// again.
#[utoipa::path(post, path = "/organizations/{org}/clusters", operation_id = "create_cluster", tag = "clusters",
    request_body = NewCluster,
    responses((status = CREATED, description = "The cluster.", body = Cluster)))]
pub(super) async fn create(
    State(api): State<Api>,
    Editor(scope): Editor,
    body: Body<NewCluster>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::create(&api.deps, &scope, body.value, once).await
}

/// Read a cluster
#[utoipa::path(get, path = "/organizations/{org}/clusters/{cluster}", operation_id = "get_cluster",
    tag = "clusters", responses((status = OK, description = "The cluster.", body = Cluster)))]
pub(super) async fn get(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
) -> Outcome<Versioned<Cluster>> {
    let [name] = path.0;
    let shown = app::get(&api.deps, &scope, &name).await?;
    Ok(Versioned { version: shown.version, shown })
}

/// Change a cluster's labels or place
///
/// What is left out stays.
#[utoipa::path(patch, path = "/organizations/{org}/clusters/{cluster}", operation_id = "update_cluster",
    tag = "clusters", request_body = ClusterPatch,
    responses((status = OK, description = "The cluster.", body = Cluster)))]
pub(super) async fn patch(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
    body: Body<ClusterPatch>,
) -> Outcome<Versioned<Cluster>> {
    let [name] = path.0;
    let shown = app::patch(&api.deps, &scope, &name, body.value, &expected).await?;
    Ok(Versioned { version: shown.version, shown })
}

/// Remove a cluster
///
/// It is `revoked`: its CA leaves the trust bundle, so that its peers end all connections with it within seconds, and
/// its open onboarding tokens are void.
#[utoipa::path(delete, path = "/organizations/{org}/clusters/{cluster}", operation_id = "delete_cluster",
    tag = "clusters", responses((status = NO_CONTENT, description = "It is removed.")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
) -> Outcome<StatusCode> {
    let [name] = path.0;
    app::remove(&api.deps, &scope, &name, &expected).await.map(|()| StatusCode::NO_CONTENT)
}
