//! Why a connection was refused or cut short: one bounded word, the same in the access log, in metrics' labels and
//! in the `tombolo-reason` header.

use http::StatusCode;
use std::{fmt, str::FromStr};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident;)+) => {
        /// Why a connection was refused or cut short.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, for metrics and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word that stands for it in logs, labels and headers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The status a hop answers a CONNECT with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }
        }
    };
}

reasons! {
    /// No name has this address or port here.
    NoRoute = "no_route", NOT_FOUND;
    /// The kernel names no workload for the caller, or more than one.
    UnknownWorkload = "unknown_workload", FORBIDDEN;
    /// This process has no certificate (yet) for the identity it must show.
    NoCredentials = "no_credentials", SERVICE_UNAVAILABLE;
    /// No cluster that serves the name is alive.
    NoHealthyTarget = "no_healthy_target", SERVICE_UNAVAILABLE;
    /// The cluster has no ready endpoint for the name.
    NoReadyEndpoint = "no_ready_endpoint", SERVICE_UNAVAILABLE;
    /// The application does not accept the connection.
    EndpointRefused = "endpoint_refused", BAD_GATEWAY;
    /// The next hop can't be reached.
    PeerUnreachable = "peer_unreachable", BAD_GATEWAY;
    /// The caller's cluster may not call the name.
    NotACaller = "not_a_caller", FORBIDDEN;
    /// The cluster does not serve the name, or not on this port.
    NotExported = "not_exported", NOT_FOUND;
    /// Somebody else than expected stands at the other end, or speaks for somebody else.
    WrongIdentity = "wrong_identity", FORBIDDEN;
    /// An identity on the path left the trust bundle.
    Revoked = "revoked", FORBIDDEN;
    /// The endpoint should take the workload's own TLS session, and the answer says it does not.
    InnerRefused = "inner_refused", BAD_GATEWAY;
    /// The request for a tunnel is malformed.
    BadRequest = "bad_request", BAD_REQUEST;
    /// The two programs' versions are too far apart.
    UnsupportedVersion = "unsupported_version", HTTP_VERSION_NOT_SUPPORTED;
    /// A bound of this process is reached.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    /// The process is about to end.
    Draining = "draining", SERVICE_UNAVAILABLE;
    /// No answer in time.
    Timeout = "timeout", GATEWAY_TIMEOUT;
    /// One of the two ends reset the connection; what it had sent was delivered.
    Reset = "reset", BAD_GATEWAY;
    /// The tunnel below the connection broke.
    TunnelLost = "tunnel_lost", BAD_GATEWAY;
    /// The caller went away before the connection was made.
    Cancelled = "cancelled", BAD_REQUEST;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no reason of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no reason that this version knows")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert!(!reason.status().is_success());
        }
        assert_eq!("ok".parse::<Reason>(), Err(UnknownReason));
    }

    /// Its page has a row for each, in this order, with what to do.
    #[test]
    fn each_is_in_the_documentation() {
        let page = include_str!("../../docs/trouble.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let mut found = Vec::new();
        for row in rows {
            let Some((word, rest)) = row.split_once("` | ") else { continue };
            let Ok(reason) = word.parse::<Reason>() else { continue };
            let (meaning, remedy) = rest.split_once(" | ").expect("a row of the table has three columns");
            assert!(!meaning.trim().is_empty() && !remedy.trim().is_empty(), "{row}");
            found.push(reason);
        }
        assert_eq!(found, Reason::ALL);
    }
}
