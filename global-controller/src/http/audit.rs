//! `/organizations/{org}/audit-events`.

use super::{
    answer::Outcome,
    auth::Api,
    extract::{Query, Viewer},
};
use crate::app::{
    audit::{self as app, AuditEvent, AuditFilter},
    page::List,
};
use axum::{Json, extract::State};

/// List audit events
///
/// Who changed what, the newest first.
#[utoipa::path(get, path = "/organizations/{org}/audit-events", operation_id = "list_audit_events", tag = "audit",
    params(
        ("action" = Option<String>, Query, description = "Only this action, as `cluster.create`."),
        ("subject_kind" = Option<String>, Query, description = "Only what was done to this kind, as `cluster`."),
        ("subject" = Option<String>, Query, description = "Only what was done to things of this name."),
    ),
    responses((status = OK, description = "A page of audit events.", body = List<AuditEvent>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Viewer(scope): Viewer,
    mut query: Query,
) -> Outcome<Json<List<AuditEvent>>> {
    let filter = AuditFilter {
        action: query.take("action"),
        subject_kind: query.take("subject_kind"),
        subject_name: query.take("subject"),
    };
    app::list(&api.deps, &scope, &filter, &query.page("audit-events")?).await.map(Json)
}
