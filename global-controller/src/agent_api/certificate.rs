//! An agent asks for a new intermediate before the old one ends.

use super::{Agent, body::Body, join, peer::AgentPeer};
use crate::{
    app::error::{Kind, Refusal},
    ca,
};
use axum::{Json, extract::State};
use tombolo_wire::message::{IntermediateRequest, IntermediateResponse};

/// `POST /agent/v1/certificate`
pub(super) async fn certificate(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(request): Body<IntermediateRequest>,
) -> Result<Json<IntermediateResponse>, Refusal> {
    let (org, cluster, name) = (&peer.org, peer.cluster, &peer.peer.id.cluster);
    let now = agent.deps.now();
    let mut tx = agent.deps.store.begin().await?;
    let generation = tx.lock_org(org.id).await?;
    // revoked meanwhile, by a transaction that this replica has not seen yet
    let standing = tx.ingress(org.id, cluster).await?.is_some();
    let (Some(generation), true) = (generation, standing) else {
        return Err(Refusal::new(Kind::ClusterRevoked, "The cluster is not in good standing any more."));
    };
    let issued = agent
        .deps
        .ca
        .sign_intermediate(&mut tx, (org.id, &org.trust_domain), (cluster, name), &request.csr, now)
        .await
        .map_err(refusal)?;
    let event = join::Event { action: "cluster.certificate", generation: generation.next(), now };
    join::record(&mut tx, org.id, (cluster, &peer.peer.id), &event, &issued).await?;
    tx.commit().await?;
    tracing::info!(org.id = %org.id, cluster.name = %name, serial = issued.serial, "renewed an intermediate");
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
        ca::Error::Store { source } => source.into(),
        other => Refusal::internal(other),
    }
}
