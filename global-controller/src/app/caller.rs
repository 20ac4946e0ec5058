//! Who asks: API tokens, roles, and the organization that a request is about.

use super::{
    Deps,
    error::{Kind, Refusal, Result},
};
use crate::store::organization::OrganizationRow;
pub(crate) use crate::store::token::Role;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use std::fmt;
use tombolo_model::{
    OrgName,
    id::{OrgId, TokenId},
};

/// A secret that is shown once and kept as its hash.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// What an API token begins with.
    pub(crate) const API: &'static str = "tmb_";
    /// What an onboarding token begins with.
    pub(crate) const ONBOARDING: &'static str = "tmj_";

    /// A new one of 256 random bits.
    pub(crate) fn generate(prefix: &'static str) -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads one that somebody presents; none where the form is not ours.
    pub(crate) fn read(prefix: &'static str, text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(prefix)?).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// What the database keeps. The secret has 256 random bits, so a plain hash is enough: there is nothing to guess.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// A key made from the secret, for what only its holder may read again.
    pub(crate) fn key(&self, purpose: &str) -> [u8; 32] {
        Sha256::new().chain_update(purpose).chain_update([0]).chain_update(&self.0).finalize().into()
    }

    /// The secret itself, to show it once.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: TokenId,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) org: Option<OrgId>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// Seals answers that are kept for a repeated request.
    pub(crate) seal: [u8; 32],
}

/// How stale `last_used_at` of a token may be: it is not worth a write for each request.
const LAST_USED_GRAIN: TimeDelta = TimeDelta::minutes(1);

impl Caller {
    /// Finds out who presents this token; none is one whose form is not ours.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], [`Kind::TokenExpired`], [`Kind::TokenRevoked`]; the last two only to whoever holds the token.
    pub(crate) async fn authenticate(deps: &Deps, secret: Option<&Secret>) -> Result<Self> {
        let unknown = || {
            Refusal::new(Kind::Unauthenticated, "The token in Authorization is not one of this installation.")
                .field("Authorization", "holds an unknown token", "sign in again: tombolo login")
        };
        let secret = secret.ok_or_else(unknown)?;
        let now = deps.now();
        let mut tx = deps.store.begin().await?;
        let row = tx.api_token_by_hash(&secret.hash()).await?.ok_or_else(unknown)?;
        if row.revoked_at.is_some() {
            return Err(Refusal::new(Kind::TokenRevoked, "The token was revoked.").field(
                "Authorization",
                "holds a revoked token",
                "ask an admin of the organization for a new one",
            ));
        }
        if row.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::new(Kind::TokenExpired, "The token has expired.").field(
                "Authorization",
                "holds an expired token",
                "ask an admin of the organization for a new one",
            ));
        }
        if row.last_used_at.is_none_or(|last| now - last >= LAST_USED_GRAIN) {
            tx.touch_api_token(row.id, now).await?;
            tx.commit().await?;
        }
        Ok(Self {
            token: row.id,
            name: row.name,
            role: row.role,
            org: row.org,
            expires_at: row.expires_at,
            seal: secret.key("tombolo kept answer"),
        })
    }

    /// Ok for the installation's owner.
    ///
    /// # Errors
    /// [`Kind::Forbidden`].
    pub(crate) fn must_be_owner(&self) -> Result<()> {
        if self.role == Role::Owner {
            return Ok(());
        }
        Err(Refusal::new(Kind::Forbidden, "Only the installation's owner may do this.").field(
            "Authorization",
            format!("holds a token with the role {}", self.role),
            "use the owner's token, which the controller made at its first start",
        ))
    }
}

/// A request about an organization, from someone who may make it.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) caller: Caller,
    pub(crate) org: OrganizationRow,
    /// The id of the HTTP request, for the audit log.
    pub(crate) request_id: String,
}

/// Who may make a request about an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Tokens of the organization with this role or a higher one.
    Tenant(Role),
    /// The same, and the installation's owner.
    TenantOrOwner(Role),
}

impl Scope {
    /// The organization with this name, where the caller may do such a thing in it. To a token of another
    /// organization it does not exist.
    ///
    /// # Errors
    /// [`Kind::NotFound`] or [`Kind::Forbidden`].
    pub(crate) async fn enter(
        deps: &Deps,
        caller: Caller,
        org: &str,
        access: Access,
        request_id: String,
    ) -> Result<Self> {
        let missing = || Refusal::not_found("organization", org);
        let name = OrgName::parse(org).ok().filter(|name| name.as_str() == org).ok_or_else(missing)?;
        let mut tx = deps.store.begin().await?;
        let org = tx.organization_by_name(&name).await?;
        let (Access::Tenant(role) | Access::TenantOrOwner(role)) = access;
        match caller.org {
            Some(own) => {
                let org = org.filter(|org| org.id == own).ok_or_else(missing)?;
                if caller.role < role {
                    return Err(Refusal::new(
                        Kind::Forbidden,
                        format!("This needs the role {role}; the token has {}.", caller.role),
                    )
                    .field(
                        "Authorization",
                        format!("holds a token with the role {}", caller.role),
                        format!("use a token with the role {role}"),
                    ));
                }
                Ok(Self { caller, org, request_id })
            }
            None if matches!(access, Access::TenantOrOwner(_)) => {
                Ok(Self { caller, org: org.ok_or_else(missing)?, request_id })
            }
            None => Err(Refusal::new(
                Kind::Forbidden,
                "The owner's token manages organizations and their tokens, and sees no tenant's data.",
            )
            .field(
                "Authorization",
                "holds the owner's token",
                "use a token of the organization: tombolo token create",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_back_and_never_printed() {
        let secret = Secret::generate(Secret::API);
        assert_eq!(Secret::read(Secret::API, secret.reveal()), Some(secret.clone()));
        assert_eq!(Secret::read(Secret::ONBOARDING, secret.reveal()), None);
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        assert_ne!(secret.hash(), secret.key("x"));
    }

    #[test]
    fn other_texts_are_no_secrets() {
        for text in ["", "tmb_", "tmb_AAAA", "tmb_!!!!", "TMB_AAAA", "Bearer"] {
            assert_eq!(Secret::read(Secret::API, text), None, "{text}");
        }
    }

    #[test]
    fn a_role_includes_the_ones_below() {
        assert!(Role::Admin > Role::Editor && Role::Editor > Role::Viewer);
        assert_eq!(Role::parse("editor"), Some(Role::Editor));
        assert_eq!(Role::parse("root"), None);
    }
}
