//! What handlers answer with.

use crate::app::{error::Refusal, once::Answer};
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What a handler answers.
pub(crate) type Outcome<T> = Result<T, Refusal>;

/// Says that an answer is that of an earlier request with the same key.
const REPEATED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A thing with its ETag.
pub(crate) struct Versioned<T> {
    pub(crate) version: i64,
    pub(crate) shown: T,
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        ([(header::ETAG, etag(self.version))], Json(self.shown)).into_response()
    }
}

/// An answer that could not be read back.
pub(super) fn failed() -> Response {
    Refusal::internal("the body of an answer could not be read").into_response()
}

/// The ETag of a version.
fn etag(version: i64) -> HeaderValue {
    // digits in quotes are a header's value
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static("application/json");
        let mut response =
            (StatusCode::CREATED, [(header::CONTENT_TYPE, content_type)], self.body).into_response();
        let headers = response.headers_mut();
        // names in our paths are DNS labels or ids
        if let Ok(location) = HeaderValue::try_from(format!("/api/v1{}", self.location)) {
            headers.insert(header::LOCATION, location);
        }
        headers.extend(self.version.map(|version| (header::ETAG, etag(version))));
        if self.repeated {
            headers.insert(REPEATED, HeaderValue::from_static("true"));
        }
        response
    }
}
