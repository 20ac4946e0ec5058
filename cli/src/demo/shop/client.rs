//! Calls of one service to another: a name, a connection, a request. Each failure says how far it came.

use super::{Config, Role, Target, http::SERVED_BY};
use bytes::Bytes;
use futures::future::{Either, select};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_BYTES: usize = 1024 * 1024;

/// The other services, as one of them sees them.
#[derive(Clone, Debug)]
pub(super) struct Client {
    peers: BTreeMap<Role, Target>,
    resolver: Option<(SocketAddr, Arc<TokioResolver>)>,
}

/// What came back, and from where.
#[derive(Clone, Debug)]
pub(super) struct Served<T> {
    pub(super) value: T,
    /// The cluster that the other service says it runs in.
    pub(super) cluster: String,
    /// The address that was called.
    pub(super) address: SocketAddr,
    pub(super) took: Duration,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("nobody said where {0} is")]
    Unknown(Role),
    #[error("the name {name} does not exist, says the DNS server {server}")]
    NoSuchName { name: String, server: String },
    #[error("the name {name} has no address, says the DNS server {server}")]
    NoAddress { name: String, server: String },
    #[error("the DNS server {server} does not answer for {name}: {reason}")]
    Dns { name: String, server: String, reason: String },
    #[error("{address} does not accept connections: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address} closed the connection before it answered: {source}")]
    Broken { address: SocketAddr, source: hyper::Error },
    #[error("{address} answered {status}: {message}")]
    Status { address: SocketAddr, status: StatusCode, message: String },
    #[error("{address} answered what can't be read: {reason}")]
    Unreadable { address: SocketAddr, reason: String },
    #[error("no answer from {target} within {} s", CALL_TIMEOUT.as_secs())]
    Timeout { target: Target },
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, NetError> {
        let resolver = config.resolver.map(|server| Ok::<_, NetError>((server, Arc::new(resolver(server)?))));
        Ok(Self { peers: config.peers.clone(), resolver: resolver.transpose()? })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        to: Role,
        path: &str,
    ) -> Result<Served<T>, CallError> {
        self.call(to, Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        to: Role,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Served<T>, CallError> {
        // Our own types always have a form in JSON.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.call(to, Method::POST, path, body.into()).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(
        &self,
        to: Role,
        path: &str,
    ) -> Result<Served<T>, CallError> {
        self.call(to, Method::DELETE, path, Bytes::new()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        to: Role,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Served<T>, CallError> {
        let target = self.peers.get(&to).ok_or(CallError::Unknown(to))?;
        let start = Instant::now();
        let result = timeout(CALL_TIMEOUT, self.exchange(target, method, path, body)).await;
        let result = result.unwrap_or_else(|_| Err(CallError::Timeout { target: target.clone() }));
        let took = start.elapsed();
        match &result {
            Ok((address, ..)) => {
                tracing::debug!(peer.service = to.as_str(), peer.address = %address, "called")
            }
            Err(error) => {
                tracing::warn!(peer.service = to.as_str(), peer.target = %target, %error, "a call failed")
            }
        }
        let (address, cluster, value) = result?;
        Ok(Served { value, cluster, address, took })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        target: &Target,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(SocketAddr, String, T), CallError> {
        let (address, stream) = self.connect(target).await?;
        let broken = |source| CallError::Broken { address, source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let unreadable = |reason: String| CallError::Unreadable { address, reason };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, target.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| unreadable(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES).collect().await;
            Ok((head, body.map_err(|error| unreadable(error.to_string()))?.to_bytes()))
        };
        // The connection moves only while it is polled, and ends with the exchange.
        let (head, body) = match select(pin!(answer), pin!(connection)).await {
            Either::Left((answer, _)) => answer?,
            Either::Right((_, answer)) => answer.await?,
        };
        let cluster =
            head.headers.get(SERVED_BY).and_then(|value| value.to_str().ok()).unwrap_or("unknown").to_owned();
        if !head.status.is_success() {
            let message = message(&body);
            return Err(CallError::Status { address, status: head.status, message });
        }
        let value = serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
        Ok((address, cluster, value))
    }

    /// The first address of the name that accepts a connection.
    async fn connect(&self, target: &Target) -> Result<(SocketAddr, TcpStream), CallError> {
        let mut failed = None;
        for ip in self.resolve(&target.host).await? {
            let address = SocketAddr::new(ip, target.port);
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((address, stream)),
                Err(source) => failed = Some(CallError::Connect { address, source }),
            }
        }
        Err(failed
            .unwrap_or_else(|| CallError::NoAddress { name: target.host.clone(), server: self.server() }))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, CallError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let (name, server) = (host.to_owned(), self.server());
        let Some((_, resolver)) = &self.resolver else {
            return match tokio::net::lookup_host((host, 0)).await {
                Ok(found) => Ok(found.map(|address| address.ip()).collect()),
                Err(error) => Err(CallError::Dns { name, server, reason: error.to_string() }),
            };
        };
        match resolver.lookup_ip(format!("{host}.")).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_nx_domain() => Err(CallError::NoSuchName { name, server }),
            Err(error) if error.is_no_records_found() => Err(CallError::NoAddress { name, server }),
            Err(error) => Err(CallError::Dns { name, server, reason: error.to_string() }),
        }
    }

    fn server(&self) -> String {
        self.resolver.as_ref().map_or_else(|| "of this system".to_owned(), |(server, _)| server.to_string())
    }
}

fn resolver(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut name_server.connections {
        connection.port = server.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = RESOLVE_TIMEOUT;
    options.attempts = 2;
    // The page shows a change of DNS at once.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build()
}

/// What an error's body says, as far as it is worth showing.
fn message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|json| json["error"].as_str()).map(str::to_owned);
    text.unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect())
}
