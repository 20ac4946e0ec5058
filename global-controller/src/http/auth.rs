//! Who asks, how often, and under which request id. A layer around all of the API.

use super::{
    extract::BODIES,
    limit::{Limiter, Quota, Verdict},
};
use crate::app::{
    Deps,
    caller::{Caller, Secret},
    error::{Kind, Refusal},
};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt as _;
use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tombolo_model::id::{OrgId, TokenId};
use tombolo_runtime::{bodies::Bodies, places::Source};
use tracing::Instrument as _;
use uuid::Uuid;

/// The id under which a request stands in the log and in the audit log.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The header of [`RequestId`].
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What the API keeps while it runs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) deps: Arc<Deps>,
    /// Room for bodies, by organization.
    pub(super) bodies: Bodies<Option<OrgId>>,
    limits: Arc<Limits>,
}

struct Limits {
    /// Of each token that is valid.
    tokens: Limiter<TokenId>,
    /// Of each address, with tokens that are not: asked before the database is.
    strangers: Limiter<Source>,
    /// Hashes of tokens that were valid here lately. They are looked up whatever others at their address do.
    known: Mutex<HashSet<[u8; 32]>>,
}

/// Of each token: 200 at once, 50 per second in the long run.
const TOKEN: Quota = Quota { burst: 200, per_second: 50.0 };
const STRANGERS: Quota = Quota { burst: 100, per_second: 20.0 };
const TOKENS: usize = 10_000;
const SOURCES: usize = 10_000;

impl Api {
    pub(crate) fn new(deps: Arc<Deps>) -> Self {
        let limits = Limits {
            tokens: Limiter::new(TOKEN, TOKENS),
            strangers: Limiter::new(STRANGERS, SOURCES),
            known: Mutex::default(),
        };
        Self { deps, bodies: Bodies::new(BODIES), limits: Arc::new(limits) }
    }
}

/// Reads the token, counts the request, and hands on who asks.
pub(crate) async fn layer(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let span = tracing::info_span!("http", request.id = id, request.method = %request.method(),
        request.path = request.uri().path());
    let mut response = async {
        request.extensions_mut().insert(RequestId(id.clone()));
        match admit(&api, &mut request).await {
            Ok(None) => run(next, request).await,
            Ok(Some(verdict)) => {
                let mut response = run(next, request).await;
                tell(response.headers_mut(), api.limits.tokens.quota(), verdict);
                response
            }
            Err(Stop { refusal, verdict }) => {
                let mut response = refusal.into_response();
                if let Some((quota, verdict)) = verdict {
                    tell(response.headers_mut(), quota, verdict);
                }
                response
            }
        }
    }
    .instrument(span)
    .await;
    // a UUID is a header's value
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How long an operation may take until its answer begins, the reading of its body included.
const LIMIT: Duration = Duration::from_secs(30);

/// The operation. One that takes too long is answered, and one that panics too: that is a mistake of ours, and no reason
/// to cut off the other requests of the connection.
async fn run(next: Next, request: Request) -> Response {
    let running = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(LIMIT, running).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Refusal::internal("the operation panicked").into_response(),
        Err(_) => Refusal::new(Kind::Timeout, format!("The request took more than {} s.", LIMIT.as_secs()))
            .into_response(),
    }
}

struct Stop {
    refusal: Refusal,
    verdict: Option<(Quota, Verdict)>,
}

/// Who asks goes into the request's extensions. Without a token nobody does, and the handler decides.
async fn admit(api: &Api, request: &mut Request) -> Result<Option<Verdict>, Stop> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else { return Ok(None) };
    let bearer = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let now: SystemTime = api.deps.clock.now();
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let source =
        Source::of(address.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(address)| address.ip()));
    let caller = identify(api, bearer.as_deref(), source, now)
        .await
        .map_err(|refusal| Stop { refusal, verdict: None })?;
    let verdict = api.limits.tokens.take(&caller.token, now);
    if !verdict.allowed {
        let told = Some((api.limits.tokens.quota(), verdict));
        return Err(Stop { refusal: too_many(verdict), verdict: told });
    }
    request.extensions_mut().insert(caller);
    Ok(Some(verdict))
}

/// Who presents the token. An address that presented too many wrong ones is refused before the database is asked.
async fn identify(
    api: &Api,
    bearer: Option<&str>,
    source: Source,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    let secret = bearer.and_then(|token| Secret::read(Secret::API, token));
    let hash = secret.as_ref().map(Secret::hash);
    let known = || api.limits.known.lock().unwrap_or_else(PoisonError::into_inner);
    let trusted = hash.is_some_and(|hash| known().contains(&hash));
    if !trusted {
        // taken beforehand, so that many at once are no more than one after the other
        let verdict = api.limits.strangers.take(&source, now);
        if !verdict.allowed {
            return Err(too_many(verdict));
        }
    }
    let found =
        match (bearer, &secret) {
            (None, _) => Err(Refusal::new(Kind::Unauthenticated, "Authorization holds no bearer token.")
                .field("Authorization", "is not of the scheme Bearer", "send: Authorization: Bearer tmb_…")),
            (Some(_), secret) => Caller::authenticate(&api.deps, secret.as_ref()).await,
        };
    let Some(hash) = hash else { return found };
    let mut known = known();
    match &found {
        Ok(_) if !trusted => {
            api.limits.strangers.give_back(&source);
            if known.len() >= TOKENS {
                known.clear();
            }
            known.insert(hash);
        }
        // the database may only be away
        Err(refusal) if refusal.kind != Kind::Unavailable => {
            known.remove(&hash);
        }
        _ => {}
    }
    drop(known);
    found
}

fn too_many(verdict: Verdict) -> Refusal {
    let seconds = verdict.retry_after_s;
    let detail = format!("Too many requests; try again in {seconds} s.");
    Refusal::new(Kind::RateLimited, detail).retry_after(seconds)
}

/// The fields of draft-ietf-httpapi-ratelimit-headers.
fn tell(headers: &mut HeaderMap, quota: Quota, verdict: Verdict) {
    let window = (f64::from(quota.burst) / quota.per_second).ceil();
    let policy = format!("\"token\";q={};w={window}", quota.burst);
    let state = format!("\"token\";r={};t={}", verdict.remaining, verdict.reset_s);
    for (name, text) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        // digits and quotes are a header's value
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, http::StatusCode, middleware, routing::get};
    use tower::ServiceExt as _;

    async fn status(path: &str) -> StatusCode {
        let slow = || tokio::time::sleep(LIMIT * 2);
        let panics = || async {
            std::hint::black_box(None::<()>).expect("a test of panics");
        };
        let around = middleware::from_fn(|request: Request, next: Next| run(next, request));
        let router = Router::new()
            .route("/quick", get(|| async {}))
            .route("/slow", get(slow))
            .route("/panics", get(panics))
            .layer(around);
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_panicking_operations_are_answered() {
        assert_eq!(status("/quick").await, StatusCode::OK);
        assert_eq!(status("/slow").await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(status("/panics").await, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
