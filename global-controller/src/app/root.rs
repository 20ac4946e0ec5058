//! How an organization's root takes the place of the last one.

use super::{
    Deps,
    caller::Scope,
    certificate,
    error::{Kind, Refusal, Result},
    once::{Answer, OnceKey},
    work::{Begun, Subject, Work},
};
use crate::{ca::rotation, store::Tx};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tombolo_model::{ClusterName, id::OrgId};
use utoipa::ToSchema;

/// A root that takes another one's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RootRotation {
    /// How far it is.
    pub(crate) phase: RotationPhase,
    /// The clusters that it waits for. One that does not come back holds it until it is removed.
    pub(crate) waits_for: Vec<String>,
    /// In phase `overlap`: when the old root goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<DateTime<Utc>>,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RotationPhase {
    /// Clusters are told to believe the new root beside the old one. It signs once all do.
    Told,
    /// The new root signs, and clusters ask for intermediates of it.
    Signing,
    /// All clusters sign with intermediates of the new root. The old one goes once no certificate under it lives.
    Overlap,
}

impl From<rotation::Phase> for RootRotation {
    fn from(phase: rotation::Phase) -> Self {
        let names = |names: Vec<ClusterName>| names.iter().map(ToString::to_string).collect();
        match phase {
            rotation::Phase::Told(all) => {
                Self { phase: RotationPhase::Told, waits_for: names(all), until: None }
            }
            rotation::Phase::Signing(all) => {
                Self { phase: RotationPhase::Signing, waits_for: names(all), until: None }
            }
            rotation::Phase::Overlap(until) => {
                Self { phase: RotationPhase::Overlap, waits_for: Vec::new(), until: Some(until) }
            }
        }
    }
}

/// What to rotate: nothing is to be chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRootRotation {}

async fn now(deps: &Deps, tx: &mut Tx, org: OrgId) -> Result<Option<RootRotation>> {
    let (roots, clusters) = tx.rotation(org).await?;
    let progress = rotation::progress(&roots, &clusters, (deps.root_overlap, deps.now()));
    Ok(progress.map(|(phase, _)| phase.into()))
}

/// How far the rotation is.
///
/// # Errors
/// [`Kind::NotFound`] where none is under way.
pub(crate) async fn get(deps: &Deps, scope: &Scope) -> Result<RootRotation> {
    let mut tx = deps.store.begin_snapshot().await?;
    let none = || Refusal::new(Kind::NotFound, "No rotation of the root is under way.");
    now(deps, &mut tx, scope.org.id).await?.ok_or_else(none)
}

/// Makes a new root, and tells all clusters to believe it beside the one that signs.
///
/// # Errors
/// [`Kind::Conflict`] while a rotation is under way.
pub(crate) async fn begin(deps: &Deps, scope: &Scope, once: Option<OnceKey>) -> Result<Answer> {
    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let org = &scope.org;
    if now(deps, &mut work.tx, org.id).await?.is_some() {
        return Err(Refusal::new(Kind::Conflict, "A rotation of the root is under way.").field(
            "org",
            "has two roots",
            "wait for its end: GET …/root-rotation says whom it waits for",
        ));
    }
    let generation = work.generation()?;
    deps.ca
        .create_root(&mut work.tx, org.id, &org.trust_domain, (generation, work.now))
        .await
        .map_err(Refusal::internal)?;
    let shown = now(deps, &mut work.tx, org.id).await?;
    let shown = shown.ok_or_else(|| Refusal::internal("a root was made and is not there"))?;
    let roots = work.tx.list_roots(org.id).await?;
    let root = roots.last().map(certificate::root).transpose()?;
    let subject = Subject { kind: "organization", name: org.name.as_str(), id: org.id.as_uuid() };
    work.audit("root.create", subject, None, root.as_ref()).await?;
    work.answer(Answer::new(format!("/organizations/{}/root-rotation", org.name), None, &shown)?).await
}
