//! An agent says how its cluster is.

use super::{Agent, body::Body, gateway_address, peer::AgentPeer};
use crate::app::error::Refusal;
use axum::{extract::State, http::StatusCode};
use tombolo_wire::message::AgentStatus;

/// How many problems and gateways may be reported; more are left out.
const MOST: usize = 1000;
/// The same of the steps of an installation.
const MOST_STEPS: usize = 32;

/// `POST /agent/v1/status`
pub(super) async fn status(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(mut status, _room): Body<AgentStatus>,
) -> Result<StatusCode, Refusal> {
    let (ingress, left_out) = gateway_address::sort(status.ingress, agent.allow_loopback);
    status.ingress = ingress;
    status.problems.splice(0..0, left_out);
    status.problems.truncate(MOST);
    status.gateways.truncate(MOST);
    if let Some(install) = &mut status.install {
        install.steps.truncate(MOST_STEPS);
    }
    if let Some(trial) = &mut status.trial {
        trial.plan.truncate(MOST);
        trial.corefile.truncate(MOST);
        trial.problems.truncate(MOST);
    }
    let (org, cluster) = (peer.org.id, peer.cluster);
    let now = agent.deps.now();
    let mut tx = agent.deps.store.begin().await?;
    let stored = tx.ingress(org, cluster).await?.ok_or_else(|| peer.revoked())?;
    if status.ingress_unknown {
        status.ingress = gateway_address::beside(&stored, status.ingress);
    }
    // the addresses are compiled into what peers are told; the rest is only looked at
    if stored != status.ingress {
        tx.lock_org(org).await?;
        tx.set_ingress(org, cluster, &status.ingress).await?;
    }
    // it is told no more: it was answered
    if let Some(answered) = &status.trial
        && tx.trial(org, cluster).await?.is_some_and(|trial| trial.number == answered.number)
    {
        tx.lock_org(org).await?;
        tx.end_trial(org, cluster).await?;
    }
    peer.check(&mut tx, now).await?;
    // one that says every ten seconds that nothing happened is no reason to write
    if !agent.liveness.is_fed(org, cluster) || !tx.says_the_same(org, cluster, &status).await? {
        tx.set_status(org, cluster, &status, now).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
