//! One-time tokens with which a cluster joins. The token is shown once, in the command to paste.

use super::{
    Deps,
    caller::{Role, Scope, Secret},
    cluster,
    error::{Checks, Kind, Refusal, Result},
    manifest,
    once::{Answer, OnceKey},
    page::{List, Page},
    token::lifetime,
    work::{Begun, Subject, Work},
};
use crate::store::onboarding::OnboardingRow;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tombolo_model::id::OnboardingTokenId;
use utoipa::ToSchema;
use uuid::Uuid;

/// A one-time token, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct OnboardingToken {
    /// Its id.
    pub(crate) id: Uuid,
    /// The cluster that may join with it.
    pub(crate) cluster: String,
    /// Whether it can be used.
    pub(crate) state: OnboardingState,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// The name of the API token that made it.
    pub(crate) created_by: String,
    /// When it ends.
    pub(crate) expires_at: DateTime<Utc>,
    /// When the cluster joined with it; absent where it was not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_at: Option<DateTime<Utc>>,
}

/// Whether a one-time token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnboardingState {
    /// It can, once.
    Open,
    /// It was.
    Used,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
}

/// A new one-time token.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOnboardingToken {
    /// How long it can be used, 1m to 24h; 15m where it is left out.
    #[serde(default)]
    #[schema(example = "15m")]
    pub(crate) expires_in: Option<String>,
}

/// A one-time token just made, and how to use it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct CreatedOnboardingToken {
    /// The token.
    #[serde(flatten)]
    pub(crate) about: OnboardingToken,
    /// The secret. It is not shown again.
    #[schema(example = "tmj_Zm9vYmFy")]
    pub(crate) token: String,
    /// Where the agent finds the controller.
    #[schema(example = "https://controller.example.com:8443")]
    pub(crate) controller: String,
    /// The SHA-256 of the CA that signs the controller's certificate: the agent believes no other.
    #[schema(example = "sha256:5d41402abc4b2a76b9719d911017c592")]
    pub(crate) ca_fingerprint: String,
    /// The command to run on the machine that joins. It reads the token on standard input, so that the token is in no
    /// list of processes and no shell history.
    pub(crate) join_command: String,
    /// Where the manifest of the cluster's agent is, for Kubernetes. Anybody may read it; no secret is in it.
    #[schema(
        example = "https://controller.example.com:8443/install/agent.yaml?organization=acme&cluster=cluster-1"
    )]
    pub(crate) manifest_url: String,
    /// For Kubernetes: what puts the manifest there.
    pub(crate) manifest_command: String,
    /// For Kubernetes: what puts the token there. It reads the token on standard input, too.
    pub(crate) secret_command: String,
}

/// What puts a token into a cluster, whether or not one is there.
const SECRET_COMMAND: &str = "kubectl -n tombolo-system create secret generic tombolo-join \
    --from-file=token=/dev/stdin --dry-run=client -o yaml | kubectl apply -f -";

/// How long a token can be used where the request does not say.
const DEFAULT: TimeDelta = TimeDelta::minutes(15);
const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// The most tokens of a cluster that can be used at a time.
const MOST_OPEN: i64 = 20;

impl OnboardingToken {
    fn show(row: &OnboardingRow, cluster: &str, now: DateTime<Utc>) -> Self {
        let state = match (row.used_at, row.revoked_at) {
            (Some(_), _) => OnboardingState::Used,
            (None, Some(_)) => OnboardingState::Revoked,
            (None, None) if row.expires_at <= now => OnboardingState::Expired,
            (None, None) => OnboardingState::Open,
        };
        Self {
            id: row.id.as_uuid(),
            cluster: cluster.to_owned(),
            state,
            created_at: row.created_at,
            created_by: row.created_by.clone(),
            expires_at: row.expires_at,
            used_at: row.used_at,
        }
    }
}

/// Makes a token for a cluster.
///
/// # Errors
/// [`Kind::NotFound`] and [`Kind::Conflict`] by the cluster; fields that cannot be taken; too many open ones.
pub(crate) async fn create(
    deps: &Deps,
    scope: &Scope,
    cluster_name: &str,
    new: NewOnboardingToken,
    once: Option<OnceKey>,
) -> Result<Answer> {
    let mut checks = Checks::default();
    let life = match new.expires_in {
        Some(text) => lifetime(&mut checks, "expires_in", &text, BOUNDS, "1m to 24h"),
        None => Some(DEFAULT),
    };
    checks.done()?;

    let mut work = match Work::begin_once(deps, scope, once).await? {
        Begun::Work(work) => work,
        Begun::Done(answer) => return Ok(answer),
    };
    let (org, now) = (scope.org.id, work.now);
    let cluster = cluster::find_standing(&mut work.tx, scope, cluster_name, now).await?;
    // Who joins in the name of a cluster that has joined takes its place, and all its names.
    if cluster.joined_at.is_some() && scope.caller.role < Role::Admin {
        let detail = format!(
            "The cluster {cluster_name:?} has joined, and whoever joins with a new token takes its place: that needs the role {}; the token has {}.",
            Role::Admin,
            scope.caller.role
        );
        let remedy = "let an admin of the organization make the token";
        return Err(Refusal::new(Kind::Forbidden, detail).field("cluster", "has joined", remedy));
    }
    if work.tx.count_open_onboarding_tokens(org, cluster.id, now).await? >= MOST_OPEN {
        return Err(Refusal::new(
            Kind::Conflict,
            format!("The cluster {cluster_name:?} has {MOST_OPEN} open tokens, as many as it may have."),
        )
        .field("cluster", "has too many open onboarding tokens", "use one of them, or revoke some"));
    }
    let secret = Secret::generate(Secret::ONBOARDING);
    let row = OnboardingRow {
        id: OnboardingTokenId::new(Uuid::now_v7()),
        cluster: cluster.id,
        created_at: now,
        created_by: scope.caller.name.clone(),
        expires_at: now + life.unwrap_or(DEFAULT),
        used_at: None,
        revoked_at: None,
    };
    work.tx.insert_onboarding_token(org, &row, &secret.hash()).await?;
    let shown = OnboardingToken::show(&row, cluster_name, now);
    let subject = Subject { kind: "onboarding_token", name: cluster_name, id: shown.id };
    work.audit("onboarding_token.create", subject, None, Some(&shown)).await?;
    let join_command = format!(
        "tombolo-agent join --controller {} --ca-fingerprint {} --cluster {} --data ./{} --token-file -",
        deps.public_url, deps.ca_fingerprint, cluster.name, cluster.name
    );
    let location =
        format!("/organizations/{}/clusters/{}/onboarding-tokens/{}", scope.org.name, cluster.name, shown.id);
    let created = CreatedOnboardingToken {
        about: shown,
        token: secret.reveal().to_owned(),
        controller: deps.public_url.clone(),
        ca_fingerprint: deps.ca_fingerprint.clone(),
        join_command,
        manifest_url: manifest::url(deps, &scope.org.name, &cluster.name),
        manifest_command: format!("tombolo cluster manifest {} | kubectl apply -f -", cluster.name),
        secret_command: SECRET_COMMAND.to_owned(),
    };
    work.answer(Answer::new(location, None, &created)?).await
}

/// A cluster's tokens, the newest first.
///
/// # Errors
/// [`Kind::NotFound`] by the cluster.
pub(crate) async fn list(
    deps: &Deps,
    scope: &Scope,
    cluster_name: &str,
    page: &Page,
) -> Result<List<OnboardingToken>> {
    let before = page.after_id::<OnboardingTokenId>()?;
    let now = deps.now();
    let mut tx = deps.store.begin().await?;
    let cluster = cluster::find(&mut tx, scope, cluster_name, now).await?;
    let rows = tx.list_onboarding_tokens(scope.org.id, cluster.id, before, page.fetch()).await?;
    let shown = rows.iter().map(|row| OnboardingToken::show(row, cluster_name, now)).collect();
    Ok(page.list(shown, |token: &OnboardingToken| token.id.to_string()))
}

/// Revokes a token that was not used yet. Again, or after its time, is no error.
///
/// # Errors
/// [`Kind::NotFound`]; [`Kind::Conflict`] for one that was used: remove the cluster instead.
pub(crate) async fn revoke(deps: &Deps, scope: &Scope, cluster_name: &str, id: &str) -> Result<()> {
    let missing = || Refusal::not_found("onboarding token", id);
    let id: OnboardingTokenId = id.parse().map_err(|_| missing())?;
    let mut work = Work::begin(deps, scope).await?;
    let now = work.now;
    let cluster = cluster::find(&mut work.tx, scope, cluster_name, now).await?;
    let row = work.tx.onboarding_token(scope.org.id, cluster.id, id).await?.ok_or_else(missing)?;
    if row.used_at.is_some() {
        return Err(Refusal::new(Kind::Conflict, "The token was used: a cluster joined with it.").field(
            "id",
            "was used",
            "to shut the cluster out, remove the cluster",
        ));
    }
    if row.revoked_at.is_some() {
        return Ok(());
    }
    work.tx.revoke_onboarding_token(scope.org.id, id, now).await?;
    let subject = Subject { kind: "onboarding_token", name: cluster_name, id: id.as_uuid() };
    let before = OnboardingToken::show(&row, cluster_name, now);
    work.audit("onboarding_token.revoke", subject, Some(&before), None).await?;
    work.commit().await
}
