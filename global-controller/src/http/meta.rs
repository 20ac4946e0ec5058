//! `/whoami`, `/version`, `/openapi.json`.

use super::{answer::Outcome, auth::Api, extract::Authenticated, openapi};
use crate::app::token::{self, Whoami};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tombolo_wire::version::ProtocolVersion;
use utoipa::ToSchema;

/// What runs here.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    /// The program and its version.
    #[schema(example = "tombolo-controller/0.1.0")]
    pub(crate) software: String,
    /// The protocol that it speaks with agents.
    #[schema(example = "1.0")]
    pub(crate) protocol: String,
    /// The version of this API, as in its path.
    #[schema(example = "v1")]
    pub(crate) api: String,
}

/// Whose token this is
#[utoipa::path(get, path = "/whoami", operation_id = "whoami", tag = "meta",
    responses((status = OK, description = "The token's holder.", body = Whoami)))]
pub(super) async fn whoami(
    State(api): State<Api>,
    Authenticated { caller, .. }: Authenticated,
) -> Outcome<Json<Whoami>> {
    token::whoami(&api.deps, &caller).await.map(Json)
}

/// What runs here
#[utoipa::path(get, path = "/version", operation_id = "version", tag = "meta", security(()),
    responses((status = OK, description = "The versions.", body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        software: concat!("tombolo-controller/", env!("CARGO_PKG_VERSION")).to_owned(),
        protocol: ProtocolVersion::CURRENT.to_string(),
        api: "v1".to_owned(),
    })
}

/// This document
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "meta", security(()),
    responses((status = OK, description = "The OpenAPI document of this API.", body = Object)))]
pub(super) async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::shared()).into_response()
}
