//! An agent says what it applied.

use super::{Agent, body::Body, peer::AgentPeer};
use axum::{extract::State, http::StatusCode};
use tombolo_wire::message::Ack;

/// The longest reason of a refusal that is kept, in characters.
const MAX_REASON: usize = 1000;

/// `POST /agent/v1/ack`
pub(super) async fn ack(
    State(agent): State<Agent>,
    peer: AgentPeer,
    Body(ack, _room): Body<Ack>,
) -> StatusCode {
    // a number that we never published cannot have been applied
    let generation = ack.generation.min(peer.org.generation);
    let refused = ack.refused.map(|(generation, reason)| {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        tracing::warn!(
            org.id = %peer.org.id,
            cluster.name = %peer.peer.id.cluster,
            snapshot.generation = %generation,
            reason,
            "an agent refused a snapshot; the one before stays in force there"
        );
        format!("generation {generation}: {reason}")
    });
    agent.liveness.applied(peer.org.id, peer.cluster, generation, refused);
    StatusCode::NO_CONTENT
}
