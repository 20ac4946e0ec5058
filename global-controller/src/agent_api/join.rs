//! An agent joins with a one-time token.

use super::{Agent, body::Body, certificate, door::Sender, version};
use crate::{
    app::{
        audit,
        caller::Secret,
        error::{Kind, Refusal},
    },
    ca::{self, Issued},
    store::{Change, Tx, audit::AuditRow, intermediate::Keep, join::JoinTokenRow},
};
use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
};
use chrono::{DateTime, Utc};
use serde_json::json;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tombolo_model::{
    ClusterName, Generation, SpiffeId,
    id::{AuditId, ClusterId, OrgId},
    snapshot::CaFingerprint,
};
use tombolo_mtls::request_fingerprint;
use tombolo_runtime::places::Source;
use tombolo_wire::message::{JoinRequest, JoinResponse};
use uuid::Uuid;

/// How long the answer waits for this replica to know the cluster, so that the agent's next request finds it.
const KNOWN: Duration = Duration::from_secs(5);

/// Somebody with what looks like a token, who did not try too often. Found out before the body is read.
pub(super) struct Knock([u8; 32]);

impl FromRequestParts<Agent> for Knock {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, agent: &Agent) -> Result<Self, Refusal> {
        let from = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip());
        let knocked = limit(agent, from).and_then(|()| token_hash(&parts.headers)).map(Self);
        if knocked.is_err() {
            count(agent, "refused");
        }
        let source = Source::of(from.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
        parts.extensions.insert(Sender::Stranger(source));
        knocked
    }
}

fn count(agent: &Agent, outcome: &'static str) {
    agent.metrics.joins.get_or_create(&[("outcome", outcome)]).inc();
}

/// `POST /agent/v1/join`
pub(super) async fn join(
    State(agent): State<Agent>,
    Knock(hash): Knock,
    Body(request, _room): Body<JoinRequest>,
) -> Result<Json<JoinResponse>, Refusal> {
    let joined = take_in(&agent, &hash, request).await;
    count(&agent, if joined.is_ok() { "joined" } else { "refused" });
    joined
}

/// One address has so many tries.
fn limit(agent: &Agent, from: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(from) = from else { return Ok(()) };
    let verdict = agent.joins.take(&Source::of(from), agent.deps.clock.now());
    if verdict.allowed {
        return Ok(());
    }
    let detail = format!("Too many tries to join from {from}; wait, and check the onboarding token.");
    Err(Refusal::new(Kind::RateLimited, detail).retry_after(verdict.retry_after_s))
}

async fn take_in(
    agent: &Agent,
    hash: &[u8; 32],
    request: JoinRequest,
) -> Result<Json<JoinResponse>, Refusal> {
    version::meets(request.hello.protocol)?;
    let now = agent.deps.now();
    let mut tx = agent.deps.store.begin().await?;
    // the token says which organization; under its lock the token is read again, as nobody else can use it now
    let first = tx.join_token(hash).await?.ok_or_else(unknown)?;
    let Some(generation) = tx.lock_org(first.org).await? else { return Err(unknown()) };
    let token = tx.join_token(hash).await?.ok_or_else(unknown)?;
    let id = SpiffeId::cluster(&token.trust_domain, &token.cluster_name);
    let known = known(&mut tx, (&token, &id), &request, now).await?;
    if known.is_none() {
        check(&token, &request.cluster, now)?;
        if !tx.use_join_token(token.org, token.id, now).await? {
            return Err(used(now));
        }
        tx.joined(token.org, token.cluster, (&request.locality, &request.nodes), now).await?;
    }
    let issued = agent
        .deps
        .ca
        .sign_intermediate(
            &mut tx,
            (token.org, &token.trust_domain),
            (token.cluster, &token.cluster_name),
            &request.csr,
            // whatever was believed before is not any more: joining anew is what follows a theft; asked a second time, that is done
            (if known.is_none() { Keep::This } else { Keep::Overlap }, now),
        )
        .await
        .map_err(certificate::refusal)?;
    let action = match (&known, token.joined_at) {
        (Some(_), _) => "cluster.join_repeated",
        (None, Some(_)) => "cluster.rejoin",
        (None, None) => "cluster.join",
    };
    let event = Event { action, generation: generation.next(), now, asked_with: known };
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

/// The key that the cluster joined with by this token, where the same is asked again: the answer was lost on its way. Who asks has shown that
/// it holds the key, so it gets nothing that it did not get before.
async fn known(
    tx: &mut Tx,
    (token, id): (&JoinTokenRow, &SpiffeId),
    request: &JoinRequest,
    now: DateTime<Utc>,
) -> Result<Option<CaFingerprint>, Refusal> {
    // the last time that the cluster joined was by this token
    let is_last = token.used_at.is_some() && token.used_at == token.joined_at;
    if !is_last || token.expires_at <= now || token.cluster_name != request.cluster {
        return Ok(None);
    }
    let fingerprint = request_fingerprint(&request.csr, id)
        .map_err(|source| certificate::refusal(ca::Error::Request { source }))?;
    let standing = tx.standing(token.org, token.cluster, &fingerprint, now).await?;
    Ok(standing.filter(|standing| standing.newest).map(|_| fingerprint))
}

fn token_hash(headers: &HeaderMap) -> Result<[u8; 32], Refusal> {
    let text = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("Bearer "))
        .map(str::trim)
        .filter(|token| token.starts_with(Secret::ONBOARDING))
        .ok_or_else(|| {
            Refusal::new(
                Kind::OnboardingTokenUnknown,
                "Joining needs an onboarding token, which begins with tmj_. Make one for the cluster with \
                 `tombolo cluster token`, and give it on stdin or in a file.",
            )
        })?;
    Secret::read(Secret::ONBOARDING, text).map(|token| token.hash()).ok_or_else(unknown)
}

const REMEDY: &str = "Make a new one for the cluster with `tombolo cluster token`.";

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
            "The onboarding token was used at {}; each is good for one join, by one key. If it was not you, revoke the cluster. {REMEDY}",
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
    /// The intermediate that the asker used, where it has a newer one.
    pub(super) asked_with: Option<CaFingerprint>,
}

/// Writes it to the audit log, with the certificate that came of it.
pub(super) async fn record(
    tx: &mut Tx,
    org: OrgId,
    (cluster, id): (ClusterId, &SpiffeId),
    event: &Event,
    issued: &Issued,
) -> Result<(), Refusal> {
    let mut after =
        json!({ "intermediate": { "serial": issued.serial, "not_after": time(issued.not_after) } });
    if let Some(older) = &event.asked_with {
        after["asked_with"] = json!({ "fingerprint": older.to_string() });
    }
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
