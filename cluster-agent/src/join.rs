//! Joining: the one-time token becomes the cluster's intermediate. The key is made here and never leaves.

use crate::{
    controller::{self, AddressError},
    private,
    state::{DataDir, Membership, StateError},
};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write, path::PathBuf};
use thiserror::Error;
use tombolo_feed::{RequestError, post_once};
use tombolo_model::{ClusterName, Locality};
use tombolo_mtls::{Intermediate, PrivateKey, Secret};
use tombolo_wire::{
    message::{JoinRequest, JoinResponse},
    version::{Hello, ProtocolVersion},
};

/// The key that a token is being used with, from before the controller is asked: were its answer lost, the token would be used up, and whoever
/// joins again would be out of trust. Asked again with the same key, the controller answers again.
const PENDING: &str = "join.pem";

/// What joining needs to know.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The controller's URL.
    pub controller: String,
    /// The fingerprint of its CA, `sha256:<hex>`.
    pub ca_fingerprint: String,
    /// The cluster to join as.
    pub cluster: ClusterName,
    /// The agent's directory.
    pub data: PathBuf,
    /// Where it runs.
    pub locality: Locality,
    /// Where its nodes stand, where it has any.
    pub nodes: Locality,
}

/// Why joining failed, and what to do.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The controller's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The token is none.
    #[error(
        "the token is empty or holds other than printable characters; give the text as it was shown once"
    )]
    Token,
    /// The directory is another cluster's.
    #[error("{} belongs to cluster {found}; give another --data, or join as {found}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterName,
    },
    /// A key or certificate.
    #[error("could not {action}")]
    Certificate {
        /// What was tried.
        action: &'static str,
        /// What is wrong.
        #[source]
        source: tombolo_mtls::Error,
    },
    /// The controller said no.
    #[error("the controller refuses: {}", explain(.0))]
    Refused(Box<tombolo_wire::problem::ProblemDetails>),
    /// The controller could not be asked.
    #[error("could not ask the controller at {url}; check the URL, the fingerprint, and that it runs")]
    Ask {
        /// Where it was looked for.
        url: String,
        /// What failed.
        #[source]
        source: RequestError,
    },
    /// Versions too far apart.
    #[error("the controller speaks protocol {theirs}, this agent {ours}; upgrade the older of the two first")]
    Version {
        /// The controller's.
        theirs: ProtocolVersion,
        /// Ours.
        ours: ProtocolVersion,
    },
    /// The answer is about another cluster.
    #[error("the controller answered for cluster {found}, not {expected}; nothing was kept")]
    Answer {
        /// Whom it named.
        found: String,
        /// Whom we asked for.
        expected: String,
    },
}

fn explain(problem: &tombolo_wire::problem::ProblemDetails) -> String {
    let mut text = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    for field in &problem.errors {
        let _ = write!(text, "; {}: {}", field.field, field.message);
        if !field.remedy.is_empty() {
            let _ = write!(text, " ({})", field.remedy);
        }
    }
    if text.is_empty() { format!("status {}", problem.status) } else { text }
}

/// Joins, and keeps the outcome. A directory that joined before as this cluster joins anew: its record is adopted.
///
/// # Errors
/// [`JoinError`]. What was kept before is as it was then; the token may be used up all the same.
pub async fn join(config: &JoinConfig, token: &str) -> Result<Membership, JoinError> {
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(JoinError::Token);
    }
    let connector = controller::connector(&config.controller, &config.ca_fingerprint, None)?;
    let data = DataDir::create(&config.data)?;
    // A damaged state is what joining again is for.
    if let Ok(Some(before)) = data.membership()
        && before.cluster != config.cluster
    {
        return Err(JoinError::OtherCluster { path: config.data.clone(), found: before.cluster });
    }
    let failed = |action| move |source| JoinError::Certificate { action, source };
    let key = match pending(&data, token)? {
        Some(key) => key,
        None => {
            let key = PrivateKey::generate().map_err(failed("make a key"))?;
            let text = Secret::new(format!("{}\n{}", mark(token), *key.to_pem()));
            data.write(PENDING, text.as_bytes())?;
            key
        }
    };
    let request = JoinRequest {
        hello: Hello::current("tombolo-agent"),
        cluster: config.cluster.clone(),
        // Before joining, the agent does not know its trust domain, so the request names nobody.
        csr: key.unnamed_csr().map_err(failed("make the signing request"))?,
        locality: config.locality.clone(),
        nodes: config.nodes.clone(),
    };
    let answer: JoinResponse = post_once(&connector, "/agent/v1/join", Some(token), &request).await.map_err(
        |error| match error {
            RequestError::Refused { problem, .. } => JoinError::Refused(problem),
            source => JoinError::Ask { url: config.controller.clone(), source },
        },
    )?;
    let (theirs, ours) = (answer.hello.protocol, ProtocolVersion::CURRENT);
    if !theirs.meets(ours) {
        return Err(JoinError::Version { theirs, ours });
    }
    let membership = Membership {
        controller: config.controller.clone(),
        ca_fingerprint: config.ca_fingerprint.clone(),
        organization: answer.organization,
        trust_domain: answer.trust_domain,
        cluster: config.cluster.clone(),
    };
    let intermediate =
        Intermediate::new(key, &answer.intermediate).map_err(failed("use the intermediate"))?;
    let expected = membership.cluster_id();
    if answer.cluster != config.cluster || *intermediate.id() != expected {
        return Err(JoinError::Answer {
            found: intermediate.id().to_string(),
            expected: expected.to_string(),
        });
    }
    data.store_joined(&membership, &intermediate)?;
    data.remove(PENDING)?;
    Ok(membership)
}

/// The key that this token was used with before, where nothing came of it that is known here.
fn pending(data: &DataDir, token: &str) -> Result<Option<PrivateKey>, StateError> {
    let path = data.file(PENDING);
    let kept = private::read_secret(&path)
        .map_err(|source| StateError::Io { action: "read", path, source })?
        .and_then(|kept| String::from_utf8(kept).ok())
        .map(Secret::new);
    let key = kept.as_ref().and_then(|kept| kept.split_once('\n')).filter(|(of, _)| *of == mark(token));
    // one that can't be used is as none
    Ok(key.and_then(|(_, pem)| PrivateKey::from_pem(pem).ok()))
}

/// Names a token without telling it.
pub(crate) fn mark(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_wire::problem::{FieldProblem, ProblemDetails};

    fn config(data: PathBuf) -> JoinConfig {
        JoinConfig {
            controller: "https://127.0.0.1:1".to_owned(),
            ca_fingerprint: format!("sha256:{}", "ab".repeat(32)),
            cluster: "c1".parse().unwrap(),
            data,
            locality: Locality::default(),
            nodes: Locality::default(),
        }
    }

    #[tokio::test]
    async fn refusals_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path().to_owned());
        for token in ["", " \n", "a b", "a\u{7f}", "ä"] {
            assert!(matches!(join(&config, token).await, Err(JoinError::Token)), "{token:?}");
        }
        let error = join(&config, "tmj_x\n").await.unwrap_err();
        assert!(
            matches!(error, JoinError::Ask { .. }) && error.to_string().contains("check the URL"),
            "{error}"
        );
        let other = Membership {
            controller: config.controller.clone(),
            ca_fingerprint: config.ca_fingerprint.clone(),
            organization: "acme".parse().unwrap(),
            trust_domain: "acme.internal".parse().unwrap(),
            cluster: "c2".parse().unwrap(),
        };
        DataDir::create(dir.path()).unwrap().write_json("state.json", &other).unwrap();
        assert!(matches!(join(&config, "tmj_x").await, Err(JoinError::OtherCluster { .. })));
    }

    #[tokio::test]
    async fn a_token_is_asked_with_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path().to_owned());
        let kept = async |token: &str| {
            assert!(matches!(join(&config, token).await, Err(JoinError::Ask { .. })));
            std::fs::read_to_string(dir.path().join(PENDING)).unwrap()
        };
        let first = kept("tmj_x").await;
        assert_eq!(kept("tmj_x\n").await, first, "nobody answered, so it is asked again with the same");
        let other = kept("tmj_y").await;
        assert_ne!(other, first);
        std::fs::write(dir.path().join(PENDING), other.replace("PRIVATE", "NO")).unwrap();
        assert_ne!(kept("tmj_y").await, other, "what can't be used is made anew");
        assert!(!other.contains("tmj_y"), "the token itself is not kept");
    }

    #[test]
    fn says_the_remedy() {
        let field = |remedy: &str| FieldProblem {
            field: "token".into(),
            message: "has expired".into(),
            remedy: remedy.into(),
        };
        let problem = ProblemDetails {
            detail: "The token is not good.".into(),
            errors: vec![field("make a new one")],
            ..ProblemDetails::default()
        };
        assert_eq!(explain(&problem), "The token is not good.; token: has expired (make a new one)");
        assert_eq!(explain(&ProblemDetails { status: 401, ..ProblemDetails::default() }), "status 401");
    }
}
