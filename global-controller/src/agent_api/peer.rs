//! Which cluster's agent asks.

use super::Agent;
use crate::{
    app::error::{Kind, Refusal},
    publish::OrgState,
    tls::Client,
};
use axum::{extract::FromRequestParts, http::request::Parts};
use std::sync::Arc;
use tombolo_model::{SpiffePath, id::ClusterId};
use tombolo_mtls::Peer;

/// The agent of a cluster in good standing, as its client certificate says and the trust bundle of this moment confirms.
#[derive(Clone, Debug)]
pub(super) struct AgentPeer {
    /// Its identity, and the intermediate that vouches for it.
    pub(super) peer: Arc<Peer>,
    /// Its organization.
    pub(super) org: Arc<OrgState>,
    /// Its cluster.
    pub(super) cluster: ClusterId,
}

impl AgentPeer {
    /// Asks again whether it still stands, in a newer state of its organization.
    pub(super) fn stands(&self, now: &OrgState) -> bool {
        now.bundle.stands(&self.peer) && now.clusters.get(&self.peer.id.cluster) == Some(&self.cluster)
    }
}

impl FromRequestParts<Agent> for AgentPeer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, agent: &Agent) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<Client>().and_then(|client| client.0.clone());
        let peer = peer.filter(|peer| peer.id.path == SpiffePath::Agent).ok_or_else(|| {
            Refusal::new(
                Kind::ClientCertificateRequired,
                "This is for agents: show the client certificate of the cluster's agent, which joining gives.",
            )
        })?;
        let revoked = || {
            Refusal::new(
                Kind::ClusterRevoked,
                format!(
                    "Cluster {} is not in good standing any more; to take it in again, make a new onboarding token and join.",
                    peer.id.cluster
                ),
            )
        };
        let org = agent.deps.view.state_of(&peer.id.trust_domain).ok_or_else(revoked)?;
        let cluster = *org.clusters.get(&peer.id.cluster).ok_or_else(revoked)?;
        if !org.bundle.stands(&peer) {
            return Err(revoked());
        }
        Ok(Self { peer, org, cluster })
    }
}
