//! Organizations: the tenants. Only the installation's owner makes them.

use super::{
    Deps,
    caller::{Caller, Scope},
    error::{Checks, Refusal, Result},
    once::{self, Answer, OnceKey},
    page::{List, Page},
    work::{Subject, Work},
};
use crate::store::{Change, organization::OrganizationRow};
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

    let mut tx = deps.store.begin().await?;
    let now = deps.now();
    if let Some(key) = &once
        && let Some(answer) = once::claim(&mut tx, &caller, key, now).await?
    {
        return Ok(answer);
    }
    let mut org = OrganizationRow {
        id: OrgId::new(Uuid::now_v7()),
        name,
        trust_domain,
        generation: Generation::new(1),
        created_at: now,
    };
    tx.insert_organization(&org).await.map_err(|error| {
        if error.is_duplicate("organizations_name_key") {
            Refusal::already_exists("organization", "name", org.name.as_str())
        } else if error.is_duplicate("organizations_trust_domain_key") {
            Refusal::already_exists(
                "organization with the trust domain",
                "trust_domain",
                org.trust_domain.as_str(),
            )
        } else {
            error.into()
        }
    })?;
    deps.ca.create_root(&mut tx, org.id, &org.trust_domain, now).await.map_err(Refusal::internal)?;
    tx.changed(org.id, Change::Roots);
    // the generation that the commit takes
    org.generation = org.generation.next();
    let shown = Organization::show(&org);
    let scope = Scope { caller, org, request_id };
    let mut work = Work::adopt(tx, now, &scope, once).await?;
    let subject = Subject { kind: "organization", name: &shown.name, id: shown.id };
    work.audit("organization.create", subject, None, Some(&shown)).await?;
    work.answer(Answer::new(format!("/organizations/{}", shown.name), None, &shown)?).await
}
