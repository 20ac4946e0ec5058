//! `/organizations/{org}/trust-bundle` and `/organizations/{org}/certificates`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Query, Viewer},
};
use crate::app::{
    certificate::{self as app, ClusterCertificate, TrustBundle},
    page::List,
};
use axum::{Json, extract::State};

/// Read the trust bundle
///
/// Whom the organization's workloads believe at this time.
#[utoipa::path(get, path = "/organizations/{org}/trust-bundle", operation_id = "get_trust_bundle",
    tag = "certificates", responses((status = OK, description = "The trust bundle.", body = TrustBundle)))]
pub(super) async fn bundle(State(api): State<Api>, Viewer(scope): Viewer) -> Outcome<Json<TrustBundle>> {
    app::bundle(&api.deps, &scope).await.map(Json)
}

/// List the certificates of clusters
///
/// The CA certificate of each cluster, revoked and expired ones too. Workloads' certificates never leave their cluster.
#[utoipa::path(get, path = "/organizations/{org}/certificates", operation_id = "list_certificates",
    tag = "certificates",
    params(("cluster" = Option<String>, Query, description = "Only those of this cluster.")),
    responses((status = OK, description = "A page of certificates.", body = List<ClusterCertificate>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    mut query: Query,
) -> Outcome<Json<List<ClusterCertificate>>> {
    let cluster = query.take("cluster");
    app::list(&api.deps, &scope, cluster.as_deref(), &query.page("certificates")?).await.map(Json)
}
