//! The installation owner's tokens: made and revoked by the owner, so that one that leaked can be replaced.

use super::{
    Deps,
    caller::{Caller, Role, Secret},
    error::{Checks, Kind, Refusal, Result},
    once::{Answer, OnceKey},
    page::{List, Page},
    token::{ApiToken, BOUNDS, CreatedApiToken, lifetime},
    work::{Begun, Subject, Work},
};
use crate::store::token::TokenRow;
use serde::Deserialize;
use tombolo_model::{AccountName, id::TokenId};
use utoipa::ToSchema;
use uuid::Uuid;

/// A new owner's token.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOwnerToken {
    /// Its name, one among the owner's tokens that stand.
    #[schema(example = "spare")]
    pub(crate) name: String,
    /// How long it is good for, 1m to 87600h; for good where it is left out.
    #[serde(default)]
    #[schema(example = "720h")]
    pub(crate) expires_in: Option<String>,
}

/// The tokens that stand.
///
/// # Errors
/// [`Kind::Forbidden`] for others than the owner.
pub(crate) async fn list(deps: &Deps, caller: &Caller, page: &Page) -> Result<List<ApiToken>> {
    caller.must_be_owner()?;
    let mut tx = deps.store.begin().await?;
    let rows = tx.list_api_tokens(None, page.after(), page.fetch()).await?;
    Ok(page.list(rows.iter().map(ApiToken::show).collect(), |token| token.name.clone()))
}

/// Makes a token.
///
/// # Errors
/// [`Kind::Forbidden`]; fields that cannot be taken; a name that is taken.
pub(crate) async fn create(
    deps: &Deps,
    caller: &Caller,
    new: NewOwnerToken,
    once: Option<OnceKey>,
    request_id: &str,
) -> Result<Answer> {
    caller.must_be_owner()?;
    let mut checks = Checks::default();
    let name = checks.name("name", &new.name, AccountName::parse, "spare");
    let life =
        new.expires_in.and_then(|text| lifetime(&mut checks, "expires_in", &text, BOUNDS, "1m to 87600h"));
    checks.done()?;
    let Some(name) = name else {
        return Err(Refusal::internal("a name passed its check and is not there"));
    };

    let mut work = match Work::begin_installation(deps, caller, request_id, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let secret = Secret::generate(Secret::API);
    let row = TokenRow {
        id: TokenId::new(Uuid::now_v7()),
        org: None,
        name: name.into(),
        role: Role::Owner,
        created_at: work.now,
        created_by: caller.name.clone(),
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
    let subject = Subject { kind: "owner_token", name: &row.name, id: shown.id };
    work.audit("owner_token.create", subject, None, Some(&shown)).await?;
    let location = format!("/owner-tokens/{}", row.name);
    let created = CreatedApiToken { about: shown.clone(), token: secret.reveal().to_owned() };
    work.answer(Answer::new(location, None, &created)?).await
}

/// Revokes a token. The last one for good stays: without it nobody could make an organization any more.
///
/// # Errors
/// [`Kind::Forbidden`], [`Kind::NotFound`], [`Kind::Conflict`] for the last one.
pub(crate) async fn revoke(deps: &Deps, caller: &Caller, name: &str, request_id: &str) -> Result<()> {
    caller.must_be_owner()?;
    let Begun::Work(mut work) = Work::begin_installation(deps, caller, request_id, None).await? else {
        return Err(Refusal::internal("a request without a key was answered from its key"));
    };
    let lasting = work.tx.lock_owner_tokens().await?;
    let row = work.tx.api_token(None, name).await?.ok_or_else(|| Refusal::not_found("token", name))?;
    if row.expires_at.is_none() && lasting < 2 {
        return Err(Refusal::new(Kind::Conflict, "It is the last owner's token that does not end.").field(
            "token",
            "is the last of its kind",
            "make another one without expires_in first",
        ));
    }
    work.tx.revoke_api_token(None, row.id, work.now).await?;
    let subject = Subject { kind: "owner_token", name: &row.name, id: row.id.as_uuid() };
    work.audit("owner_token.revoke", subject, Some(&ApiToken::show(&row)), None).await?;
    work.commit().await
}
