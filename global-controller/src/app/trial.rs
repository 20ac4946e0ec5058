//! What a cluster's agent would do for an order, before it is given. Nothing in force changes: a trial stands beside the
//! order, and ends when the agent answered, or with its time.

use super::{
    Deps,
    caller::Scope,
    cluster,
    error::{Checks, Result},
    install::{InstallRequest, may_order},
    once::{Answer, OnceKey},
    work::{Begun, Subject, Work},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tombolo_model::install::TrialStatus;
use utoipa::ToSchema;

/// How long an answer is waited for.
const LIFE: TimeDelta = TimeDelta::minutes(2);

/// An order that a cluster is asked to try.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Trial {
    /// The cluster's name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// Which it is; the cluster's status answers to it.
    pub(crate) number: u64,
    /// When it ends, if its agent does not answer before.
    pub(crate) ends_at: DateTime<Utc>,
    /// What would be asked for, with what was left out.
    #[serde(flatten)]
    pub(crate) spec: InstallRequest,
}

/// What an agent would write for the order that it tried last.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Tried {
    /// Which trial this answers.
    pub(crate) number: u64,
    /// What would be written, a line each; empty where all of it is there.
    pub(crate) plan: Vec<String>,
    /// How the Corefile would change, a line each, with `+` or `-` before it.
    pub(crate) corefile: Vec<String>,
    /// What can't be done, and what to do about it.
    pub(crate) problems: Vec<String>,
}

impl Tried {
    pub(super) fn show(status: TrialStatus) -> Self {
        let TrialStatus { number, plan, corefile, problems } = status;
        Self { number, plan, corefile, problems }
    }
}

/// Asks a cluster to try an order.
///
/// # Errors
/// [`super::error::Kind::NotFound`], [`super::error::Kind::Forbidden`], fields that cannot be taken.
pub(crate) async fn create(
    deps: &Deps,
    scope: &Scope,
    name: &str,
    request: InstallRequest,
    once: Option<OnceKey>,
) -> Result<Answer> {
    let mut checks = Checks::default();
    let spec = request.check(deps, &mut checks);
    checks.done()?;
    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let (org, now) = (scope.org.id, work.now);
    let cluster = cluster::find_standing(&mut work.tx, scope, name, now).await?;
    let in_force = work.tx.install(org, cluster.id).await?;
    may_order(deps, scope, &spec, in_force.as_ref())?;
    let ends_at = now + LIFE;
    let number = work.tx.set_trial(org, cluster.id, &spec, ends_at).await?;
    let shown = Trial { cluster: name.to_owned(), number, ends_at, spec: InstallRequest::show(&spec) };
    let subject = Subject { kind: "cluster", name, id: cluster.id.as_uuid() };
    work.audit("cluster.install_trial", subject, None, Some(&shown)).await?;
    let location = format!("/organizations/{}/clusters/{}/status", scope.org.name, cluster.name);
    work.answer(Answer::new(location, None, &shown)?).await
}
