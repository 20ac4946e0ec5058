//! Why a hop could not open the path, in a shape that travels: the bounded reason, the hop that gave it, and a text
//! for people that stays in this process's log.

use crate::{race::Verdict, reason::Reason};
use std::fmt;
use tombolo_model::{ClusterName, GatewayRole};
use tombolo_mtls::HandshakeError;
use tombolo_runtime::telemetry;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// `<role>@<cluster>` of the hop that refused; none: this one.
    pub hop: Option<String>,
    /// More, for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal of this hop.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, hop: None, detail: detail.into() }
    }

    /// A TLS handshake failed.
    #[must_use]
    pub fn handshake(error: &HandshakeError, with: &str) -> Self {
        let reason = match error {
            error if error.is_revoked() => Reason::Revoked,
            HandshakeError::Refused(_) | HandshakeError::RefusedByPeer(_) | HandshakeError::NoPeer => {
                Reason::WrongIdentity
            }
            HandshakeError::Tls(_) | HandshakeError::Io(_) => Reason::PeerUnreachable,
        };
        Self::new(reason, format!("{with}: {}", telemetry::chain(error)))
    }

    /// What it means for the targets that were not tried yet, where `self` came from one of several. Never that the
    /// race is over: what one target says of versions, of revoked identities or of a malformed request is its own
    /// view, and another one may be younger, older or better informed. Nothing of the application's bytes has moved.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.reason {
            Reason::PeerUnreachable
            | Reason::TunnelLost
            | Reason::Timeout
            | Reason::WrongIdentity
            | Reason::NoCredentials
            | Reason::Overloaded
            | Reason::Draining => Verdict::NextMember,
            _ => Verdict::NextGroup,
        }
    }

    /// The failure that says most, of several: an answer before a silence, the preferred target's before others'.
    #[must_use]
    pub fn most_telling(failures: Vec<Self>) -> Option<Self> {
        let silent =
            |r: &Self| matches!(r.reason, Reason::PeerUnreachable | Reason::TunnelLost | Reason::Timeout);
        let at = failures.iter().position(|refusal| !silent(refusal)).unwrap_or(0);
        failures.into_iter().nth(at)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hop {
            Some(hop) => write!(f, "{} (by {hop}): {}", self.reason, self.detail),
            None => write!(f, "{}: {}", self.reason, self.detail),
        }
    }
}

impl std::error::Error for Refusal {}

/// How a hop names itself in `tombolo-hop`.
#[must_use]
pub fn hop(role: GatewayRole, cluster: Option<&ClusterName>) -> String {
    format!("{role}@{}", cluster.map_or("unknown", ClusterName::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_speaks_for_the_others() {
        for reason in Reason::ALL {
            let said = Refusal { hop: Some("ingress@c2".to_owned()), ..Refusal::new(*reason, "no") };
            assert_ne!(said.verdict(), Verdict::Final, "{reason}");
        }
        let of = |reason| Refusal::new(reason, "no").verdict();
        assert_eq!(of(Reason::UnsupportedVersion), Verdict::NextGroup, "and so it is remembered");
        assert_eq!(of(Reason::PeerUnreachable), Verdict::NextMember);
    }
}
