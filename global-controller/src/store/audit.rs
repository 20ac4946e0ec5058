//! The audit log: who changed what.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tombolo_model::{
    Generation,
    id::{AuditId, OrgId},
};
use uuid::Uuid;

/// An audit event as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AuditRow {
    pub(crate) id: AuditId,
    /// The organization, and the generation that the same transaction takes; none for the installation.
    pub(crate) org: Option<(OrgId, Generation)>,
    pub(crate) at: DateTime<Utc>,
    /// `token`, `agent` or `system`.
    pub(crate) actor_kind: String,
    pub(crate) actor_id: String,
    pub(crate) actor_name: String,
    /// As `cluster.create`.
    pub(crate) action: String,
    pub(crate) subject_kind: String,
    pub(crate) subject_name: String,
    pub(crate) subject_id: Option<Uuid>,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
    pub(crate) difference: Value,
    pub(crate) request_id: Option<String>,
}

struct Row {
    id: Uuid,
    generation: Option<i64>,
    at: DateTime<Utc>,
    actor_kind: String,
    actor_id: String,
    actor_name: String,
    action: String,
    subject_kind: String,
    subject_name: String,
    subject_id: Option<Uuid>,
    before: Option<Value>,
    after: Option<Value>,
    difference: Value,
    request_id: Option<String>,
}

impl Row {
    fn into_row(self, org: Option<OrgId>) -> Result<AuditRow, Error> {
        let generation = self.generation.map(super::generation).transpose()?;
        Ok(AuditRow {
            id: AuditId::new(self.id),
            org: org.zip(generation),
            at: self.at,
            actor_kind: self.actor_kind,
            actor_id: self.actor_id,
            actor_name: self.actor_name,
            action: self.action,
            subject_kind: self.subject_kind,
            subject_name: self.subject_name,
            subject_id: self.subject_id,
            before: self.before,
            after: self.after,
            difference: self.difference,
            request_id: self.request_id,
        })
    }
}

/// Which audit events are asked for; an empty filter asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuditFilter {
    pub(crate) action: Option<String>,
    pub(crate) subject_kind: Option<String>,
    pub(crate) subject_name: Option<String>,
}

impl Tx {
    /// Adds an event to the log.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn insert_audit(&mut self, event: &AuditRow) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO audit_events (id, org_id, generation, at, actor_kind, actor_id, actor_name, action,
                                       subject_kind, subject_name, subject_id, before, after, difference, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            event.id.as_uuid(),
            event.org.map(|(org, _)| org.as_uuid()),
            event.org.map(|(_, generation)| super::bigint(generation)),
            event.at,
            event.actor_kind,
            event.actor_id,
            event.actor_name,
            event.action,
            event.subject_kind,
            event.subject_name,
            event.subject_id,
            event.before,
            event.after,
            event.difference,
            event.request_id
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Events of an organization, the newest first, those before `before`.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_audit(
        &mut self,
        org: OrgId,
        filter: &AuditFilter,
        before: Option<AuditId>,
        limit: i64,
    ) -> Result<Vec<AuditRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, generation, at, actor_kind, actor_id, actor_name, action, subject_kind,
                      subject_name, subject_id, before, after, difference, request_id
               FROM audit_events
               WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR action = $3)
                 AND ($4::text IS NULL OR subject_kind = $4) AND ($5::text IS NULL OR subject_name = $5)
               ORDER BY id DESC LIMIT $6"#,
            org.as_uuid(),
            before.map(|id| id.as_uuid()),
            filter.action,
            filter.subject_kind,
            filter.subject_name,
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(|row| row.into_row(Some(org))).collect()
    }

    /// Events of the installation, the newest first, those before `before`.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_installation_audit(
        &mut self,
        before: Option<AuditId>,
        limit: i64,
    ) -> Result<Vec<AuditRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, generation, at, actor_kind, actor_id, actor_name, action, subject_kind, subject_name,
                    subject_id, before, after, difference, request_id
             FROM audit_events WHERE org_id IS NULL AND ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2",
            before.map(|id| id.as_uuid()),
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(|row| row.into_row(None)).collect()
    }

    /// Events of an organization after a generation, in the order of their commits.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn audit_since(
        &mut self,
        org: OrgId,
        since: Generation,
        limit: i64,
    ) -> Result<Vec<AuditRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, generation, at, actor_kind, actor_id, actor_name, action, subject_kind,
                      subject_name, subject_id, before, after, difference, request_id
               FROM audit_events WHERE org_id = $1 AND generation > $2 ORDER BY generation, id LIMIT $3"#,
            org.as_uuid(),
            super::bigint(since),
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(|row| row.into_row(Some(org))).collect()
    }
}
