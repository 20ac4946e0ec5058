//! All operations of the API, each in the router and in the OpenAPI document by one line.

use super::{
    audit,
    auth::{self, Api},
    certificate, cluster, conditional, events, gns, install, manifest, meta, onboarding, openapi,
    organization, owner, root, service, status, token, trial,
};
use crate::app::{
    Deps,
    error::{Kind, Refusal},
};
use axum::{Router, middleware};
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The operations, relative to `/api/v1`.
pub(super) fn operations() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(meta::version))
        .routes(routes!(meta::openapi_json))
        .routes(routes!(meta::whoami))
        .routes(routes!(owner::list, owner::create))
        .routes(routes!(owner::revoke))
        .routes(routes!(owner::audit))
        .routes(routes!(organization::list, organization::create))
        .routes(routes!(organization::get, organization::delete))
        .routes(routes!(token::list, token::create))
        .routes(routes!(token::get, token::revoke))
        .routes(routes!(cluster::list, cluster::create))
        .routes(routes!(cluster::get, cluster::patch, cluster::delete))
        .routes(routes!(status::get))
        .routes(routes!(install::get, install::put, install::delete))
        .routes(routes!(trial::create))
        .routes(routes!(onboarding::list, onboarding::create))
        .routes(routes!(onboarding::revoke))
        .routes(routes!(gns::list, gns::create))
        .routes(routes!(gns::get, gns::put, gns::delete))
        .routes(routes!(service::list))
        .routes(routes!(service::get))
        .routes(routes!(certificate::bundle))
        .routes(routes!(certificate::list))
        .routes(routes!(root::get, root::create))
        .routes(routes!(audit::list))
        .routes(routes!(events::follow))
}

/// The API, for a server or for a test to call without a socket.
pub(crate) fn router(deps: Arc<Deps>) -> Router {
    of(Api::new(deps))
}

/// The same, with what it keeps.
pub(super) fn of(api: Api) -> Router {
    let (operations, _) = operations().split_for_parts();
    let operations = operations
        .fallback(|| async { Refusal::new(Kind::NotFound, "There is nothing under this path.") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                Kind::MethodNotAllowed,
                "This resource does not know the method; Allow says which it knows.",
            )
        })
        .layer(middleware::from_fn(conditional::layer))
        .layer(middleware::from_fn_with_state(api.clone(), auth::layer))
        .with_state(api.clone());
    Router::new().nest("/api/v1", operations).merge(manifest::router(api))
}
