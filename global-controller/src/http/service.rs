//! `/organizations/{org}/services`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Named, Query, Viewer},
};
use crate::app::{
    page::List,
    service::{self as app, Service, ServiceFilter},
};
use axum::{Json, extract::State};

/// List services
///
/// Every global name with its virtual IPs, and where it is served.
#[utoipa::path(get, path = "/organizations/{org}/services", operation_id = "list_services", tag = "services",
    params(
        ("gns" = Option<String>, Query, description = "Only those of this global namespace."),
        ("cluster" = Option<String>, Query, description = "Only those that this cluster serves."),
    ),
    responses((status = OK, description = "A page of services.", body = List<Service>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    mut query: Query,
) -> Outcome<Json<List<Service>>> {
    let filter = ServiceFilter { gns: query.take("gns"), cluster: query.take("cluster") };
    app::list(&api.deps, &scope, &filter, &query.page("services")?).await.map(Json)
}

/// Read a service
#[utoipa::path(get, path = "/organizations/{org}/services/{name}", operation_id = "get_service", tag = "services",
    responses((status = OK, description = "The service.", body = Service)))]
pub(super) async fn get(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    path: Named<1>,
) -> Outcome<Json<Service>> {
    let [name] = path.0;
    app::get(&api.deps, &scope, &name).await.map(Json)
}
