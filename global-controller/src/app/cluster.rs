//! Clusters: made by people, joined by their agents, removed by people.

use super::{
    Deps,
    caller::Scope,
    error::{Checks, Kind, Refusal, Result},
    labels,
    once::{Answer, OnceKey},
    page::{List, Page},
    reach::{self, GatewayAddress},
    version::Expected,
    work::{Begun, Subject, Work},
};
use crate::store::{
    Change, Tx,
    cluster::{ClusterEdit, ClusterRow, ClusterState},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tombolo_model::{ClusterName, Locality, id::ClusterId, intent::Labels};
use utoipa::ToSchema;
use uuid::Uuid;

/// A cluster, or a group of machines that joined as one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Cluster {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its name, one in the organization.
    #[schema(example = "cluster-1")]
    pub(crate) name: String,
    /// Labels, for the rules of global namespaces.
    pub(crate) labels: Labels,
    /// Where it runs.
    pub(crate) locality: Place,
    /// How it stands.
    pub(crate) state: State,
    /// `host:port` of its ingress gateways, as its agent reported them.
    pub(crate) ingress: BTreeSet<String>,
    /// The same, each with how it stands: advertised, published by peers that got through, or failing.
    pub(crate) addresses: Vec<GatewayAddress>,
    /// Rises with each edit; also the ETag.
    pub(crate) version: i64,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// When it was edited last.
    pub(crate) updated_at: DateTime<Utc>,
    /// When an agent joined as this cluster; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) joined_at: Option<DateTime<Utc>>,
    /// When it was removed; absent where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

/// Where something runs, as `topology.kubernetes.io/region` and `…/zone` have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "eu-central-1")]
    pub(crate) region: Option<String>,
    /// The zone inside the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "eu-central-1a")]
    pub(crate) zone: Option<String>,
}

/// How a cluster stands: `pending` until an agent joined, `revoked` once it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Pending,
    Connected,
    Disconnected,
    Revoked,
}

impl From<ClusterState> for State {
    fn from(state: ClusterState) -> Self {
        match state {
            ClusterState::Pending => Self::Pending,
            ClusterState::Connected => Self::Connected,
            ClusterState::Disconnected => Self::Disconnected,
            ClusterState::Revoked => Self::Revoked,
        }
    }
}

/// A new cluster.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCluster {
    /// Its name: one DNS label. It stands in names and identities, and stays.
    #[schema(example = "cluster-1")]
    pub(crate) name: String,
    /// Labels, for the rules of global namespaces.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Where it runs.
    #[serde(default)]
    pub(crate) locality: Place,
}

/// What to change of a cluster; what is left out stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterPatch {
    /// All of its labels.
    #[serde(default)]
    pub(crate) labels: Option<Labels>,
    /// Where it runs.
    #[serde(default)]
    pub(crate) locality: Option<Place>,
}

impl Cluster {
    pub(crate) fn show(row: &ClusterRow) -> Self {
        Self {
            id: row.id.as_uuid(),
            name: row.name.to_string(),
            labels: row.labels.clone(),
            locality: Place { region: row.locality.region.clone(), zone: row.locality.zone.clone() },
            state: row.state.into(),
            ingress: row.ingress.clone(),
            addresses: reach::addresses(&row.ingress, &row.reached),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            joined_at: row.joined_at,
            revoked_at: row.revoked_at,
        }
    }
}

fn check_place(checks: &mut Checks, place: &Place) -> Locality {
    for (field, text) in [("locality.region", &place.region), ("locality.zone", &place.zone)] {
        let good = |t: &String| {
            (1..=63).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if text.as_ref().is_some_and(|t| !good(t)) {
            checks.wrong(
                field,
                "is not a region's or zone's name",
                "use letters, digits, '-', '_', '.', 63 at most",
            );
        }
    }
    if place.zone.is_some() && place.region.is_none() {
        checks.wrong("locality.zone", "is in no region", "give locality.region too");
    }
    Locality { region: place.region.clone(), zone: place.zone.clone() }
}

/// The cluster with this name.
///
/// # Errors
/// [`Kind::NotFound`].
pub(crate) async fn find(tx: &mut Tx, scope: &Scope, name: &str, now: DateTime<Utc>) -> Result<ClusterRow> {
    let missing = || Refusal::not_found("cluster", name);
    let parsed = ClusterName::parse(name).ok().filter(|n| n.as_str() == name).ok_or_else(missing)?;
    tx.cluster(scope.org.id, &parsed, now).await?.ok_or_else(missing)
}

/// The same, where it was not removed.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::Conflict`].
pub(crate) async fn find_standing(
    tx: &mut Tx,
    scope: &Scope,
    name: &str,
    now: DateTime<Utc>,
) -> Result<ClusterRow> {
    let row = find(tx, scope, name, now).await?;
    if row.revoked_at.is_some() {
        return Err(Refusal::new(Kind::Conflict, format!("The cluster {name:?} was removed.")).field(
            "cluster",
            "was removed",
            "make it again under this name, or another one",
        ));
    }
    Ok(row)
}

/// Makes a cluster. A removed one of this name comes back, and has to join again.
///
/// # Errors
/// Fields that cannot be taken; a name that is taken.
pub(crate) async fn create(
    deps: &Deps,
    scope: &Scope,
    new: NewCluster,
    once: Option<OnceKey>,
) -> Result<Answer> {
    let mut checks = Checks::default();
    let name = checks.name("name", &new.name, ClusterName::parse, "cluster-1");
    labels::check(&mut checks, "labels", &new.labels);
    let locality = check_place(&mut checks, &new.locality);
    checks.done()?;
    let Some(name) = name else {
        return Err(Refusal::internal("a name passed its check and is not there"));
    };

    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let (org, now) = (scope.org.id, work.now);
    let edit = ClusterEdit { labels: &new.labels, locality: &locality };
    let made = work.tx.insert_cluster(org, ClusterId::new(Uuid::now_v7()), &name, &edit, now).await?;
    let id = made.ok_or_else(|| Refusal::already_exists("cluster", "name", name.as_str()))?;
    work.tx.forget_reports(org, id).await?;
    work.tx.changed(org, Change::Cluster(id));
    work.tx.changed(org, Change::Inventory(id));
    let shown = Cluster::show(&find(&mut work.tx, scope, name.as_str(), now).await?);
    let subject = Subject { kind: "cluster", name: name.as_str(), id: id.as_uuid() };
    work.audit("cluster.create", subject, None, Some(&shown)).await?;
    let location = format!("/organizations/{}/clusters/{name}", scope.org.name);
    work.answer(Answer::new(location, Some(shown.version), &shown)?).await
}

/// Clusters by name; removed ones too where `revoked` says so.
///
/// # Errors
/// As any query.
pub(crate) async fn list(deps: &Deps, scope: &Scope, revoked: bool, page: &Page) -> Result<List<Cluster>> {
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_clusters(scope.org.id, revoked, page.after(), page.fetch(), deps.now()).await?;
    Ok(page.list(rows.iter().map(Cluster::show).collect(), |cluster| cluster.name.clone()))
}

/// One cluster.
///
/// # Errors
/// [`Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<Cluster> {
    let mut tx = deps.store.begin().await?;
    Ok(Cluster::show(&find(&mut tx, scope, name, deps.now()).await?))
}

/// Changes labels or place.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`], fields that cannot be taken.
pub(crate) async fn patch(
    deps: &Deps,
    scope: &Scope,
    name: &str,
    patch: ClusterPatch,
    expected: &Expected,
) -> Result<Cluster> {
    let mut checks = Checks::default();
    patch.labels.iter().for_each(|l| labels::check(&mut checks, "labels", l));
    let locality = patch.locality.as_ref().map(|place| check_place(&mut checks, place));
    checks.done()?;

    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let row = find_standing(&mut work.tx, scope, name, now).await?;
    expected.check(row.version)?;
    let before = Cluster::show(&row);
    let labels = patch.labels.unwrap_or(row.labels);
    let locality = locality.unwrap_or(row.locality);
    let edit = ClusterEdit { labels: &labels, locality: &locality };
    work.tx.update_cluster(scope.org.id, row.id, &edit, now).await?;
    work.tx.changed(scope.org.id, Change::Cluster(row.id));
    let after = Cluster::show(&find(&mut work.tx, scope, name, now).await?);
    let subject = Subject { kind: "cluster", name, id: row.id.as_uuid() };
    work.audit("cluster.update", subject, Some(&before), Some(&after)).await?;
    work.commit().await?;
    Ok(after)
}

/// Removes a cluster: its intermediates leave the trust bundle, so that its certificates are worth nothing to its
/// peers from the next snapshot on, and its open onboarding tokens are void.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::PreconditionFailed`].
pub(crate) async fn remove(deps: &Deps, scope: &Scope, name: &str, expected: &Expected) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let row = find(&mut work.tx, scope, name, now).await?;
    if row.revoked_at.is_some() {
        return Ok(());
    }
    expected.check(row.version)?;
    work.tx.revoke_cluster(scope.org.id, row.id, now).await?;
    let after = Cluster::show(&find(&mut work.tx, scope, name, now).await?);
    let subject = Subject { kind: "cluster", name, id: row.id.as_uuid() };
    work.audit("cluster.revoke", subject, Some(&Cluster::show(&row)), Some(&after)).await?;
    work.commit().await
}
