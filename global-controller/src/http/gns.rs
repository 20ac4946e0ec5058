//! `/organizations/{org}/global-namespaces`.

use super::{
    answer::{Outcome, Versioned},
    auth::Api,
    extract::{Body, Editor, IfMatch, Named, Query, Viewer},
};
use crate::app::{
    gns::{self as app, GlobalNamespace, GlobalNamespaceUpdate, NewGlobalNamespace},
    once::Answer,
    page::List,
};
use axum::{Json, extract::State, http::StatusCode};

/// List global namespaces
#[utoipa::path(get, path = "/organizations/{org}/global-namespaces", operation_id = "list_global_namespaces",
    tag = "global namespaces",
    responses((status = OK, description = "A page of global namespaces.", body = List<GlobalNamespace>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    query: Query,
) -> Outcome<Json<List<GlobalNamespace>>> {
    app::list(&api.deps, &scope, &query.page("global-namespaces")?).await.map(Json)
}

/// Create a global namespace
#[utoipa::path(post, path = "/organizations/{org}/global-namespaces", operation_id = "create_global_namespace",
    tag = "global namespaces", request_body = NewGlobalNamespace,
    responses((status = CREATED, description = "The global namespace.", body = GlobalNamespace)))]
pub(super) async fn create(
    State(api): State<Api>,
    Editor(scope): Editor,
    body: Body<NewGlobalNamespace>,
) -> Outcome<Answer> {
    let once = body.once()?;
    app::create(&api.deps, &scope, body.value, once).await
}

/// Read a global namespace
#[utoipa::path(get, path = "/organizations/{org}/global-namespaces/{gns}", operation_id = "get_global_namespace",
    tag = "global namespaces",
    responses((status = OK, description = "The global namespace.", body = GlobalNamespace)))]
pub(super) async fn get(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
) -> Outcome<Versioned<GlobalNamespace>> {
    let [name] = path.0;
    let shown = app::get(&api.deps, &scope, &name).await?;
    Ok(Versioned { version: shown.version, shown })
}

/// Replace a global namespace
#[utoipa::path(put, path = "/organizations/{org}/global-namespaces/{gns}",
    operation_id = "replace_global_namespace", tag = "global namespaces", request_body = GlobalNamespaceUpdate,
    responses((status = OK, description = "The global namespace.", body = GlobalNamespace)))]
pub(super) async fn put(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
    body: Body<GlobalNamespaceUpdate>,
) -> Outcome<Versioned<GlobalNamespace>> {
    let [name] = path.0;
    let shown = app::replace(&api.deps, &scope, &name, body.value, &expected).await?;
    Ok(Versioned { version: shown.version, shown })
}

/// Remove a global namespace
///
/// Its names are answered no more. Their virtual IPs stay reserved for them.
#[utoipa::path(delete, path = "/organizations/{org}/global-namespaces/{gns}",
    operation_id = "delete_global_namespace", tag = "global namespaces",
    responses((status = NO_CONTENT, description = "It is removed.")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    IfMatch(expected): IfMatch,
) -> Outcome<StatusCode> {
    let [name] = path.0;
    app::remove(&api.deps, &scope, &name, &expected).await.map(|()| StatusCode::NO_CONTENT)
}
