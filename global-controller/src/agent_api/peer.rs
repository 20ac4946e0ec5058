//! Which cluster's agent asks.

use super::{Agent, door::Sender};
use crate::{
    app::error::{Kind, Refusal},
    publish::OrgState,
    store::{Tx, intermediate::Standing},
    tls::Client,
};
use axum::{extract::FromRequestParts, http::request::Parts};
use chrono::{DateTime, Utc};
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
        now.stands(&self.peer) == Some(self.cluster)
    }

    /// Asks the database whether it still stands: this replica may be behind.
    ///
    /// # Errors
    /// [`Kind::ClusterRevoked`].
    pub(super) async fn check(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<Standing, Refusal> {
        let found = tx.standing(self.org.id, self.cluster, &self.peer.intermediate, now).await?;
        found.ok_or_else(|| self.revoked())
    }

    /// What somebody is told who stands no more.
    pub(super) fn revoked(&self) -> Refusal {
        revoked(&self.peer)
    }
}

fn revoked(peer: &Peer) -> Refusal {
    Refusal::new(
        Kind::ClusterRevoked,
        format!(
            "Cluster {} is not in good standing any more; to take it in again, make a new onboarding token and join.",
            peer.id.cluster
        ),
    )
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
        let revoked = || revoked(&peer);
        let org = agent.deps.view.state_of(&peer.id.trust_domain).ok_or_else(revoked)?;
        let cluster = org.stands(&peer).ok_or_else(revoked)?;
        agent.door.ask(cluster, parts.extensions.get().copied(), agent.deps.clock.now())?;
        parts.extensions.insert(Sender::Agent(org.id, cluster));
        Ok(Self { peer, org, cluster })
    }
}
