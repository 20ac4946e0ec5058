//! `/organizations/{org}/clusters/{cluster}/install/trials`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Body, Editor, Named},
};
use crate::app::{
    install::InstallRequest,
    once::Answer,
    trial::{self as app, Trial},
};
use axum::extract::State;

/// Ask what an installation would do
///
/// The agent of the cluster says once, as `trial` of the cluster's status, what it would write. What is asked for stays as
/// it is. A trial ends when it was answered, or after two minutes; another one takes its place.
#[utoipa::path(post, path = "/organizations/{org}/clusters/{cluster}/install/trials",
    operation_id = "create_install_trial", tag = "clusters", request_body = InstallRequest,
    responses((status = CREATED, description = "The agent is asked.", body = Trial)))]
pub(super) async fn create(
    State(api): State<Api>,
    Editor(scope): Editor,
    path: Named<1>,
    body: Body<InstallRequest>,
) -> Outcome<Answer> {
    let [name] = path.0;
    let once = body.once()?;
    app::create(&api.deps, &scope, &name, body.value, once).await
}
