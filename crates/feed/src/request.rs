//! Small requests over the feed's connection.

use crate::{
    connect::{ConnectError, Connector},
    token::TokenFile,
};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{Method, Request, StatusCode, header, request::Builder, response};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::poll_fn, time::Duration};
use thiserror::Error;
use tokio::{sync::watch, time::timeout};
use tombolo_wire::{problem::ProblemDetails, version::ProtocolVersion};

/// The header that states the protocol's version on each request.
pub const PROTOCOL_HEADER: &str = "tombolo-protocol";
/// The longest answer to a request, in bytes.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How long a request may take, the wait for a connection included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait that another side may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Debug, Error)]
pub enum RequestError {
    /// No answer in time; there may be no connection.
    #[error("no answer to {path} within {} s", limit.as_secs())]
    Timeout {
        /// What was asked.
        path: String,
        /// The limit.
        limit: Duration,
    },
    /// No connection could be made (only where the request makes its own).
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// The connection failed under the request.
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
    /// The other side answered with an error.
    #[error("refused with status {}: {}", status.as_u16(), said(problem))]
    Refused {
        /// The status.
        status: StatusCode,
        /// What it said.
        problem: Box<ProblemDetails>,
        /// When to come again, where it said so.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than [`MAX_ANSWER`].
    #[error("the answer to {path} is longer than {MAX_ANSWER} bytes")]
    TooLong {
        /// What was asked.
        path: String,
    },
    /// The answer is not what it should be, or the question could not be written.
    #[error("not the JSON expected of {path}")]
    Json {
        /// What was asked.
        path: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The path or a header is not one.
    #[error("the request could not be made")]
    Request(#[from] http::Error),
    /// The token can't be read.
    #[error("the token {path} can't be read")]
    Token {
        /// Where it should be.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The client is gone.
    #[error("the feed's client has ended")]
    Ended,
}

fn said(problem: &ProblemDetails) -> &str {
    match (problem.detail.as_str(), problem.title.as_str()) {
        ("", "") => "no reason given",
        ("", title) => title,
        (detail, _) => detail,
    }
}

impl RequestError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connect(_) | Self::Connection(_) | Self::Token { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
            }
            Self::TooLong { .. } | Self::Json { .. } | Self::Request(_) | Self::Ended => false,
        }
    }

    /// How long to wait before the same request is tried again: so long, or longer where the other side said so.
    #[must_use]
    pub fn wait(&self, backoff: Duration) -> Duration {
        match self {
            Self::Refused { retry_after: Some(said), .. } => backoff.max((*said).min(LONGEST_WAIT)),
            _ => backoff,
        }
    }

    /// The status the other side answered with, where it answered.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// An open connection.
#[derive(Clone)]
pub(crate) struct Link {
    send: SendRequest<Bytes>,
    base: String,
    token: Option<TokenFile>,
}

impl Link {
    /// Each request carries the token, where there is one.
    pub(crate) fn new<C: Connector>(
        send: SendRequest<Bytes>,
        connector: &C,
        token: Option<TokenFile>,
    ) -> Self {
        Self { send, base: format!("{}://{}", C::SCHEME, connector.authority()), token }
    }

    /// `given`, or the token of the file.
    async fn authorized(&self, request: Builder, given: Option<&str>) -> Result<Builder, RequestError> {
        let token = match (given, &self.token) {
            (Some(given), _) => given.to_owned(),
            (None, None) => return Ok(request),
            (None, Some(file)) => file
                .read()
                .await
                .map_err(|source| RequestError::Token { path: file.path().display().to_string(), source })?,
        };
        let mut value =
            header::HeaderValue::try_from(format!("Bearer {token}")).map_err(http::Error::from)?;
        value.set_sensitive(true);
        Ok(request.header(header::AUTHORIZATION, value))
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(PROTOCOL_HEADER, ProtocolVersion::CURRENT.to_string())
    }

    /// Opens a long answer. An answer other than 200 becomes an error.
    pub(crate) async fn get(&self, path: &str) -> Result<RecvStream, RequestError> {
        let mut send = self.send.clone().ready().await?;
        let request = self.authorized(self.request(Method::GET, path), None).await?.body(())?;
        let (answer, _) = send.send_request(request, true)?;
        let (head, mut body) = answer.await?.into_parts();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let text = read(&mut body, path).await?;
        Err(refused(&head, &text))
    }

    pub(crate) async fn post<T: Serialize, U: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &T,
    ) -> Result<U, RequestError> {
        let json = |source| RequestError::Json { path: path.to_owned(), source };
        let body = serde_json::to_vec(body).map_err(json)?;
        let mut send = self.send.clone().ready().await?;
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        let request = self.authorized(request, bearer).await?;
        let (answer, mut stream) = send.send_request(request.body(())?, false)?;
        stream.send_data(Bytes::from(body), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let text = read(&mut body, path).await?;
        if !head.status.is_success() {
            return Err(refused(&head, &text));
        }
        let text: &[u8] = if text.is_empty() { b"null" } else { &text };
        serde_json::from_slice(text).map_err(json)
    }
}

fn refused(head: &response::Parts, text: &[u8]) -> RequestError {
    let status = head.status;
    let retry_after =
        head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let problem = serde_json::from_slice(text).unwrap_or_else(|_| ProblemDetails {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        ..ProblemDetails::default()
    });
    RequestError::Refused {
        status,
        problem: Box::new(problem),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

async fn read(body: &mut RecvStream, path: &str) -> Result<Bytes, RequestError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if all.len() + chunk.len() > MAX_ANSWER {
            return Err(RequestError::TooLong { path: path.to_owned() });
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// Sends requests over the connection that a [`Client`](crate::Client) has at the time.
#[derive(Clone)]
pub struct Requests {
    links: watch::Receiver<Option<Link>>,
    limit: Duration,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("connected", &self.links.borrow().is_some()).finish_non_exhaustive()
    }
}

impl Requests {
    pub(crate) const fn new(links: watch::Receiver<Option<Link>>, limit: Duration) -> Self {
        Self { links, limit }
    }

    pub(crate) fn fixed(link: Link, limit: Duration) -> Self {
        let (_, links) = watch::channel(Some(link));
        Self { links, limit }
    }

    /// Waits until there is another connection than the last time this handle looked. Cancel safe.
    pub async fn reconnected(&mut self) {
        while self.links.changed().await.is_ok() {
            if self.links.borrow_and_update().is_some() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Posts JSON, and reads the JSON of the answer (`()` where it has none). Waits for a connection, within
    /// [`REQUEST_TIMEOUT`]. Dropping the future resets the request; the other side may have acted on it.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is tried twice, see [`RequestError::retry`].
    pub async fn post<T: Serialize, U: DeserializeOwned>(
        &self,
        path: &str,
        body: &T,
    ) -> Result<U, RequestError> {
        let work = async {
            let mut links = self.links.clone();
            let link = match links.wait_for(Option::is_some).await {
                Ok(link) => link.clone().ok_or(RequestError::Ended)?,
                Err(_) => return Err(RequestError::Ended),
            };
            link.post(path, None, body).await
        };
        timeout(self.limit, work)
            .await
            .unwrap_or_else(|_| Err(RequestError::Timeout { path: path.to_owned(), limit: self.limit }))
    }
}

/// Makes a connection for requests alone. Beside them the second part is to be polled; it ends with the connection.
///
/// # Errors
/// [`RequestError`].
pub async fn dial<C: Connector>(
    connector: &C,
    token: Option<TokenFile>,
) -> Result<(Requests, impl Future<Output = ()> + Send + use<C>), RequestError> {
    let opened = async {
        let io = connector.connect().await?;
        Ok::<_, RequestError>(handshake(io).await?)
    };
    let limit = REQUEST_TIMEOUT;
    let late = || RequestError::Timeout { path: connector.authority().to_owned(), limit };
    let (send, connection) = timeout(limit, opened).await.unwrap_or_else(|_| Err(late()))?;
    let requests = Requests::fixed(Link::new(send, connector, token), limit);
    Ok((requests, async move { drop(connection.await) }))
}

/// Makes a connection for one request, as for joining, before there is an identity to keep a feed with.
/// `bearer` goes into the authorization header.
///
/// # Errors
/// [`RequestError`].
pub async fn post_once<C: Connector, T: Serialize, U: DeserializeOwned>(
    connector: &C,
    path: &str,
    bearer: Option<&str>,
    body: &T,
) -> Result<U, RequestError> {
    let work = async {
        let io = connector.connect().await?;
        let (send, mut connection) = handshake(io).await?;
        let link = Link::new(send, connector, None);
        tokio::select! {
            answer = link.post(path, bearer, body) => answer,
            ended = poll_fn(|cx| std::pin::Pin::new(&mut connection).poll(cx)) => {
                Err(ended.err().map_or(RequestError::Ended, RequestError::Connection))
            }
        }
    };
    timeout(REQUEST_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(RequestError::Timeout { path: path.to_owned(), limit: REQUEST_TIMEOUT }))
}

/// HTTP/2 as both kinds of connection use it.
pub(crate) async fn handshake<I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    io: I,
) -> Result<(SendRequest<Bytes>, h2::client::Connection<I, Bytes>), h2::Error> {
    h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .enable_push(false)
        .max_header_list_size(16 << 10)
        .handshake(io)
        .await
}
