//! An answer that is an error (RFC 9457).

use super::{
    answer::{Body, json},
    hub::Refusal,
    permit::Denied,
    review::ReviewError,
};
use http::{Response, StatusCode, header};
use std::fmt::Display;
use tombolo_wire::problem::ProblemDetails;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    detail: String,
}

pub(super) fn problem(status: StatusCode, detail: impl Display) -> Problem {
    Problem { status, detail: detail.to_string() }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Unknown => StatusCode::CONFLICT,
        };
        problem(status, refusal)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::NotKnown { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        };
        problem(status, denied)
    }
}

impl From<ReviewError> for Problem {
    fn from(error: ReviewError) -> Self {
        let status = match error {
            ReviewError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            ReviewError::Nobody(_) | ReviewError::Token(_) => StatusCode::UNAUTHORIZED,
        };
        problem(status, error)
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Display) -> Self {
        problem(status, detail)
    }

    /// One caller has more connections than it needs.
    pub(super) fn crowded() -> Self {
        let detail = "this pod has too many connections to the agent; it is told to come again";
        problem(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Nobody says who asks.
    pub(super) fn no_token() -> Self {
        problem(StatusCode::UNAUTHORIZED, "there is no token; start the gateway with --agent-token-file")
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The caller is a stranger.
    pub(super) fn stranger(uid: u32, own: u32) -> Self {
        let detail = format!(
            "the agent takes gateways of its own user ({own}) and of root; this process runs as user {uid}"
        );
        problem(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let details = ProblemDetails {
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            detail: self.detail,
            ..ProblemDetails::default()
        };
        let mut response = json(&details);
        *response.status_mut() = self.status;
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
