//! `/organizations/{org}/clusters/{cluster}/status`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Named, Viewer},
};
use crate::app::status::{self as app, ClusterStatus};
use axum::{Json, extract::State};

/// Read how a cluster is
///
/// Whether its agent follows, how far behind it is, its gateways, and what was left out.
#[utoipa::path(get, path = "/organizations/{org}/clusters/{cluster}/status", operation_id = "get_cluster_status",
    tag = "clusters", responses((status = OK, description = "How the cluster is.", body = ClusterStatus)))]
pub(super) async fn get(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
) -> Outcome<Json<ClusterStatus>> {
    let [name] = path.0;
    app::get(&api.deps, &scope, &name).await.map(Json)
}
