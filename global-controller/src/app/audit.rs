//! The audit log: who changed what, and the difference made.

use super::{
    Deps,
    caller::{Caller, Scope},
    error::Result,
    page::{List, Page},
};
pub(crate) use crate::store::audit::AuditFilter;
use crate::store::audit::AuditRow;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tombolo_model::{
    Generation, SpiffeId,
    id::{AuditId, OrgId},
};
use utoipa::ToSchema;
use uuid::Uuid;

/// Something that was changed, by whom, and how.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    /// Its id; the later sorts after.
    pub(crate) id: Uuid,
    /// When.
    pub(crate) at: DateTime<Utc>,
    /// The organization's generation that this change led to; absent for changes of the installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// Who.
    pub(crate) actor: Actor,
    /// What was done, as `cluster.create`.
    pub(crate) action: String,
    /// What it was done to.
    pub(crate) subject: AuditSubject,
    /// What became different.
    pub(crate) difference: Vec<Difference>,
    /// The `x-request-id` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// Who changed something.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Actor {
    /// `token`, `agent` or `system`.
    pub(crate) kind: String,
    /// The id of the token, or the identity of the agent.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
}

/// What was changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditSubject {
    /// As `cluster`.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Uuid>,
}

/// A value that became another one.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, ToSchema)]
pub(crate) struct Difference {
    /// Where, as a JSON pointer (RFC 6901) into what the API shows; empty for the whole.
    pub(crate) path: String,
    /// What was there; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) before: Option<Value>,
    /// What is there; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) after: Option<Value>,
}

/// The kind of actor that is no caller of the API.
const SYSTEM: &str = "system";
/// Which one.
const CONTROLLER: &str = "controller";

/// The event of an organization whose database was found to be older than what was published of it: the generation that
/// it had and the one it takes, and the agent that showed it, where it was one.
pub(crate) fn restored(
    org: OrgId,
    (before, after): (Generation, Generation),
    agent: Option<&SpiffeId>,
    now: DateTime<Utc>,
) -> AuditRow {
    let (before, generation) = (json!({ "generation": before }), after);
    let after = json!({ "generation": after });
    let (kind, id, name) = match agent {
        Some(id) => ("agent", id.to_string(), id.cluster.to_string()),
        None => (SYSTEM, CONTROLLER.to_owned(), CONTROLLER.to_owned()),
    };
    AuditRow {
        actor_kind: kind.to_owned(),
        actor_id: id,
        actor_name: name,
        difference: difference(Some(&before), Some(&after)),
        before: Some(before),
        after: Some(after),
        ..by_controller((org, generation), "organization.restored", ("organization", org.as_uuid()), now)
    }
}

/// A step of a rotation of the organization's root, which the controller takes by itself.
pub(crate) fn of_root(
    org: OrgId,
    generation: Generation,
    action: &'static str,
    root: Uuid,
    now: DateTime<Utc>,
) -> AuditRow {
    by_controller((org, generation), action, ("root", root), now)
}

/// What the controller did by itself, without a difference to show.
fn by_controller(
    org: (OrgId, Generation),
    action: &'static str,
    (kind, id): (&'static str, Uuid),
    now: DateTime<Utc>,
) -> AuditRow {
    AuditRow {
        id: AuditId::new(Uuid::now_v7()),
        org: Some(org),
        at: now,
        actor_kind: SYSTEM.to_owned(),
        actor_id: CONTROLLER.to_owned(),
        actor_name: CONTROLLER.to_owned(),
        action: action.to_owned(),
        subject_kind: kind.to_owned(),
        subject_name: id.to_string(),
        subject_id: Some(id),
        difference: json!([]),
        before: None,
        after: None,
        request_id: None,
    }
}

impl AuditEvent {
    /// What the API shows of a stored event.
    pub(crate) fn show(row: AuditRow) -> Self {
        Self {
            id: row.id.as_uuid(),
            at: row.at,
            generation: row.org.map(|(_, generation)| generation.get()),
            actor: Actor { kind: row.actor_kind, id: row.actor_id, name: row.actor_name },
            action: row.action,
            subject: AuditSubject { kind: row.subject_kind, name: row.subject_name, id: row.subject_id },
            // an event that an older version wrote otherwise is shown without its difference rather than not at all
            difference: serde_json::from_value(row.difference).unwrap_or_default(),
            request_id: row.request_id,
        }
    }
}

/// Events, the newest first.
///
/// # Errors
/// As any query.
pub(crate) async fn list(
    deps: &Deps,
    scope: &Scope,
    filter: &AuditFilter,
    page: &Page,
) -> Result<List<AuditEvent>> {
    let before = page.after_id::<AuditId>()?;
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_audit(scope.org.id, filter, before, page.fetch()).await?;
    Ok(page.list(rows.into_iter().map(AuditEvent::show).collect(), |event| event.id.to_string()))
}

/// Events of the installation, the newest first.
///
/// # Errors
/// As any query.
pub(crate) async fn list_installation(deps: &Deps, caller: &Caller, page: &Page) -> Result<List<AuditEvent>> {
    caller.must_be_owner()?;
    let before = page.after_id::<AuditId>()?;
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_installation_audit(before, page.fetch()).await?;
    Ok(page.list(rows.into_iter().map(AuditEvent::show).collect(), |event| event.id.to_string()))
}

/// What became different between two states of a thing: a list of [`Difference`]s. Objects are compared field by
/// field; anything else as a whole, because "the list is now this" reads better than shifted positions.
pub(crate) fn difference(before: Option<&Value>, after: Option<&Value>) -> Value {
    let mut found = Vec::new();
    walk(&mut String::new(), before, after, &mut found);
    Value::Array(found)
}

/// Fields that change with every edit and say nothing.
const NOISE: [&str; 2] = ["version", "updated_at"];

fn walk(path: &mut String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Value>) {
    if before == after {
        return;
    }
    let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) else {
        let mut entry = Map::new();
        entry.insert("path".to_owned(), json!(path));
        entry.extend(before.map(|value| ("before".to_owned(), value.clone())));
        entry.extend(after.map(|value| ("after".to_owned(), value.clone())));
        found.push(Value::Object(entry));
        return;
    };
    let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))).collect();
    keys.sort();
    for key in keys {
        if path.is_empty() && NOISE.contains(&key.as_str()) {
            continue;
        }
        let length = path.len();
        path.push('/');
        path.push_str(&key.replace('~', "~0").replace('/', "~1"));
        walk(path, old.get(key), new.get(key), found);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_place() {
        let before = json!({"labels": {"env": "test", "a/b": "1"}, "rules": [1, 2], "version": 1});
        let after = json!({"labels": {"env": "prod", "team": "shop"}, "rules": [1, 2], "version": 2});
        assert_eq!(
            difference(Some(&before), Some(&after)),
            json!([
                {"path": "/labels/a~1b", "before": "1"},
                {"path": "/labels/env", "before": "test", "after": "prod"},
                {"path": "/labels/team", "after": "shop"},
            ])
        );
    }

    #[test]
    fn making_and_removing_are_differences_of_the_whole() {
        let thing = json!({"name": "a"});
        assert_eq!(difference(None, Some(&thing)), json!([{"path": "", "after": {"name": "a"}}]));
        assert_eq!(difference(Some(&thing), None), json!([{"path": "", "before": {"name": "a"}}]));
        assert_eq!(difference(Some(&thing), Some(&thing)), json!([]));
    }
}
