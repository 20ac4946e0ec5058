//! What a Kubernetes cluster's agent is to install there: asked for, changed, taken out. The agent does it, and says how
//! it goes in the cluster's status.

mod check;
mod may;
mod request;

pub(super) use check::{check_networks, check_registry, check_version};
pub(crate) use request::InstallRequest;

use super::{
    Deps,
    caller::Scope,
    cluster,
    error::{Checks, Kind, Refusal, Result},
    version::Expected,
    work::{Subject, Work},
};
use crate::store::install::InstallRow;
use serde::Serialize;
use tombolo_model::install::{InstallOrder, InstallSpec};
use utoipa::ToSchema;

/// What is installed in a cluster, or is to be.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Install {
    /// The cluster's name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// Rises with each order; also the ETag.
    pub(crate) revision: u64,
    /// What is asked for.
    #[serde(flatten)]
    pub(crate) spec: InstallRequest,
    /// What stood before this order; absent where nothing did. To go back, ask for it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<InstallRequest>,
}

impl Install {
    fn show(cluster: &str, row: &InstallRow) -> Option<Self> {
        let InstallOrder::Installed(spec) = &row.order else { return None };
        Some(Self {
            cluster: cluster.to_owned(),
            revision: spec.revision,
            spec: InstallRequest::show(spec),
            before: row.before.as_ref().map(InstallRequest::show),
        })
    }
}

fn version(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

impl Install {
    /// For the ETag.
    pub(crate) fn version(&self) -> i64 {
        version(self.revision)
    }
}

fn missing(cluster: &str) -> Refusal {
    Refusal::new(Kind::NotFound, format!("Nothing is installed in the cluster {cluster:?}."))
}

/// Whether the caller may order it, where this is in force.
///
/// # Errors
/// [`Kind::Forbidden`].
pub(super) fn may_order(
    deps: &Deps,
    scope: &Scope,
    spec: &InstallSpec,
    in_force: Option<&InstallRow>,
) -> Result<()> {
    let before = match in_force.map(|row| &row.order) {
        Some(InstallOrder::Installed(before)) => Some(before),
        _ => None,
    };
    may::may_order(scope.caller.role, &deps.image_registry, spec, before)
}

/// What is installed in a cluster, or is to be.
///
/// # Errors
/// [`Kind::NotFound`] for the cluster, or where nothing is installed.
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<Install> {
    let mut tx = deps.store.begin().await?;
    let cluster = cluster::find(&mut tx, scope, name, deps.now()).await?;
    let row = tx.install(scope.org.id, cluster.id).await?;
    row.and_then(|row| Install::show(name, &row)).ok_or_else(|| missing(name))
}

/// Asks for an installation, or for a change of it.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`], [`Kind::Forbidden`], fields that cannot be taken.
pub(crate) async fn put(
    deps: &Deps,
    scope: &Scope,
    name: &str,
    request: InstallRequest,
    expected: &Expected,
) -> Result<Install> {
    let mut checks = Checks::default();
    let spec = request.check(deps, &mut checks);
    checks.done()?;
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let cluster = cluster::find_standing(&mut work.tx, scope, name, now).await?;
    let old = work.tx.install(scope.org.id, cluster.id).await?;
    expected.check(old.as_ref().map_or(0, |old| version(old.order.revision())))?;
    may_order(deps, scope, &spec, old.as_ref())?;
    let revision = old.as_ref().map_or(0, |old| old.order.revision()) + 1;
    let spec = InstallSpec { revision, ..spec };
    let shown = old.as_ref().and_then(|old| Install::show(name, old));
    let before = old.and_then(|old| match old.order {
        InstallOrder::Installed(before) => Some(before),
        InstallOrder::Removed { .. } => old.before,
    });
    // what is asked for again is not its own predecessor
    let before = before.filter(|before| InstallRequest::show(before) != InstallRequest::show(&spec));
    let row = InstallRow { order: InstallOrder::Installed(spec), before };
    work.tx.set_install(scope.org.id, cluster.id, &row).await?;
    let after = Install::show(name, &row).ok_or_else(|| missing(name))?;
    let subject = Subject { kind: "cluster", name, id: cluster.id.as_uuid() };
    work.audit("cluster.install", subject, shown.as_ref(), Some(&after)).await?;
    work.commit().await?;
    Ok(after)
}

/// Asks for everything that was installed to be taken out. Again is no error. Where nobody ever ordered anything, it is
/// asked for all the same: an agent that has joined makes objects of the cluster set, too.
///
/// # Errors
/// [`Kind::NotFound`] for the cluster; [`Kind::PreconditionFailed`].
pub(crate) async fn remove(deps: &Deps, scope: &Scope, name: &str, expected: &Expected) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let cluster = cluster::find_standing(&mut work.tx, scope, name, now).await?;
    let old = work.tx.install(scope.org.id, cluster.id).await?;
    let (revision, before) = match &old {
        Some(InstallRow { order: InstallOrder::Removed { .. }, .. }) => return Ok(()),
        Some(InstallRow { order: InstallOrder::Installed(spec), .. }) => (spec.revision, Some(spec.clone())),
        None => (0, None),
    };
    expected.check(version(revision))?;
    let shown = old.as_ref().and_then(|old| Install::show(name, old));
    let order = InstallOrder::Removed { revision: revision + 1 };
    work.tx.set_install(scope.org.id, cluster.id, &InstallRow { order, before }).await?;
    let subject = Subject { kind: "cluster", name, id: cluster.id.as_uuid() };
    work.audit("cluster.uninstall", subject, shown.as_ref(), None).await?;
    work.commit().await
}
