//! `/organizations/{org}/clusters/{cluster}/install`.

use super::{
    answer::{Outcome, Versioned},
    auth::Api,
    extract::{Body, Editor, IfMatch, Named, Viewer},
};
use crate::app::install::{self as app, Install, InstallRequest};
use axum::{extract::State, http::StatusCode};

/// Read what is installed in a cluster
///
/// As it is asked for; how it goes is in the cluster's status.
#[utoipa::path(get, path = "/organizations/{org}/clusters/{cluster}/install", operation_id = "get_install",
    tag = "clusters", responses((status = OK, description = "What is asked for.", body = Install)))]
pub(super) async fn get(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
) -> Outcome<Versioned<Install>> {
    let [name] = path.0;
    let shown = app::get(&api.deps, &scope, &name).await?;
    Ok(Versioned { version: shown.version(), shown })
}

/// Install in a cluster, or change what is installed
///
/// The agent of the cluster does it, repairs it, and says in the cluster's status how it goes. What is left out has its
/// default. Where nothing was ever installed, `If-Match` is `"0"` or `*`. Another `registry` than the controller's, or than the one in force,
/// needs the role `admin`, and must be one that the cluster's agent allows.
#[utoipa::path(put, path = "/organizations/{org}/clusters/{cluster}/install", operation_id = "put_install",
    tag = "clusters", request_body = InstallRequest,
    responses((status = OK, description = "What is asked for now.", body = Install)))]
pub(super) async fn put(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
    body: Body<InstallRequest>,
) -> Outcome<Versioned<Install>> {
    let [name] = path.0;
    let shown = app::put(&api.deps, &scope, &name, body.value, &expected).await?;
    Ok(Versioned { version: shown.version(), shown })
}

/// Take out what is installed in a cluster
///
/// The agent takes out all that it made (objects of the Multi-Cluster Services API it makes without an order, too), and gives the cluster's DNS back as it found it. The agent itself stays, until
/// what was applied for it is deleted.
#[utoipa::path(delete, path = "/organizations/{org}/clusters/{cluster}/install", operation_id = "delete_install",
    tag = "clusters", responses((status = NO_CONTENT, description = "It is asked for.")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
) -> Outcome<StatusCode> {
    let [name] = path.0;
    app::remove(&api.deps, &scope, &name, &expected).await.map(|()| StatusCode::NO_CONTENT)
}
