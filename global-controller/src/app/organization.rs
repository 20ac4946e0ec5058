//! Organizations: the tenants. Only the installation's owner makes them.

use super::{
    Deps,
    caller::{Caller, Scope},
    error::{Checks, Kind, Refusal, Result},
    once::{Answer, OnceKey},
    page::{List, Page},
    work::{Begun, Subject, Work},
};
use crate::store::organization::OrganizationRow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tombolo_model::{Generation, OrgName, TrustDomain, id::OrgId};
use utoipa::ToSchema;
use uuid::Uuid;

/// An organization.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Organization {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its name, one in the installation.
    #[schema(example = "acme")]
    pub(crate) name: String,
    /// The authority of its workloads' identities, one in the installation.
    #[schema(example = "acme.tombolo.internal")]
    pub(crate) trust_domain: String,
    /// Rises with every change in it.
    pub(crate) generation: u64,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
}

/// A new organization.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOrganization {
    /// Its name: one DNS label.
    #[schema(example = "acme")]
    pub(crate) name: String,
    /// The authority of its workloads' identities; `<name>.tombolo.internal` where it is left out. It stays for life.
    #[serde(default)]
    pub(crate) trust_domain: Option<String>,
}

impl Organization {
    pub(crate) fn show(row: &OrganizationRow) -> Self {
        Self {
            id: row.id.as_uuid(),
            name: row.name.to_string(),
            trust_domain: row.trust_domain.to_string(),
            generation: row.generation.get(),
            created_at: row.created_at,
        }
    }
}

/// The organizations that the caller may see: all for the owner, its own for others.
///
/// # Errors
/// As any query.
pub(crate) async fn list(deps: &Deps, caller: &Caller, page: &Page) -> Result<List<Organization>> {
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_organizations(caller.org, page.after(), page.fetch()).await?;
    Ok(page.list(rows.iter().map(Organization::show).collect(), |org| org.name.clone()))
}

/// Makes an organization with a root of trust of its own.
///
/// # Errors
/// Fields that cannot be taken; a name or a trust domain that is taken.
pub(crate) async fn create(
    deps: &Deps,
    caller: Caller,
    new: NewOrganization,
    once: Option<OnceKey>,
    request_id: String,
) -> Result<Answer> {
    caller.must_be_owner()?;
    let mut checks = Checks::default();
    let name = checks.name("name", &new.name, OrgName::parse, "acme");
    let domain = new.trust_domain.unwrap_or_else(|| format!("{}.tombolo.internal", new.name));
    let domain = name
        .as_ref()
        .and_then(|_| checks.name("trust_domain", &domain, TrustDomain::parse, "acme.tombolo.internal"));
    checks.done()?;
    let (Some(name), Some(trust_domain)) = (name, domain) else {
        return Err(Refusal::internal("a name passed its check and is not there"));
    };

    let mut work = match Work::begin_installation(deps, &caller, &request_id, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let org = OrganizationRow {
        id: OrgId::new(Uuid::now_v7()),
        name,
        trust_domain,
        generation: Generation::new(1),
        created_at: work.now,
    };
    work.tx.insert_organization(&org).await.map_err(|error| {
        let (name, domain) = (org.name.as_str(), org.trust_domain.as_str());
        if error.is_duplicate("organizations_name_key") {
            Refusal::already_exists("organization", "name", name)
        } else if error.is_duplicate("organizations_trust_domain_key") {
            Refusal::already_exists("organization with the trust domain", "trust_domain", domain)
        } else {
            error.into()
        }
    })?;
    deps.ca
        .create_root(&mut work.tx, org.id, &org.trust_domain, (org.generation.next(), work.now))
        .await
        .map_err(Refusal::internal)?;
    work.turn_to(org.id, org.generation);
    let mut shown = Organization::show(&org);
    shown.generation = org.generation.next().get();
    let subject = Subject { kind: "organization", name: &shown.name, id: shown.id };
    work.audit("organization.create", subject, None, Some(&shown)).await?;
    work.answer(Answer::new(format!("/organizations/{}", shown.name), None, &shown)?).await
}

/// Deletes an organization with everything in it, its audit log too. It must have no cluster that stands: whoever
/// deletes it has seen them go.
///
/// # Errors
/// [`Kind::Conflict`] where it has clusters.
pub(crate) async fn delete(deps: &Deps, scope: &Scope) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let standing = work.tx.list_clusters(scope.org.id, false, None, 1, work.now).await?;
    if let Some(cluster) = standing.first() {
        let detail = format!("The organization has clusters, {} for one.", cluster.name);
        return Err(Refusal::new(Kind::Conflict, detail).field(
            "org",
            "has clusters",
            "remove its clusters first",
        ));
    }
    work.tx.delete_organization(scope.org.id).await?;
    work.turn_to_installation();
    let shown = Organization::show(&scope.org);
    let subject = Subject { kind: "organization", name: &shown.name, id: shown.id };
    work.audit("organization.delete", subject, Some(&shown), None).await?;
    work.commit().await
}
