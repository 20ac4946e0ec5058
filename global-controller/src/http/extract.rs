//! What handlers take: who asks, bodies, queries, preconditions. Each refuses with a problem of ours.

use super::auth::{Api, RequestId};
use crate::app::{
    caller::{Access, Caller, Role, Scope},
    error::{Checks, Kind, Refusal},
    once::OnceKey,
    page::Page,
    version::Expected,
};
use crate::json::check_text;
use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use std::{collections::HashMap, time::Duration};
use tombolo_model::id::OrgId;
use tombolo_runtime::{
    bodies::{Bounds, Held, Unread},
    places::Shares,
};

/// The largest body, in bytes.
pub(crate) const MOST_BYTES: usize = 256 * 1024;
/// What there is for bodies, and for those of one organization; the installation's owner has as much as one.
pub(super) const BODIES: Bounds =
    Bounds { all: 32 << 20, each: 8 << 20, bodies: Shares { all: 256, each: 64 } };
/// How long a body may take, with the wait for room.
const READING: Duration = Duration::from_secs(20);

/// Anyone with a valid token.
pub(crate) struct Authenticated {
    pub(crate) caller: Caller,
    pub(crate) request_id: String,
}

impl FromRequestParts<Api> for Authenticated {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
            Refusal::new(Kind::Unauthenticated, "This needs an API token.").field(
                "Authorization",
                "is missing",
                "send: Authorization: Bearer tmb_…",
            )
        })?;
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        Ok(Self { caller, request_id })
    }
}

async fn enter(parts: &mut Parts, api: &Api, access: Access) -> Result<Scope, Refusal> {
    let Authenticated { caller, request_id } = Authenticated::from_request_parts(parts, api).await?;
    let path: HashMap<String, String> = params(parts, api).await?;
    let org = path.get("org").ok_or_else(|| Refusal::internal("the path has no organization"))?;
    Scope::enter(&api.deps, caller, org, access, request_id).await
}

async fn params<T: DeserializeOwned + Send>(parts: &mut Parts, api: &Api) -> Result<T, Refusal> {
    let Path(params) = Path::<T>::from_request_parts(parts, api)
        .await
        .map_err(|_| Refusal::new(Kind::NotFound, "There is nothing under this path."))?;
    Ok(params)
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $access:expr),+ $(,)?) => {$(
        $(#[$doc])*
        pub(crate) struct $name(pub(crate) Scope);
        impl FromRequestParts<Api> for $name {
            type Rejection = Refusal;
            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
                enter(parts, api, $access).await.map($name)
            }
        }
    )+};
}

scopes! {
    /// Someone who may read in the organization of the path.
    Viewer = Access::Tenant(Role::Viewer),
    /// Someone who may change things in it.
    Editor = Access::Tenant(Role::Editor),
    /// Someone who may manage its tokens: an admin of it, or the installation's owner.
    Keeper = Access::TenantOrOwner(Role::Admin),
    /// Someone who may know that it exists.
    Visitor = Access::TenantOrOwner(Role::Viewer),
    /// The installation's owner, for an organization.
    Landlord = Access::TenantOrOwner(Role::Owner),
}

/// The part of the path under this name.
pub(crate) struct Named<const N: usize>(pub(crate) [String; N]);

impl<const N: usize> FromRequestParts<Api> for Named<N> {
    type Rejection = Refusal;
    /// The last `N` parameters of the path, in its order.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        let pairs: Vec<(String, String)> = params(parts, api).await?;
        let values: Vec<String> =
            pairs.into_iter().filter(|(name, _)| name != "org").map(|(_, value)| value).collect();
        values.try_into().map(Named).map_err(|_| Refusal::internal("the path has other parameters"))
    }
}

/// A JSON body, and its bytes.
pub(crate) struct Body<T> {
    pub(crate) value: T,
    bytes: Held<Option<OrgId>>,
    path: String,
    key: Option<String>,
}

impl<T> Body<T> {
    /// The idempotency key, where the request has one.
    ///
    /// # Errors
    /// [`Kind::InvalidHeader`].
    pub(crate) fn once(&self) -> Result<Option<OnceKey>, Refusal> {
        self.key.as_deref().map(|key| OnceKey::new(key, &self.path, &self.bytes)).transpose()
    }
}

impl<T: DeserializeOwned + Send> FromRequest<Api> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        // what is no text is refused by `OnceKey::new`, as an empty key is
        let key = parts.headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default().to_owned());
        check_media_type(&parts.headers)?;
        // who asks was found out before
        let org = parts.extensions.get::<Caller>().and_then(|caller| caller.org);
        let read = api.bodies.read(&org, &parts.headers, body, MOST_BYTES, READING).await;
        let bytes = read.map_err(|unread| match unread {
            Unread::TooLong(_) => Refusal::new(
                Kind::BodyTooLarge,
                format!("The body has more than {MOST_BYTES} bytes."),
            )
            .field("body", "is too large", format!("send at most {MOST_BYTES} bytes")),
            Unread::Broken => Refusal::new(Kind::MalformedJson, "The body ended before it was complete."),
            Unread::Late => {
                let detail = "The body did not come in time, or there was no room for it; try again.";
                Refusal::new(Kind::Unavailable, detail).retry_after(1)
            }
        })?;
        check_text(&bytes)?;
        let value = read_json(&bytes)?;
        Ok(Self { value, bytes, path: parts.uri.path().to_owned(), key })
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("application/merge-patch+json")
    {
        return Ok(());
    }
    Err(Refusal::new(Kind::UnsupportedMediaType, "The body is not declared as JSON.").field(
        "Content-Type",
        if given.is_empty() { "is missing" } else { "is not application/json" },
        "send: Content-Type: application/json",
    ))
}

/// Reads JSON, and says which field is wrong where one is.
fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| (error.path().to_string(), error.into_inner()))
        .and_then(|value| json.end().map(|()| value).map_err(|error| (String::new(), error)));
    let (path, error) = match read {
        // a list of a struct's fields in their order would be read too
        Ok(value) if begins_object(bytes) => return Ok(value),
        Ok(_) => (String::new(), serde::de::Error::custom("is not an object")),
        Err(found) => found,
    };
    let (line, column) = (error.line(), error.column());
    if error.is_syntax() || error.is_eof() || error.is_io() {
        return Err(Refusal::new(
            Kind::MalformedJson,
            format!("The body is not JSON: line {line}, column {column}: {}", plain(&error)),
        )
        .field("body", format!("breaks at line {line}, column {column}"), "send one JSON object"));
    }
    let message = plain(&error);
    if !begins_object(bytes) {
        return Err(Refusal::new(Kind::InvalidField, "The body is JSON, but no object.").field(
            "body",
            "is not an object",
            "send one JSON object",
        ));
    }
    let field = |name: &str| match path.as_str() {
        "." | "" => name.to_owned(),
        // the path of an unknown field ends in that field
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some((name, known)) = quoted(&message, "unknown field ") {
        let known = known.strip_prefix(", expected ").unwrap_or("none").replace('`', "");
        return Err(Refusal::new(Kind::UnknownField, format!("The field {name:?} is not known.")).field(
            field(name),
            "is not known",
            format!("remove it; known here: {known}"),
        ));
    }
    if let Some((name, _)) = quoted(&message, "missing field ") {
        let mut checks = Checks::default();
        checks.wrong(field(name), "is missing", "add it");
        checks.done()?;
    }
    let mut checks = Checks::default();
    let at = if matches!(path.as_str(), "." | "") { "body" } else { path.as_str() };
    checks.wrong(at, message, "see the schema of this request in /api/v1/openapi.json");
    checks.done()?;
    Err(Refusal::internal("a wrong field was not refused"))
}

fn begins_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first() == Some(&b'{')
}

/// The message without its position, which has a place of its own.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

fn quoted<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split_once('`')
}

/// The query, with its own names only.
pub(crate) struct Query(HashMap<String, String>);

impl FromRequestParts<Api> for Query {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refusal> {
        axum::extract::Query::<HashMap<String, String>>::from_request_parts(parts, api)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|_| Refusal::new(Kind::InvalidField, "The query cannot be read."))
    }
}

impl Query {
    /// Takes a parameter out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes a yes or no out.
    ///
    /// # Errors
    /// [`Kind::InvalidField`].
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => {
                let mut checks = Checks::default();
                checks.wrong(name, "is neither true nor false", "use true or false");
                checks.done()?;
                Ok(false)
            }
        }
    }

    /// Takes the page out, which must be the last of it: what is left is not known.
    ///
    /// # Errors
    /// [`Kind::InvalidField`], [`Kind::InvalidCursor`], [`Kind::UnknownField`].
    pub(crate) fn page(mut self, list: &'static str) -> Result<Page, Refusal> {
        let cursor = self.take("cursor");
        let limit = self.take("limit");
        self.done()?;
        let limit = match limit.map(|text| text.parse::<u16>()) {
            None => None,
            Some(Ok(limit)) => Some(limit),
            // no number, or too large for the type: out of bounds for a page
            Some(Err(_)) => Some(0),
        };
        Page::new(list, limit, cursor.as_deref())
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// [`Kind::UnknownField`].
    pub(crate) fn done(self) -> Result<(), Refusal> {
        let mut unknown: Vec<&String> = self.0.keys().collect();
        unknown.sort();
        let Some(name) = unknown.first() else { return Ok(()) };
        Err(Refusal::new(Kind::UnknownField, format!("The query parameter {name:?} is not known.")).field(
            name.to_string(),
            "is not known",
            "remove it",
        ))
    }
}

/// The version that a change is meant for. A change without one is refused: it would overwrite what others did.
pub(crate) struct IfMatch(pub(crate) Expected);

impl FromRequestParts<Api> for IfMatch {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Err(Refusal::new(
                Kind::PreconditionRequired,
                "A change must name the version it is meant for.",
            )
            .field(
                "If-Match",
                "is missing",
                "send the ETag of what you read; or * for whatever is there",
            ));
        }
        let mut versions = Vec::new();
        for tag in values.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim) {
            if tag == "*" {
                return Ok(Self(Expected::Any));
            }
            let strong = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let Some(opaque) = strong else {
                return Err(Refusal::new(Kind::InvalidHeader, "If-Match cannot be read.").field(
                    "If-Match",
                    "is not a list of entity tags",
                    "send the ETag of what you read as it is, quotes included",
                ));
            };
            // what was read has a sum behind its version; a tag that we did not make matches nothing
            let version = opaque.split_once('.').map_or(opaque, |(version, _)| version);
            versions.extend(version.parse::<i64>());
        }
        Ok(Self(Expected::Versions(versions)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::gns::NewGlobalNamespace;
    use proptest::prelude::*;

    fn refused(text: &str) -> (Kind, String, String) {
        let refusal = read_json::<NewGlobalNamespace>(text.as_bytes()).unwrap_err();
        let error = refusal.errors.into_iter().next().unwrap();
        (refusal.kind, error.field, error.message)
    }

    #[test]
    fn wrong_json_is_named() {
        let (kind, field, message) = refused("{\"name\":\n  \"acme\",,}");
        assert_eq!((kind, field.as_str()), (Kind::MalformedJson, "body"));
        assert_eq!(message, "breaks at line 2, column 10");
        let (kind, field, _) = refused(r#"{"name":"a","domain":"a.b","rules":[],"colour":"red"}"#);
        assert_eq!((kind, field.as_str()), (Kind::UnknownField, "colour"));
        let (kind, field, _) =
            refused(r#"{"name":"a","domain":"a.b","rules":[{"cluster":{"name":"x"},"namespce":{}}]}"#);
        assert_eq!((kind, field.as_str()), (Kind::UnknownField, "rules[0].namespce"));
        let (kind, field, _) = refused(r#"{"name":"a","rules":[]}"#);
        assert_eq!((kind, field.as_str()), (Kind::InvalidField, "domain"));
        let (kind, field, _) = refused(r#"{"name":7,"domain":"a.b","rules":[]}"#);
        assert_eq!((kind, field.as_str()), (Kind::InvalidField, "name"));
        assert_eq!(refused("[]").0, Kind::InvalidField);
        assert_eq!(refused(r#"["acme","acme.example.com",[]]"#).2, "is not an object");
        assert_eq!(refused("").0, Kind::MalformedJson);
        assert_eq!(refused("{} {}").0, Kind::InvalidField);
    }

    proptest! {
        #[test]
        fn any_body_is_answered(text in "[{}\\[\\]\",:a-z0-9 ]{0,80}") {
            let _ = read_json::<NewGlobalNamespace>(text.as_bytes());
        }
    }
}
