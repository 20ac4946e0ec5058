//! The client of the published API.

use crate::{
    config::Context,
    plain::plain,
    problem::{CliError, Problem},
};
use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tombolo_model::OrgName;
use tombolo_mtls::VerifyError;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Entries of a page: as many as the API gives.
const PAGE: usize = 200;

/// A connection to one controller with one token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    context: Context,
}

/// A body and its version.
#[derive(Debug)]
pub struct Versioned {
    /// The object.
    pub body: Value,
    /// Its ETag.
    pub etag: Option<String>,
}

impl Client {
    /// A client for this context. Nothing is sent yet.
    ///
    /// # Errors
    /// The fingerprint is not one, or the TLS client can't be made.
    pub fn new(context: &Context) -> Result<Self> {
        if !context.server.starts_with("https://") {
            let wrong = &context.server;
            return Err(CliError::Usage(format!(
                "the server {wrong:?} is no address of a controller; it looks like https://controller:8443"
            ))
            .into());
        }
        let mut builder = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(5))
            .https_only(true)
            .no_proxy()
            .user_agent(concat!("tombolo-cli/", env!("CARGO_PKG_VERSION")));
        if context.ca_fingerprint != "system" {
            let print = fingerprint(&context.ca_fingerprint)?;
            let tls = tombolo_mtls::pinned_client_config(print, None, &[b"h2", b"http/1.1"]);
            builder = builder.tls_backend_preconfigured((*tls).clone());
        }
        Ok(Self { http: builder.build().context("make the HTTPS client")?, context: context.clone() })
    }

    /// The same; where no organization was chosen, the token says of which it is.
    ///
    /// # Errors
    /// As [`Client::new`] and [`Client::get`].
    pub async fn connect(context: Context) -> Result<Self> {
        let mut client = Self::new(&context)?;
        if client.context.organization.is_none() {
            let me = client.get("/api/v1/whoami").await?.body;
            client.context.organization = me["organization"].as_str().and_then(|name| name.parse().ok());
        }
        Ok(client)
    }

    /// The server it speaks to.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.context.server
    }

    /// How it knows the server: the fingerprint, or `system`.
    #[must_use]
    pub fn ca_fingerprint(&self) -> &str {
        &self.context.ca_fingerprint
    }

    /// The organization to work in.
    ///
    /// # Errors
    /// None was chosen.
    pub fn organization(&self) -> Result<&OrgName> {
        self.context.organization.as_ref().ok_or_else(|| {
            CliError::Usage("no organization is known; choose one with --organization, or `tombolo login` with a token of it".into())
                .into()
        })
    }

    /// The path of something in the organization.
    ///
    /// # Errors
    /// No organization was chosen.
    pub fn in_org(&self, path: &str) -> Result<String> {
        Ok(format!("/api/v1/organizations/{}{path}", self.organization()?))
    }

    /// The path of something that both the organization and the installation have: that of the chosen organization, else
    /// of the installation.
    #[must_use]
    pub fn in_org_or(&self, path: &str, installation: &str) -> String {
        self.in_org(path).unwrap_or_else(|_| format!("/api/v1{installation}"))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, String)],
    ) -> Result<Versioned> {
        let (bytes, etag) = self.exchange(method, path, body, headers).await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            plain(serde_json::from_slice(&bytes).context("read the answer")?)
        };
        Ok(Versioned { body, etag })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, String)],
    ) -> Result<(bytes::Bytes, Option<String>)> {
        let url = format!("{}{path}", self.context.server.trim_end_matches('/'));
        let mut request = self.http.request(method, url).bearer_auth(&self.context.token);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |error: reqwest::Error| CliError::Unreachable {
            server: self.context.server.clone(),
            cause: causes(&error),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let etag = answer.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok((bytes, etag));
        }
        let said = serde_json::from_slice(&bytes).map(plain).and_then(serde_json::from_value);
        let mut problem: Problem = said.unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            problem.title = format!("the controller answered {status}");
        }
        if status == StatusCode::NOT_FOUND {
            problem.hint = hint(path);
        }
        Err(CliError::Refused(problem).into())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// The controller said no, or did not answer.
    pub async fn get(&self, path: &str) -> Result<Versioned> {
        self.send(Method::GET, path, None, &[]).await
    }

    /// Reads a text that is no JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn text(&self, path: &str) -> Result<String> {
        let bytes = self.exchange(Method::GET, path, None, &[]).await?.0;
        String::from_utf8(bytes.to_vec()).context("read the answer")
    }

    /// Reads an object; none is `None`.
    ///
    /// # Errors
    /// As [`Client::get`], but for 404.
    pub async fn find(&self, path: &str) -> Result<Option<Versioned>> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is(&error, StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        self.first(path, usize::MAX).await
    }

    /// Reads a list up to this many entries.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn first(&self, path: &str, most: usize) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let glue = if path.contains('?') { '&' } else { '?' };
            let limit = PAGE.min(most - items.len());
            let page = match &cursor {
                Some(cursor) => self.get(&format!("{path}{glue}limit={limit}&cursor={cursor}")).await?,
                None => self.get(&format!("{path}{glue}limit={limit}")).await?,
            };
            let Value::Object(mut body) = page.body else { anyhow::bail!("{path} is no list") };
            if let Some(Value::Array(more)) = body.remove("items") {
                items.extend(more);
            }
            match body.remove("next_cursor") {
                Some(Value::String(next)) if !next.is_empty() && items.len() < most => cursor = Some(next),
                _ => return Ok(items),
            }
        }
    }

    /// Makes something. A lost answer is asked for again once, with the same key, so that nothing is made twice.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value> {
        let key = [("idempotency-key", uuid::Uuid::new_v4().to_string())];
        let first = self.send(Method::POST, path, Some(body), &key).await;
        let answer = match first {
            Err(error) if matches!(error.downcast_ref(), Some(CliError::Unreachable { .. })) => {
                self.send(Method::POST, path, Some(body), &key).await
            }
            other => other,
        };
        answer.map(|versioned| versioned.body)
    }

    /// Replaces something, if it is still the version that was read.
    ///
    /// # Errors
    /// As [`Client::get`]; 412 where someone else changed it.
    pub async fn put(&self, path: &str, body: &Value, etag: Option<String>) -> Result<Value> {
        let headers: Vec<_> = etag.into_iter().map(|tag| ("if-match", tag)).collect();
        self.send(Method::PUT, path, Some(body), &headers).await.map(|v| v.body)
    }

    /// Changes fields of something, if it is still the version that was read.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn patch(&self, path: &str, body: &Value, etag: Option<String>) -> Result<Value> {
        let headers: Vec<_> = etag.into_iter().map(|tag| ("if-match", tag)).collect();
        self.send(Method::PATCH, path, Some(body), &headers).await.map(|v| v.body)
    }

    /// Removes something, if it is still the version that was read.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete(&self, path: &str, etag: Option<String>) -> Result<()> {
        let headers: Vec<_> = etag.into_iter().map(|tag| ("if-match", tag)).collect();
        self.send(Method::DELETE, path, None, &headers).await.map(|_| ())
    }
}

/// The answer as a type.
///
/// # Errors
/// It has another shape: the controller is of another version.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone())
        .context("the controller's answer has another shape; are both of one version?")
}

/// Whether the controller refused with this status.
#[must_use]
pub fn is(error: &anyhow::Error, status: StatusCode) -> bool {
    matches!(error.downcast_ref(), Some(CliError::Refused(problem)) if problem.status == status.as_u16())
}

/// Reads `sha256:<64 hex digits>`.
///
/// # Errors
/// It is something else.
pub fn fingerprint(text: &str) -> Result<[u8; 32]> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.parse::<tombolo_model::snapshot::CaFingerprint>().map(|print| *print.as_bytes()).map_err(|why| {
        CliError::Usage(format!("the CA fingerprint {why}; it looks like sha256:3f9a…")).into()
    })
}

/// Where to look for what there is, for who asked for what there is not.
fn hint(path: &str) -> Option<&'static str> {
    // /api/v1/organizations/{org}/{noun}/{name}
    let mut parts = path.split('?').next().unwrap_or(path).trim_start_matches("/api/v1/").split('/');
    let (_, org, noun, name) = (parts.next()?, parts.next()?, parts.next(), parts.next());
    match (noun, name) {
        (Some("clusters"), Some(_)) => Some("`tombolo cluster list` shows those that are"),
        (Some("global-namespaces"), Some(_)) => Some("`tombolo gns list` shows those that are"),
        (Some("services"), Some(_)) => Some("`tombolo service list --all` shows those that are"),
        (Some("tokens"), Some(_)) => Some("`tombolo token list` shows those that are, with their ids"),
        _ if !org.is_empty() => Some("is the organization (--organization) the token's own?"),
        _ => None,
    }
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        text = VerifyError::within(error).map_or_else(|| error.to_string(), |said| said.to_string());
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
