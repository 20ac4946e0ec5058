//! An agent asks for a new intermediate before the old one ends.

use super::{Agent, body::Body, join, peer::AgentPeer};
use crate::{
    app::error::{Kind, Refusal},
    ca,
    store::intermediate::Keep,
};
use axum::{Json, extract::State};
use tombolo_wire::message::{IntermediateRequest, IntermediateResponse};

/// `POST /agent/v1/certificate`
pub(super) async fn certificate(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(request, _room): Body<IntermediateRequest>,
) -> Result<Json<IntermediateResponse>, Refusal> {
    let (org, cluster, name) = (&peer.org, peer.cluster, &peer.peer.id.cluster);
    let now = agent.deps.now();
    let mut tx = agent.deps.store.begin().await?;
    let generation = tx.lock_org(org.id).await?.ok_or_else(|| peer.revoked())?;
    // revoked meanwhile, by a transaction that this replica has not seen yet
    let newest = peer.check(&mut tx, now).await?.newest;
    let issued = agent
        .deps
        .ca
        .sign_intermediate(
            &mut tx,
            (org.id, &org.trust_domain),
            (cluster, name),
            &request.csr,
            (Keep::Overlap, now),
        )
        .await
        .map_err(refusal)?;
    // the answer to its last request may have been lost; or somebody else has its old key
    let (action, asked_with) = match newest {
        true => ("cluster.certificate", None),
        false => ("cluster.certificate_by_older", Some(peer.peer.intermediate.clone())),
    };
    let event = join::Event { action, generation: generation.next(), now, asked_with };
    join::record(&mut tx, org.id, (cluster, &peer.peer.id), &event, &issued).await?;
    tx.commit().await?;
    tracing::info!(org.id = %org.id, cluster.name = %name, serial = issued.serial, newest, "renewed an intermediate");
    Ok(Json(IntermediateResponse { intermediate: issued.certificate }))
}

/// What the asker may know of a failure to sign.
pub(super) fn refusal(error: ca::Error) -> Refusal {
    match error {
        ca::Error::Request { source } => {
            Refusal::new(Kind::InvalidCsr, "The signing request cannot be taken.").field(
                "csr",
                source.to_string(),
                "send a PKCS #10 request in PEM, ECDSA P-256, for the cluster's own identity or none",
            )
        }
        ca::Error::RevokedKey => Refusal::new(
            Kind::InvalidCsr,
            "The signing request is for a key that was revoked.",
        )
        .field("csr", "is for a key that was revoked", "make a new key, and send a request for it"),
        ca::Error::Store { source } => source.into(),
        other => Refusal::internal(other),
    }
}
