//! What the DNS server counts. Label values come from enums, never from what clients send.

use super::{message::Ignored, respond::Source};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use std::time::Duration;
use tombolo_runtime::metrics::Metrics as Registry;

/// The metrics of a DNS server. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    queries: Family<Answered, Counter>,
    ignored: Family<Dropped, Counter>,
    forward_seconds: Histogram,
    connections: Gauge,
    connections_refused: Counter,
    panics: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    qtype: Kind,
    code: Code,
    source: From,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: Reason,
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($value:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
        #[expect(clippy::upper_case_acronyms, reason = "as DNS writes them")]
        enum $name { $($value),+ }
    };
}

labels!(
    /// The type asked for.
    Kind { A, AAAA, SRV, TXT, PTR, SOA, NS, HTTPS, ANY, OTHER, NONE }
);
labels!(
    /// The code of the response.
    Code { NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS, OTHER }
);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "label values are written as they stand here")]
enum From {
    zone,
    forward,
    refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "label values are written as they stand here")]
enum Reason {
    short,
    response,
}

impl Metrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let this = Self {
            queries: Family::default(),
            ignored: Family::default(),
            forward_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            panics: Counter::default(),
        };
        let name = |what: &str| format!("dns_{what}");
        registry.register(
            &name("queries"),
            "Queries answered, by type, code and source",
            this.queries.clone(),
        );
        registry.register(
            &name("packets_ignored"),
            "Packets that got no answer: too short for one, or responses",
            this.ignored.clone(),
        );
        registry.register(
            &name("forward_seconds"),
            "Time until the server for other names answered or failed",
            this.forward_seconds.clone(),
        );
        registry.register(&name("tcp_connections"), "Open TCP connections", this.connections.clone());
        registry.register(
            &name("tcp_connections_refused"),
            "TCP connections closed at once, or for somebody who has fewer, as there were too many",
            this.connections_refused.clone(),
        );
        registry.register(
            &name("panics"),
            "Packets whose handling broke off by a programming error",
            this.panics.clone(),
        );
        this
    }

    pub(super) fn answered(&self, kind: Option<RecordType>, code: ResponseCode, source: Source) {
        let kind = match kind {
            None => Kind::NONE,
            Some(RecordType::A) => Kind::A,
            Some(RecordType::AAAA) => Kind::AAAA,
            Some(RecordType::SRV) => Kind::SRV,
            Some(RecordType::TXT) => Kind::TXT,
            Some(RecordType::PTR) => Kind::PTR,
            Some(RecordType::SOA) => Kind::SOA,
            Some(RecordType::NS) => Kind::NS,
            Some(RecordType::HTTPS) => Kind::HTTPS,
            Some(RecordType::ANY) => Kind::ANY,
            Some(_) => Kind::OTHER,
        };
        let code = match code {
            ResponseCode::NoError => Code::NOERROR,
            ResponseCode::FormErr => Code::FORMERR,
            ResponseCode::ServFail => Code::SERVFAIL,
            ResponseCode::NXDomain => Code::NXDOMAIN,
            ResponseCode::NotImp => Code::NOTIMP,
            ResponseCode::Refused => Code::REFUSED,
            ResponseCode::BADVERS => Code::BADVERS,
            _ => Code::OTHER,
        };
        let source = match source {
            Source::Zone => From::zone,
            Source::Forward => From::forward,
            Source::Refused => From::refused,
        };
        self.queries.get_or_create(&Answered { qtype: kind, code, source }).inc();
    }

    pub(super) fn ignored(&self, why: Ignored) {
        let reason = match why {
            Ignored::Short => Reason::short,
            Ignored::Response => Reason::response,
        };
        self.ignored.get_or_create(&Dropped { reason }).inc();
    }

    pub(super) fn forwarded(&self, took: Duration) {
        self.forward_seconds.observe(took.as_secs_f64());
    }
    pub(super) fn connection_refused(&self) {
        self.connections_refused.inc();
    }
    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts a connection for as long as the value lives.
    pub(super) fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
