//! A use case that changes something of an organization: one transaction, in order with the others of the
//! organization, with its audit events.

use super::{
    Deps, audit,
    caller::Scope,
    error::{Refusal, Result},
    once::{self, Answer, OnceKey},
};
use crate::store::{Change, Tx, audit::AuditRow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tombolo_model::{Generation, id::AuditId};
use uuid::Uuid;

/// What an audit event is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// As `cluster`.
    pub(crate) kind: &'static str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its id.
    pub(crate) id: Uuid,
}

/// A transaction under way.
pub(crate) struct Work<'a> {
    /// The transaction.
    pub(crate) tx: Tx,
    /// The one time of everything in it.
    pub(crate) now: DateTime<Utc>,
    scope: &'a Scope,
    once: Option<OnceKey>,
    generation: Generation,
}

/// Whether there is something to do.
pub(crate) enum Begun<'a> {
    /// Yes.
    Work(Work<'a>),
    /// No: an earlier request with the same key did it, and this was its answer.
    Done(Answer),
}

impl<'a> Work<'a> {
    /// Begins a change. The organization is locked: its changes are made one after the other.
    ///
    /// # Errors
    /// As any query; [`super::error::Kind::NotFound`] where the organization was deleted meanwhile.
    pub(crate) async fn begin(deps: &Deps, scope: &'a Scope) -> Result<Self> {
        let tx = deps.store.begin().await?;
        Self::adopt(tx, deps.now(), scope, None).await
    }

    /// Begins a creation that is done once for each key.
    ///
    /// # Errors
    /// As [`Work::begin`], and [`super::error::Kind::IdempotencyMismatch`].
    pub(crate) async fn begin_once(
        deps: &Deps,
        scope: &'a Scope,
        once: Option<OnceKey>,
    ) -> Result<Begun<'a>> {
        let mut tx = deps.store.begin().await?;
        let now = deps.now();
        if let Some(key) = &once
            && let Some(answer) = once::claim(&mut tx, &scope.caller, key, now).await?
        {
            return Ok(Begun::Done(answer));
        }
        Self::adopt(tx, now, scope, once).await.map(Begun::Work)
    }

    /// Goes on in a transaction that was begun already.
    ///
    /// # Errors
    /// As [`Work::begin`].
    pub(crate) async fn adopt(
        mut tx: Tx,
        now: DateTime<Utc>,
        scope: &'a Scope,
        once: Option<OnceKey>,
    ) -> Result<Self> {
        let locked = tx.lock_org(scope.org.id).await?;
        let generation =
            locked.ok_or_else(|| Refusal::not_found("organization", scope.org.name.as_str()))?.next();
        Ok(Self { tx, now, scope, once, generation })
    }

    /// Adds an event to the audit log: the thing as the API shows it before and after.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn audit<T: Serialize>(
        &mut self,
        action: &'static str,
        subject: Subject<'_>,
        before: Option<&T>,
        after: Option<&T>,
    ) -> Result<()> {
        let value = |shown: Option<&T>| shown.map(serde_json::to_value).transpose();
        let before: Option<Value> = value(before).map_err(Refusal::internal)?;
        let after: Option<Value> = value(after).map_err(Refusal::internal)?;
        let event = AuditRow {
            id: AuditId::new(Uuid::now_v7()),
            org: self.scope.org.id,
            generation: self.generation,
            at: self.now,
            actor_kind: "token".to_owned(),
            actor_id: self.scope.caller.token.to_string(),
            actor_name: self.scope.caller.name.clone(),
            action: action.to_owned(),
            subject_kind: subject.kind.to_owned(),
            subject_name: subject.name.to_owned(),
            subject_id: Some(subject.id),
            difference: audit::difference(before.as_ref(), after.as_ref()),
            before,
            after,
            request_id: Some(self.scope.request_id.clone()),
        };
        self.tx.insert_audit(&event).await?;
        self.tx.changed(self.scope.org.id, Change::Audit);
        Ok(())
    }

    /// Ends the change.
    ///
    /// # Errors
    /// As any query; nothing is changed then.
    pub(crate) async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        Ok(())
    }

    /// Ends a creation, and keeps its answer for a repeated request.
    ///
    /// # Errors
    /// As any query; nothing is changed then.
    pub(crate) async fn answer(mut self, answer: Answer) -> Result<Answer> {
        if let Some(key) = &self.once {
            once::keep(&mut self.tx, &self.scope.caller, key, &answer).await?;
        }
        self.tx.commit().await?;
        Ok(answer)
    }
}
