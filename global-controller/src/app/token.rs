//! API tokens of an organization. The token itself is shown once, when it is made.

use super::{
    Deps,
    caller::{Caller, Role, Scope, Secret},
    error::{Checks, Refusal, Result},
    once::{Answer, OnceKey},
    page::{List, Page},
    work::{Begun, Subject, Work},
};
use crate::store::token::TokenRow;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tombolo_model::{AccountName, id::TokenId};
use tombolo_runtime::duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// An API token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ApiToken {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its name, one among the organization's tokens that stand.
    #[schema(example = "ci")]
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// The name of the token that made it.
    pub(crate) created_by: String,
    /// When it ends; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// When it was used last, to the minute; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

/// A new API token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiToken {
    /// Its name.
    #[schema(example = "ci")]
    pub(crate) name: String,
    /// What it may do: `viewer`, `editor` or `admin`.
    pub(crate) role: Role,
    /// How long it is good for, 1m to 87600h; for good where it is left out.
    #[serde(default)]
    #[schema(example = "720h")]
    pub(crate) expires_in: Option<String>,
}

/// An API token just made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CreatedApiToken {
    /// The token.
    #[serde(flatten)]
    pub(crate) about: ApiToken,
    /// The secret. It is not shown again.
    #[schema(example = "tmb_Zm9vYmFy")]
    pub(crate) token: String,
}

/// Whose token a request carries.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Whoami {
    /// The token's id.
    pub(crate) id: Uuid,
    /// The token's name.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) role: Role,
    /// The organization it is of; absent for the installation's owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) organization: Option<String>,
    /// When it ends; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<DateTime<Utc>>,
}

impl ApiToken {
    pub(super) fn show(row: &TokenRow) -> Self {
        Self {
            id: row.id.as_uuid(),
            name: row.name.clone(),
            role: row.role,
            created_at: row.created_at,
            created_by: row.created_by.clone(),
            expires_at: row.expires_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// Reads a lifetime within bounds.
pub(crate) fn lifetime(
    checks: &mut Checks,
    field: &str,
    text: &str,
    bounds: (Duration, Duration),
    in_words: &str,
) -> Option<TimeDelta> {
    let remedy = format!("give a duration from {in_words}");
    match duration::parse(text) {
        Ok(found) if (bounds.0..=bounds.1).contains(&found) => TimeDelta::from_std(found).ok(),
        Ok(_) => {
            checks.wrong(field, "is out of bounds", remedy);
            None
        }
        Err(error) => {
            checks.wrong(field, error.to_string(), remedy);
            None
        }
    }
}

/// How long a token may be good for.
pub(super) const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(87_600 * 3600));

/// Makes a token.
///
/// # Errors
/// Fields that cannot be taken; a name that is taken.
pub(crate) async fn create(
    deps: &Deps,
    scope: &Scope,
    new: NewApiToken,
    once: Option<OnceKey>,
) -> Result<Answer> {
    let mut checks = Checks::default();
    let name = checks.name("name", &new.name, AccountName::parse, "ci");
    if new.role == Role::Owner {
        checks.wrong("role", "is owner, which is of the installation", "use viewer, editor or admin");
    }
    let life =
        new.expires_in.and_then(|text| lifetime(&mut checks, "expires_in", &text, BOUNDS, "1m to 87600h"));
    checks.done()?;
    let Some(name) = name else {
        return Err(Refusal::internal("a name passed its check and is not there"));
    };

    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let secret = Secret::generate(Secret::API);
    let row = TokenRow {
        id: TokenId::new(Uuid::now_v7()),
        org: Some(scope.org.id),
        name: name.into(),
        role: new.role,
        created_at: work.now,
        created_by: scope.caller.name.clone(),
        expires_at: life.map(|life| work.now + life),
        revoked_at: None,
        last_used_at: None,
    };
    work.tx.insert_api_token(&row, &secret.hash()).await.map_err(|error| {
        if error.is_duplicate("api_tokens_name_key") {
            Refusal::already_exists("token", "name", &row.name)
        } else {
            error.into()
        }
    })?;
    let shown = ApiToken::show(&row);
    let subject = Subject { kind: "token", name: &row.name, id: shown.id };
    work.audit("token.create", subject, None, Some(&shown)).await?;
    let location = format!("/organizations/{}/tokens/{}", scope.org.name, row.name);
    let created = CreatedApiToken { about: shown.clone(), token: secret.reveal().to_owned() };
    work.answer(Answer::new(location, None, &created)?).await
}

/// The tokens that stand.
///
/// # Errors
/// As any query.
pub(crate) async fn list(deps: &Deps, scope: &Scope, page: &Page) -> Result<List<ApiToken>> {
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_api_tokens(Some(scope.org.id), page.after(), page.fetch()).await?;
    Ok(page.list(rows.iter().map(ApiToken::show).collect(), |token| token.name.clone()))
}

/// One token.
///
/// # Errors
/// [`super::error::Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<ApiToken> {
    let mut tx = deps.store.begin().await?;
    let row = tx.api_token(Some(scope.org.id), name).await?;
    row.as_ref().map(ApiToken::show).ok_or_else(|| Refusal::not_found("token", name))
}

/// Revokes a token: from now on it opens nothing.
///
/// # Errors
/// [`super::error::Kind::NotFound`].
pub(crate) async fn revoke(deps: &Deps, scope: &Scope, name: &str) -> Result<()> {
    let mut work = Work::begin(deps, scope).await?;
    let row = work.tx.api_token(Some(scope.org.id), name).await?;
    let row = row.ok_or_else(|| Refusal::not_found("token", name))?;
    work.tx.revoke_api_token(Some(scope.org.id), row.id, work.now).await?;
    let subject = Subject { kind: "token", name: &row.name, id: row.id.as_uuid() };
    work.audit("token.revoke", subject, Some(&ApiToken::show(&row)), None).await?;
    work.commit().await
}

/// Whose token this is.
///
/// # Errors
/// As any query.
pub(crate) async fn whoami(deps: &Deps, caller: &Caller) -> Result<Whoami> {
    let organization = match caller.org {
        Some(id) => deps.store.begin().await?.organization_by_id(id).await?.map(|org| org.name.to_string()),
        None => None,
    };
    Ok(Whoami {
        id: caller.token.as_uuid(),
        name: caller.name.clone(),
        role: caller.role,
        organization,
        expires_at: caller.expires_at,
    })
}
