//! One certificate, from a new key to a chain: the key is made here and never leaves.

use super::paths::Paths;
use thiserror::Error;
use tombolo_feed::{RequestError, Requests};
use tombolo_model::{SpiffeId, snapshot::CaFingerprint};
use tombolo_mtls::{Credentials, PrivateKey, certificate_info};
use tombolo_wire::message::{LeafRequest, LeafResponse};

/// Why a certificate was not got. What was in use stays in use.
#[derive(Debug, Error)]
pub(super) enum IssueError {
    /// The agent did not give one.
    #[error("the agent gives no certificate")]
    Agent(#[from] RequestError),
    /// The key could not be made, or what the agent gave does not fit it.
    #[error("the certificate can't be used")]
    Certificate(#[from] tombolo_mtls::Error),
}

/// Asks the agent for a certificate and puts it into use. Says which intermediate vouches for it.
///
/// # Errors
/// [`IssueError`].
pub(super) async fn issue(
    requests: Requests,
    paths: Paths,
    credentials: Credentials,
) -> Result<Option<CaFingerprint>, IssueError> {
    let identity: SpiffeId = credentials.id().clone();
    let key = PrivateKey::generate()?;
    let request = LeafRequest { csr: key.csr(&identity)?, identity };
    let answer: LeafResponse = requests.post(&paths.certificate, &request).await?;
    credentials.set(&answer.chain, key)?;
    Ok(intermediate(&answer.chain))
}

/// The fingerprint of the second certificate of a chain.
fn intermediate(chain: &str) -> Option<CaFingerprint> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let (second, _) = chain.match_indices(BEGIN).nth(1)?;
    certificate_info(&chain[second..]).ok().map(|info| info.fingerprint)
}
