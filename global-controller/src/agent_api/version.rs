//! Versions meet politely: each request says what its sender speaks.

use super::PROGRAM;
use crate::app::error::{Kind, Refusal};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tombolo_wire::version::{Hello, ProtocolVersion};

/// The header with the sender's protocol version.
const HEADER: &str = "tombolo-protocol";

/// Refuses requests of a version that this one does not meet; says its own in every answer.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let mut response = match spoken(request.headers()).and_then(meets) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if let Ok(ours) = HeaderValue::from_str(&ProtocolVersion::CURRENT.to_string()) {
        response.headers_mut().insert(HEADER, ours);
    }
    response
}

fn spoken(headers: &HeaderMap) -> Result<ProtocolVersion, Refusal> {
    headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once('.'))
        .and_then(|(major, minor)| {
            Some(ProtocolVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
        })
        .ok_or_else(|| {
            Refusal::new(Kind::InvalidHeader, "The request does not say which protocol its sender speaks.")
                .field(
                    HEADER,
                    "is missing or not a version",
                    format!("send it as {}", ProtocolVersion::CURRENT),
                )
        })
}

/// Refuses a version that this one does not meet, and says who is to be upgraded first.
pub(super) fn meets(theirs: ProtocolVersion) -> Result<(), Refusal> {
    let ours = ProtocolVersion::CURRENT;
    if ours.meets(theirs) {
        return Ok(());
    }
    let remedy = if theirs > ours {
        "upgrade the controller first, then the agents"
    } else {
        "upgrade the agent; controllers and agents may be two minor versions apart"
    };
    Err(Refusal::new(
        Kind::IncompatibleVersion,
        format!(
            "The agent speaks protocol {theirs}, the controller {ours}; they do not understand each other."
        ),
    )
    .field(HEADER, format!("is {theirs}"), remedy))
}

/// Who we are.
pub(super) fn hello() -> Hello {
    Hello::current(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_order_of_upgrades() {
        let ours = ProtocolVersion::CURRENT;
        assert!(meets(ours).is_ok());
        assert!(meets(ProtocolVersion { minor: ours.minor + 2, ..ours }).is_ok());
        let newer = meets(ProtocolVersion { minor: ours.minor + 3, ..ours }).unwrap_err();
        assert!(newer.errors[0].remedy.starts_with("upgrade the controller first"));
        assert_eq!(newer.kind, Kind::IncompatibleVersion);
        assert!(meets(ProtocolVersion { major: ours.major + 1, minor: 0 }).is_err());
    }

    #[test]
    fn reads_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(spoken(&headers).unwrap_err().kind, Kind::InvalidHeader);
        headers.insert(HEADER, HeaderValue::from_static("1.x"));
        assert!(spoken(&headers).is_err());
        headers.insert(HEADER, HeaderValue::from_static("1.0"));
        assert_eq!(spoken(&headers).unwrap(), ProtocolVersion { major: 1, minor: 0 });
    }
}
