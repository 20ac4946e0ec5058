//! Reading what is known already: each answer to a GET has an entity tag made of what it says, and `If-None-Match` with it
//! is answered 304, without a body.

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Tags answers, and leaves out those that the client has.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    let known: Vec<HeaderValue> = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect();
    let response = next.run(request).await;
    // what has no end has no tag
    if response.status() != StatusCode::OK || response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return super::answer::failed();
    };
    let Some(tag) = tag(&parts.headers, &bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    let same = known.iter().any(|header| names(header, &tag));
    parts.headers.insert(header::ETAG, tag);
    if !same {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.status = StatusCode::NOT_MODIFIED;
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::empty())
}

/// The version, where the thing has one, and the beginning of the sum of what is said: a cluster is another one to a
/// reader once it connects, and nobody edited it.
fn tag(headers: &HeaderMap, bytes: &[u8]) -> Option<HeaderValue> {
    let version =
        headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(|tag| tag.trim_matches('"'));
    let mut text = version.map_or_else(|| "\"".to_owned(), |version| format!("\"{version}."));
    for byte in Sha256::digest(bytes).iter().take(12) {
        // writing to a string does not fail
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::try_from(text).ok()
}

/// Whether the tag is one of those in the header (RFC 9110, 13.1.2: compared weakly).
fn names(header: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(header), Ok(tag)) = (header.to_str(), tag.to_str()) else { return false };
    header.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        let mut headers = HeaderMap::new();
        let plain = tag(&headers, b"{}").unwrap();
        headers.insert(header::ETAG, HeaderValue::from_static("\"7\""));
        let versioned = tag(&headers, b"{}").unwrap();
        assert_eq!(versioned.to_str().unwrap(), plain.to_str().unwrap().replacen('"', "\"7.", 1));
        assert_ne!(tag(&headers, b"[]"), Some(versioned.clone()));
        let list = format!("\"x\", W/{}", versioned.to_str().unwrap());
        for (header, expected) in [(list.as_str(), true), ("*", true), ("\"x\"", false), ("", false)] {
            assert_eq!(names(&HeaderValue::try_from(header).unwrap(), &versioned), expected, "{header}");
        }
    }
}
