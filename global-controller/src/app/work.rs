//! A use case that changes something: one transaction, with its audit events. Those of an organization are made one
//! after the other, so that its generations are in the order of their commits.

use super::{
    Deps, audit,
    caller::{Caller, Scope},
    error::{Refusal, Result},
    once::{self, Answer, OnceKey},
};
use crate::store::{Change, Tx, audit::AuditRow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tombolo_model::{
    Generation,
    id::{AuditId, OrgId},
};
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
    caller: &'a Caller,
    request_id: &'a str,
    once: Option<OnceKey>,
    /// The organization, and the generation that the commit takes; none for the installation.
    org: Option<(OrgId, Generation)>,
}

/// Whether there is something to do.
pub(crate) enum Begun<'a> {
    /// Yes.
    Work(Work<'a>),
    /// No: an earlier request with the same key did it, and this was its answer.
    Done(Answer),
}

impl<'a> Work<'a> {
    /// Begins a change in an organization.
    ///
    /// # Errors
    /// As any query; [`super::error::Kind::NotFound`] where the organization was deleted meanwhile.
    pub(crate) async fn begin(deps: &Deps, scope: &'a Scope) -> Result<Self> {
        let tx = deps.store.begin().await?;
        let work = Work {
            tx,
            now: deps.now(),
            caller: &scope.caller,
            request_id: &scope.request_id,
            once: None,
            org: None,
        };
        work.lock(scope).await
    }

    /// Begins a creation in an organization that is done once for each key.
    ///
    /// # Errors
    /// As [`Work::begin`], and [`super::error::Kind::IdempotencyMismatch`].
    pub(crate) async fn begin_once(
        deps: &Deps,
        scope: &'a Scope,
        once: Option<OnceKey>,
    ) -> Result<Begun<'a>> {
        match Self::begin_installation(deps, &scope.caller, &scope.request_id, once).await? {
            Begun::Work(work) => Ok(Begun::Work(work.lock(scope).await?)),
            done @ Begun::Done(_) => Ok(done),
        }
    }

    /// Begins a change of the installation; a creation is done once for each key.
    ///
    /// # Errors
    /// As any query, and [`super::error::Kind::IdempotencyMismatch`].
    pub(crate) async fn begin_installation(
        deps: &Deps,
        caller: &'a Caller,
        request_id: &'a str,
        once: Option<OnceKey>,
    ) -> Result<Begun<'a>> {
        let mut tx = deps.store.begin().await?;
        let now = deps.now();
        if let Some(key) = &once
            && let Some(answer) = once::claim(&mut tx, caller, key, now).await?
        {
            return Ok(Begun::Done(answer));
        }
        Ok(Begun::Work(Work { tx, now, caller, request_id, once, org: None }))
    }

    async fn lock(mut self, scope: &Scope) -> Result<Self> {
        let locked = self.tx.lock_org(scope.org.id).await?;
        let now = locked.ok_or_else(|| Refusal::not_found("organization", scope.org.name.as_str()))?;
        self.org = Some((scope.org.id, now.next()));
        Ok(self)
    }

    /// From here on it is about this organization, which the transaction made and so holds; at this generation.
    pub(crate) fn turn_to(&mut self, org: OrgId, generation: Generation) {
        self.org = Some((org, generation.next()));
    }

    /// From here on it is about the installation: the organization is no more. Its readers are told all the same.
    pub(crate) fn turn_to_installation(&mut self) {
        if let Some((org, _)) = self.org.take() {
            self.tx.changed(org, Change::Audit);
        }
    }

    /// The generation that the commit takes.
    ///
    /// # Errors
    /// [`super::error::Kind::Internal`] for work on the installation, which takes none.
    pub(crate) fn generation(&self) -> Result<Generation> {
        self.org
            .map(|(_, generation)| generation)
            .ok_or_else(|| Refusal::internal("no organization is worked on"))
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
            org: self.org,
            at: self.now,
            actor_kind: "token".to_owned(),
            actor_id: self.caller.token.to_string(),
            actor_name: self.caller.name.clone(),
            action: action.to_owned(),
            subject_kind: subject.kind.to_owned(),
            subject_name: subject.name.to_owned(),
            subject_id: Some(subject.id),
            difference: audit::difference(before.as_ref(), after.as_ref()),
            before,
            after,
            request_id: Some(self.request_id.to_owned()),
        };
        self.tx.insert_audit(&event).await?;
        if let Some((org, _)) = self.org {
            self.tx.changed(org, Change::Audit);
        }
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
            once::keep(&mut self.tx, self.caller, key, &answer).await?;
        }
        self.tx.commit().await?;
        Ok(answer)
    }
}
