//! Problem details (RFC 9457): what every refused request is answered with.

use crate::app::error::{Kind, Reason, Refusal};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tombolo_runtime::telemetry;
use utoipa::ToSchema;

/// Problem details (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct Problem {
    /// The problem's type, a stable relative reference such as `/problems/invalid-field`. Match on this.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-field")]
    pub(crate) kind: String,
    /// The type in words.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened this time, for people.
    pub(crate) detail: String,
    /// What to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<ProblemField>,
}

/// A field, header or query parameter to change.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(crate) struct ProblemField {
    /// Where: `rules[0].cluster.name`, or a header's or parameter's name.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
}

/// The media type of [`Problem`].
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

impl Kind {
    /// Its status, its name in the type's URI, its title.
    pub(crate) const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => (S::BAD_REQUEST, "malformed-json", "The body is not JSON"),
            Self::UnknownField => (S::UNPROCESSABLE_ENTITY, "unknown-field", "A field is not known"),
            Self::InvalidField => (S::UNPROCESSABLE_ENTITY, "invalid-field", "A value cannot be taken"),
            Self::InvalidCursor => (S::BAD_REQUEST, "invalid-cursor", "The cursor is not of this list"),
            Self::InvalidHeader => (S::BAD_REQUEST, "invalid-header", "A header cannot be read"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is not declared as JSON")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::Timeout => (S::REQUEST_TIMEOUT, "timeout", "It took too long"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "No valid API token"),
            Self::TokenExpired => (S::UNAUTHORIZED, "token-expired", "The API token has expired"),
            Self::TokenRevoked => (S::UNAUTHORIZED, "token-revoked", "The API token was revoked"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The token's role does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not-found", "There is nothing here"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not for this resource")
            }
            Self::AlreadyExists => (S::CONFLICT, "already-exists", "The name is taken"),
            Self::DomainOverlap => (S::CONFLICT, "domain-overlap", "The domain overlaps another one"),
            Self::Conflict => (S::CONFLICT, "conflict", "The state does not allow this"),
            Self::PreconditionFailed => {
                (S::PRECONDITION_FAILED, "precondition-failed", "It was changed meanwhile")
            }
            Self::PreconditionRequired => {
                (S::PRECONDITION_REQUIRED, "precondition-required", "If-Match is missing")
            }
            Self::IdempotencyMismatch => {
                (S::UNPROCESSABLE_ENTITY, "idempotency-mismatch", "The idempotency key was used otherwise")
            }
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate-limited", "Too many requests"),
            Self::OnboardingTokenUnknown => {
                (S::UNAUTHORIZED, "onboarding-token-unknown", "The onboarding token is not known")
            }
            Self::OnboardingTokenExpired => {
                (S::UNAUTHORIZED, "onboarding-token-expired", "The onboarding token has expired")
            }
            Self::OnboardingTokenUsed => {
                (S::UNAUTHORIZED, "onboarding-token-used", "The onboarding token was used already")
            }
            Self::OnboardingTokenRevoked => {
                (S::UNAUTHORIZED, "onboarding-token-revoked", "The onboarding token was revoked")
            }
            Self::OnboardingTokenOtherCluster => (
                S::FORBIDDEN,
                "onboarding-token-other-cluster",
                "The onboarding token is for another cluster",
            ),
            Self::ClientCertificateRequired => {
                (S::UNAUTHORIZED, "client-certificate-required", "The agent's certificate is missing")
            }
            Self::ClusterRevoked => (S::FORBIDDEN, "cluster-revoked", "The cluster was removed"),
            Self::UnknownBase => (S::CONFLICT, "unknown-base", "The change is of a state that is not here"),
            Self::InvalidCsr => {
                (S::UNPROCESSABLE_ENTITY, "invalid-csr", "The certificate request cannot be taken")
            }
            Self::IncompatibleVersion => {
                (S::CONFLICT, "incompatible-version", "The versions do not work together")
            }
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "Not available now"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "The controller failed"),
        }
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let (status, name, title) = refusal.kind.parts();
        let errors = refusal.errors.iter().map(|e| ProblemField {
            field: e.field.clone(),
            message: e.message.clone(),
            remedy: e.remedy.clone(),
        });
        Self {
            kind: format!("/problems/{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: refusal.detail.to_string(),
            errors: errors.collect(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, name, _) = self.kind.parts();
        if let Some(cause) = &self.cause {
            let error = telemetry::chain(cause.as_ref());
            if status == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(problem = name, error, "request failed");
            } else {
                tracing::warn!(problem = name, error, "request refused");
            }
        }
        let mut response = (status, Json(Problem::from(&self))).into_response();
        response.extensions_mut().insert(Reason(name));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tombolo\""));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.parts().1).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        assert!(Kind::ALL.iter().all(|kind| {
            let (status, _, title) = kind.parts();
            (status.is_client_error() || status.is_server_error()) && !title.is_empty()
        }));
    }

    #[test]
    fn a_cause_is_never_shown() {
        let refusal = Refusal::internal("password=hunter2");
        let text = serde_json::to_string(&Problem::from(&refusal)).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
    }
}
