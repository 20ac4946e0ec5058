//! The heads of a tunnel's streams: the CONNECT request and its answer. Pure; everything that came from a peer is
//! checked here.

use crate::{error::Refusal, reason::Reason, trace::Trace};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::AsHeaderName};
use std::net::SocketAddr;
use tombolo_model::{ClusterName, GatewayRole, GlobalName, SpiffeId, SpiffePath};
use tombolo_wire::version::ProtocolVersion;

#[cfg(test)]
mod tests;

const EGRESS: SpiffePath = SpiffePath::Gateway(GatewayRole::Egress);
const PROTOCOL: HeaderName = HeaderName::from_static("tombolo-protocol");
const SOURCE: HeaderName = HeaderName::from_static("tombolo-source");
const SERVICE: HeaderName = HeaderName::from_static("tombolo-service");
const INNER: HeaderName = HeaderName::from_static("tombolo-inner");
const CLUSTER: HeaderName = HeaderName::from_static("tombolo-cluster");
const REASON: HeaderName = HeaderName::from_static("tombolo-reason");
const HOP: HeaderName = HeaderName::from_static("tombolo-hop");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Whether the workloads' own TLS session runs inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// The caller's side can do it (request).
    Offered,
    /// It is done (answer; and the request to the sidecar before the endpoint).
    Accepted,
    /// It is not.
    None,
}

/// What a stream is to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A service by name.
    Service(GlobalName, u16),
    /// An endpoint by address, as an endpoint of a service: only towards its own sidecar.
    Endpoint(SocketAddr, GlobalName, u16),
}

/// A request for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// To what.
    pub destination: Destination,
    /// On whose behalf, as the hop before says. A sidecar's word for it is its certificate, not this.
    pub source: Option<SpiffeId>,
    /// The trace.
    pub trace: Trace,
    /// Whether TLS runs, or may run, inside.
    pub inner: Inner,
}

impl Connect {
    /// The request on the wire.
    ///
    /// # Errors
    /// None in practice: names and addresses are valid authorities.
    pub fn request(&self) -> Result<Request<()>, http::Error> {
        let authority = match &self.destination {
            Destination::Service(name, port) => format!("{name}:{port}"),
            Destination::Endpoint(address, ..) => address.to_string(),
        };
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .header(PROTOCOL, ProtocolVersion::CURRENT.to_string())
            .header(TRACE, self.trace.header());
        if let Destination::Endpoint(_, name, port) = &self.destination {
            request = request.header(SERVICE, format!("{name}:{port}"));
        }
        if let Some(source) = &self.source {
            request = request.header(SOURCE, source.to_string());
        }
        match self.inner {
            Inner::Offered => request = request.header(INNER, "offer"),
            Inner::Accepted => request = request.header(INNER, "accept"),
            Inner::None => {}
        }
        request.body(())
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] or [`Reason::UnsupportedVersion`], with the part that is wrong.
    pub fn parse<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let bad = |what: &str| Refusal::new(Reason::BadRequest, what);
        if request.method() != Method::CONNECT {
            return Err(bad("the method is not CONNECT"));
        }
        let headers = request.headers();
        let version = one(headers, &PROTOCOL)?.ok_or_else(|| bad("there is no tombolo-protocol header"))?;
        let version = parse_version(version).ok_or_else(|| bad("tombolo-protocol is not <major>.<minor>"))?;
        if !version.meets(ProtocolVersion::CURRENT) {
            let own = ProtocolVersion::CURRENT;
            let detail = format!("the peer speaks {version}, this gateway {own}; upgrade the older one");
            return Err(Refusal::new(Reason::UnsupportedVersion, detail));
        }
        let uri = request.uri();
        let authority = uri.authority().ok_or_else(|| bad("there is no authority"))?;
        if uri.scheme().is_some() || uri.path_and_query().is_some_and(|path| !path.as_str().is_empty()) {
            return Err(bad("the target is not an authority alone"));
        }
        let destination = match one(headers, &SERVICE)? {
            Some(service) => {
                let address = authority.as_str().parse().map_err(|_| bad("the authority is not ip:port"))?;
                let (name, port) =
                    parse_service(service).ok_or_else(|| bad("tombolo-service is not <name>:<port>"))?;
                Destination::Endpoint(address, name, port)
            }
            None => {
                let (name, port) = parse_service(authority.as_str())
                    .ok_or_else(|| bad("the authority is not <global name>:<port>"))?;
                Destination::Service(name, port)
            }
        };
        let source = match one(headers, &SOURCE)? {
            None => None,
            Some(text) => match text.parse::<SpiffeId>() {
                // An egress gateway speaks as itself for callers that nobody can name.
                Ok(id) if matches!(id.path, SpiffePath::Workload { .. } | EGRESS) => Some(id),
                _ => {
                    return Err(bad(
                        "tombolo-source is the identity of no workload and of no egress gateway",
                    ));
                }
            },
        };
        let inner = match one(headers, &INNER)? {
            None => Inner::None,
            Some("offer") => Inner::Offered,
            Some("accept") => Inner::Accepted,
            Some(_) => return Err(bad("tombolo-inner is neither offer nor accept")),
        };
        if inner != Inner::None && source.as_ref().is_some_and(|id| id.path == EGRESS) {
            return Err(bad("a caller that nobody can name has no session of its own"));
        }
        // A trace that is no trace is no reason to refuse; it gets a new one.
        let trace = one(headers, &TRACE).ok().flatten().and_then(Trace::parse).unwrap_or_else(Trace::fresh);
        Ok(Self { destination, source, trace, inner })
    }
}

/// The answer to a request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The cluster that serves.
    pub cluster: ClusterName,
    /// Whether the picked endpoint takes the caller's TLS session.
    pub inner: bool,
}

impl Answer {
    /// The answer on the wire.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        if let Ok(cluster) = HeaderValue::from_str(self.cluster.as_str()) {
            headers.insert(CLUSTER, cluster);
        }
        if self.inner {
            headers.insert(INNER, HeaderValue::from_static("accept"));
        }
        response
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// The refusal that it carries, with its hop; [`Reason::PeerUnreachable`] where it is none of ours.
    pub fn parse<B>(response: &Response<B>) -> Result<Self, Refusal> {
        let headers = response.headers();
        let foreign = |what: &str| {
            Refusal::new(Reason::PeerUnreachable, format!("the answer {} {what}", response.status()))
        };
        if response.status() == StatusCode::OK {
            let cluster = one(headers, &CLUSTER)
                .ok()
                .flatten()
                .and_then(|text| ClusterName::parse(text).ok())
                .ok_or_else(|| foreign("names no cluster"))?;
            let inner = one(headers, &INNER).ok().flatten() == Some("accept");
            return Ok(Self { cluster, inner });
        }
        let reason = one(headers, &REASON)
            .ok()
            .flatten()
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| foreign("has no reason that this version knows"))?;
        let hop = one(headers, &HOP).ok().flatten().filter(|hop| is_hop(hop)).map(str::to_owned);
        Err(Refusal {
            reason,
            hop,
            detail: "refused by a hop further on; its access log says more".to_owned(),
        })
    }
}

/// The answer to a request that was refused; `own` names this hop, for where no hop further on did.
#[must_use]
pub fn refused(refusal: &Refusal, own: &str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = refusal.reason.status();
    let headers = response.headers_mut();
    headers.insert(REASON, HeaderValue::from_static(refusal.reason.as_str()));
    if let Ok(hop) = HeaderValue::from_str(refusal.hop.as_deref().unwrap_or(own)) {
        headers.insert(HOP, hop);
    }
    response
}

/// The one value of a header. Two of them could be read differently by two hops.
fn one<K: AsHeaderName + AsRef<str>>(headers: &HeaderMap, name: K) -> Result<Option<&str>, Refusal> {
    let label = name.as_ref().to_owned();
    let bad = |what: &str| Refusal::new(Reason::BadRequest, format!("the header {label} {what}"));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("stands twice"));
    }
    value.to_str().map(Some).map_err(|_| bad("is not ASCII"))
}

fn parse_service(text: &str) -> Option<(GlobalName, u16)> {
    let (name, port) = text.rsplit_once(':')?;
    // Only the one spelling: what is logged is what was sent.
    let parsed = GlobalName::parse(name).ok().filter(|parsed| parsed.as_str() == name)?;
    Some((parsed, port.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == port)?))
}

fn parse_version(text: &str) -> Option<ProtocolVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ProtocolVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn is_hop(text: &str) -> bool {
    text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'@' || b == b'-')
}
