//! An agent joins with a one-time token.

use super::{Agent, body::Body, certificate, version};
use crate::{
    app::{
        audit,
        error::{Kind, Refusal},
    },
    ca::Issued,
    store::{Change, Tx, audit::AuditRow, join::JoinTokenRow},
};
use axum::{
    Extension, Json,
    extract::{ConnectInfo, State},
    http::{HeaderMap, header},
};
use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tombolo_model::{
    ClusterName, Generation, SpiffeId,
    id::{AuditId, ClusterId, OrgId},
};
use tombolo_wire::message::{JoinRequest, JoinResponse};
use uuid::Uuid;

/// How long the answer waits for this replica to know the cluster, so that the agent's next request finds it.
const KNOWN: Duration = Duration::from_secs(5);

/// `POST /agent/v1/join`
pub(super) async fn join(
    State(agent): State<Agent>,
    address: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Body(request): Body<JoinRequest>,
) -> Result<Json<JoinResponse>, Refusal> {
    let from = address.map(|Extension(ConnectInfo(address))| address.ip());
    let joined = match limit(&agent, from) {
        Ok(()) => take_in(&agent, &headers, request).await,
        Err(refusal) => Err(refusal),
    };
    let outcome = if joined.is_ok() { "joined" } else { "refused" };
    agent.metrics.joins.get_or_create(&[("outcome", outcome)]).inc();
    joined
}

/// One address has so many tries.
fn limit(agent: &Agent, from: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(from) = from else { return Ok(()) };
    let verdict = agent.joins.take(&from, agent.deps.clock.now());
    if verdict.allowed {
        return Ok(());
    }
    let mut refusal = Refusal::new(
        Kind::RateLimited,
        format!("Too many tries to join from {from}; wait, and check the onboarding token."),
    );
    refusal.retry_after_s = Some(verdict.retry_after_s);
    Err(refusal)
}

async fn take_in(
    agent: &Agent,
    headers: &HeaderMap,
    request: JoinRequest,
) -> Result<Json<JoinResponse>, Refusal> {
    version::meets(request.hello.protocol)?;
    let hash = token_hash(headers)?;
    let now = agent.deps.now();
    let mut tx = agent.deps.store.begin().await?;
    // the token says which organization; under its lock the token is read again, as nobody else can use it now
    let first = tx.join_token(&hash).await?.ok_or_else(unknown)?;
    let Some(generation) = tx.lock_org(first.org).await? else { return Err(unknown()) };
    let token = tx.join_token(&hash).await?.ok_or_else(unknown)?;
    check(&token, &request.cluster, now)?;
    if !tx.use_join_token(token.org, token.id, now).await? {
        return Err(used(now));
    }
    tx.joined(token.org, token.cluster, &request.locality, now).await?;
    let issued = agent
        .deps
        .ca
        .sign_intermediate(
            &mut tx,
            (token.org, &token.trust_domain),
            (token.cluster, &token.cluster_name),
            &request.csr,
            now,
        )
        .await
        .map_err(certificate::refusal)?;
    let id = SpiffeId::cluster(&token.trust_domain, &token.cluster_name);
    let action = if token.joined_at.is_some() { "cluster.rejoin" } else { "cluster.join" };
    let event = Event { action, generation: generation.next(), now };
    record(&mut tx, token.org, (token.cluster, &id), &event, &issued).await?;
    let bundle = tx.trust_bundle(token.org, &token.trust_domain).await?;
    let taken = tx.commit().await?;
    tracing::info!(
        org.id = %token.org,
        cluster.name = %token.cluster_name,
        agent = request.hello.software,
        serial = issued.serial,
        "a cluster joined"
    );
    if let Some(generation) = taken.get(&token.org) {
        agent.deps.view.wait_for(token.org, *generation, KNOWN).await;
    }
    Ok(Json(JoinResponse {
        hello: version::hello(),
        organization: token.org_name,
        trust_domain: token.trust_domain,
        cluster: token.cluster_name,
        intermediate: issued.certificate,
        bundle,
    }))
}

fn token_hash(headers: &HeaderMap) -> Result<[u8; 32], Refusal> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|token| token.starts_with("tmj_"))
        .ok_or_else(|| {
            Refusal::new(
                Kind::OnboardingTokenUnknown,
                "Joining needs an onboarding token, which begins with tmj_. Make one for the cluster, in the console or with \
                 `tombolo cluster token`, and give it on stdin or in a file.",
            )
        })?;
    Ok(Sha256::digest(token.as_bytes()).into())
}

const REMEDY: &str = "Make a new one for the cluster, in the console or with `tombolo cluster token`.";

fn unknown() -> Refusal {
    Refusal::new(
        Kind::OnboardingTokenUnknown,
        format!("There is no such onboarding token; perhaps it was not copied whole. {REMEDY}"),
    )
}

fn used(at: DateTime<Utc>) -> Refusal {
    Refusal::new(
        Kind::OnboardingTokenUsed,
        format!(
            "The onboarding token was used at {}; each is good for one join. If it was not you, revoke the cluster. {REMEDY}",
            time(at)
        ),
    )
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Whether the token lets this cluster in at this time.
fn check(token: &JoinTokenRow, cluster: &ClusterName, now: DateTime<Utc>) -> Result<(), Refusal> {
    if let Some(at) = token.used_at {
        return Err(used(at));
    }
    if let Some(at) = token.revoked_at {
        let detail = format!("The onboarding token was revoked at {}. {REMEDY}", time(at));
        return Err(Refusal::new(Kind::OnboardingTokenRevoked, detail));
    }
    if token.expires_at <= now {
        let detail = format!("The onboarding token ended at {}. {REMEDY}", time(token.expires_at));
        return Err(Refusal::new(Kind::OnboardingTokenExpired, detail));
    }
    if token.cluster_name != *cluster {
        // which one it is for is not said: whoever found a token learns nothing by trying
        let detail = format!(
            "The onboarding token is for another cluster than {cluster}; it stays good for that one."
        );
        return Err(Refusal::new(Kind::OnboardingTokenOtherCluster, detail).field(
            "cluster",
            "is not the one that the token was made for",
            "join as the cluster that the token was made for, or make a token for this one",
        ));
    }
    Ok(())
}

/// What an agent did.
pub(super) struct Event {
    /// As `cluster.join`.
    pub(super) action: &'static str,
    /// The generation that the transaction takes.
    pub(super) generation: Generation,
    /// When.
    pub(super) now: DateTime<Utc>,
}

/// Writes it to the audit log, with the certificate that came of it.
pub(super) async fn record(
    tx: &mut Tx,
    org: OrgId,
    (cluster, id): (ClusterId, &SpiffeId),
    event: &Event,
    issued: &Issued,
) -> Result<(), Refusal> {
    let after = json!({ "intermediate": { "serial": issued.serial, "not_after": time(issued.not_after) } });
    tx.insert_audit(&AuditRow {
        id: AuditId::new(Uuid::now_v7()),
        org: Some((org, event.generation)),
        at: event.now,
        actor_kind: "agent".to_owned(),
        actor_id: id.to_string(),
        actor_name: id.cluster.to_string(),
        action: event.action.to_owned(),
        subject_kind: "cluster".to_owned(),
        subject_name: id.cluster.to_string(),
        subject_id: Some(cluster.as_uuid()),
        before: None,
        difference: audit::difference(None, Some(&after)),
        after: Some(after),
        request_id: None,
    })
    .await?;
    tx.changed(org, Change::Audit);
    Ok(())
}
