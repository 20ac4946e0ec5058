//! The answer to a question, as a function of the zone. The server around it only carries bytes.
//!
//! | asked | answer |
//! |---|---|
//! | a global name | A, AAAA; of a headless service with named pods: theirs |
//! | `_<port>._tcp.<name>` | SRV, with the addresses of the target |
//! | a service of the cluster set, SRV | the same for all its ports, as CoreDNS has it |
//! | `dns-version.clusterset.local` TXT | the version of the DNS schema of KEP-1645 |
//! | `<address>.in-addr.arpa`, `….ip6.arpa` of a virtual address | PTR; each such name is a zone of its own, so that addresses around it stay another server's |
//! | a domain | SOA, NS |
//! | `ns.dns.tombolo.<domain>` | this server's addresses |
//! | `_tombolo.<domain>` TXT | software, cluster and generation |
//! | `version.bind`, `version.server` TXT, class CH | software |
//! | ANY at a name that exists | HINFO (RFC 8482) |
//! | another type at a name that exists | NODATA: no error, no answer, the SOA |
//! | a name in one of the domains that does not exist | NXDOMAIN and the SOA |
//! | anything else | [`Answer::Elsewhere`] |

use super::{
    explain::{Explanation, Why},
    zone::{Entry, Node, Zone},
};
use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, HINFO, NS, PTR, SOA, SRV, TXT},
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tombolo_model::{Domain, inventory::Protocol};

/// What a server says beside its zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an answer may be kept, in seconds.
    pub ttl_s: u32,
    /// How long "there is no such name" may be kept, in seconds.
    pub negative_ttl_s: u32,
    /// Program and version, as `tombolo-agent/0.1.0`.
    pub software: String,
    /// The addresses at which clients reach this server, for its NS records.
    pub addresses: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        let software = concat!("tombolo-agent/", env!("CARGO_PKG_VERSION")).to_owned();
        Self { ttl_s: 5, negative_ttl_s: 5, software, addresses: Vec::new() }
    }
}

/// How long the version of the schema may be kept, as the KEP has it.
const SCHEMA_TTL_S: u32 = 28_800;

/// What to do with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Say this.
    Ours(Reply),
    /// The name is none of ours: forward it, or refuse it.
    Elsewhere,
}

/// The parts of a response that depend on the question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// How it went.
    pub code: ResponseCode,
    /// Whether this server is the authority for the name.
    pub authoritative: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authorities: Vec<Record>,
    /// The additional section; the first to go where there is no room.
    pub additionals: Vec<Record>,
    /// What to tell people beside the code.
    pub explanation: Option<Explanation>,
}

impl Reply {
    /// A reply without records, explained.
    #[must_use]
    pub fn error(code: ResponseCode, explanation: Explanation) -> Self {
        Self { code, explanation: Some(explanation), ..Self::default() }
    }
}

/// Answers `question` from `zone`. Equal arguments give equal answers.
#[must_use]
pub fn resolve(zone: &Zone, question: &Query, settings: &Settings) -> Answer {
    let (kind, class) = (question.query_type(), question.query_class());
    let key = key(question.name());
    if class == DNSClass::CH && kind == RecordType::TXT && matches!(&*key, "version.bind" | "version.server")
    {
        let mut record = Record::from_rdata(question.name().clone(), 0, text(&[&settings.software]));
        record.dns_class = DNSClass::CH;
        return Answer::Ours(Reply { authoritative: true, answers: vec![record], ..Reply::default() });
    }
    if class != DNSClass::IN {
        let text = format!("class {class} is not served; ask in class IN");
        return Answer::Ours(Reply::error(ResponseCode::Refused, Explanation::new(Why::NotSupported, text)));
    }
    match kind {
        RecordType::AXFR | RecordType::IXFR => {
            let text = "zone transfers are not offered; names come from the controller's API";
            return Answer::Ours(Reply::error(
                ResponseCode::Refused,
                Explanation::new(Why::Prohibited, text),
            ));
        }
        RecordType::OPT | RecordType::TSIG | RecordType::ZERO => {
            let text = format!("type {kind} can't be asked for");
            return Answer::Ours(Reply::error(ResponseCode::FormErr, Explanation::new(Why::Other, text)));
        }
        _ => {}
    }
    let ask = Ask { zone, settings, name: question.name(), kind };
    if let Some(domain) = zone.domain_of(&key) {
        return Answer::Ours(ask.in_domain(&key, domain.as_str()));
    }
    if let Some((owner, below)) = reverse(&key)
        && zone.names_of(owner).next().is_some()
    {
        return Answer::Ours(ask.reverse(owner, below));
    }
    Answer::Elsewhere
}

struct Ask<'a> {
    zone: &'a Zone,
    settings: &'a Settings,
    /// As asked, so that the case of its letters comes back.
    name: &'a Name,
    kind: RecordType,
}

impl Ask<'_> {
    fn in_domain(&self, key: &str, domain: &str) -> Reply {
        let apex = wire_name(domain);
        let below = key.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
        let Some(below) = below else { return self.apex(&apex) };
        match self.zone.node(key) {
            Some(Node::Name(entry)) => return self.addresses(key, entry, &apex),
            Some(Node::Parent) => return self.negative(ResponseCode::NoError, &apex),
            None => {}
        }
        match below {
            "_tombolo" => return self.version(&apex),
            "dns-version" if domain == Domain::cluster_set().as_str() => return self.schema(&apex),
            NAMESERVER => {
                let addresses = self.settings.addresses.iter();
                return self.found(addresses.filter_map(|ip| self.address(*ip)).collect(), &apex);
            }
            "dns.tombolo" | "tombolo" => return self.negative(ResponseCode::NoError, &apex),
            _ => {}
        }
        self.service(key, &apex).unwrap_or_else(|| self.negative(ResponseCode::NXDomain, &apex))
    }

    fn apex(&self, apex: &Name) -> Reply {
        match self.kind {
            RecordType::SOA => self.found(vec![self.soa(apex, self.settings.ttl_s)], apex),
            RecordType::NS => {
                let server = nameserver(apex);
                let mut reply = self.found(vec![self.record(RData::NS(NS(server.clone())))], apex);
                for ip in &self.settings.addresses {
                    reply.additionals.push(Record::from_rdata(
                        server.clone(),
                        self.settings.ttl_s,
                        rdata(*ip),
                    ));
                }
                reply
            }
            _ => self.found(Vec::new(), apex),
        }
    }

    fn version(&self, apex: &Name) -> Reply {
        if self.kind != RecordType::TXT {
            return self.found(Vec::new(), apex);
        }
        let mut parts = vec![format!("software={}", self.settings.software)];
        parts.extend(self.zone.cluster().map(|cluster| format!("cluster={cluster}")));
        parts.push(format!("generation={}", self.zone.generation()));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.found(vec![self.record(text(&parts))], apex)
    }

    fn schema(&self, apex: &Name) -> Reply {
        let answers = match self.kind {
            RecordType::TXT => vec![Record::from_rdata(self.name.clone(), SCHEMA_TTL_S, text(&["1.0.0"]))],
            _ => Vec::new(),
        };
        self.found(answers, apex)
    }

    fn addresses(&self, key: &str, entry: &Entry, apex: &Name) -> Reply {
        if entry.in_set && self.kind == RecordType::SRV {
            // A number that stands for two transports is one record.
            let ports: BTreeSet<u16> = entry.ports.iter().map(|port| port.port).collect();
            return match ports.is_empty() {
                true => self.negative(ResponseCode::NoError, apex),
                false => self.targets(key, entry, &ports.into_iter().collect::<Vec<_>>()),
            };
        }
        let records = self.entries(entry).flat_map(addresses_of).filter_map(|ip| self.address(ip)).collect();
        let mut reply = self.found(records, apex);
        if reply.answers.is_empty() && self.kind == RecordType::A {
            reply.explanation = entry.unmapped.clone().map(|text| Explanation::new(Why::Other, text));
        }
        reply
    }

    /// The entries whose addresses are the addresses of `entry`.
    fn entries<'e>(&'e self, entry: &'e Entry) -> impl Iterator<Item = &'e Entry> + 'e {
        let pods = entry.pods.iter().filter_map(|pod| self.zone.entry(pod.as_str()));
        pods.chain(entry.pods.is_empty().then_some(entry))
    }

    /// `_<port>._<protocol>.<name>`, and `_<protocol>.<name>` above it. None where there is no such thing.
    fn service(&self, key: &str, apex: &Name) -> Option<Reply> {
        let (first, rest) = key.split_once('.')?;
        // A port may be called like a transport; then there is one more label.
        if let (Some(protocol), Some(entry)) = (protocol(first), self.zone.entry(rest)) {
            let any = entry.ports.iter().any(|port| port.protocol == protocol);
            return any.then(|| self.negative(ResponseCode::NoError, apex));
        }
        let (second, base) = rest.split_once('.')?;
        let entry = self.zone.entry(base)?;
        let ports: Vec<u16> = entry.ports_of(first.strip_prefix('_')?, protocol(second)?).collect();
        if ports.is_empty() {
            return None;
        }
        if self.kind != RecordType::SRV {
            return Some(self.found(Vec::new(), apex));
        }
        Some(self.targets(base, entry, &ports))
    }

    /// These ports of a name, at each of its targets.
    fn targets(&self, base: &str, entry: &Entry, ports: &[u16]) -> Reply {
        let own = entry.pods.is_empty().then_some(base);
        let targets: Vec<&str> = entry.pods.iter().map(|pod| pod.as_str()).chain(own).collect();
        let mut reply = Reply { authoritative: true, ..Reply::default() };
        for target in targets {
            let name = wire_name(target);
            for port in ports {
                reply.answers.push(self.record(RData::SRV(SRV::new(0, 1, *port, name.clone()))));
            }
            for ip in self.zone.entry(target).into_iter().flat_map(addresses_of) {
                reply.additionals.push(Record::from_rdata(name.clone(), self.settings.ttl_s, rdata(ip)));
            }
        }
        reply
    }

    fn reverse(&self, address: IpAddr, below: bool) -> Reply {
        let apex = Name::from(address);
        if below {
            return self.negative(ResponseCode::NXDomain, &apex);
        }
        let records = match self.kind {
            RecordType::PTR => {
                let names = self.zone.names_of(address);
                names.map(|name| self.record(RData::PTR(PTR(wire_name(name.as_str()))))).collect()
            }
            RecordType::SOA => vec![self.soa(&apex, self.settings.ttl_s)],
            _ => Vec::new(),
        };
        self.found(records, &apex)
    }

    fn address(&self, ip: IpAddr) -> Option<Record> {
        let data = rdata(ip);
        (data.record_type() == self.kind).then(|| self.record(data))
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), self.settings.ttl_s, data)
    }

    /// These records; where there are none, that the name has none of this type.
    fn found(&self, answers: Vec<Record>, apex: &Name) -> Reply {
        if self.kind == RecordType::ANY {
            let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            return Reply { authoritative: true, answers: vec![self.record(data)], ..Reply::default() };
        }
        if answers.is_empty() {
            return self.negative(ResponseCode::NoError, apex);
        }
        Reply { authoritative: true, answers, ..Reply::default() }
    }

    fn negative(&self, code: ResponseCode, apex: &Name) -> Reply {
        let soa = self.soa(apex, self.settings.negative_ttl_s.min(self.settings.ttl_s));
        let explanation = (code == ResponseCode::NXDomain).then(|| {
            let text = if *apex == wire_name(Domain::cluster_set().as_str()) {
                "no service of this name is exported to the cluster set, or it is headless and has no ready pod; \
                 `kubectl get serviceimports` shows what there is"
            } else {
                "no service of this name in the global namespace; `tombolo service list` shows what there is"
            };
            Explanation::new(Why::Other, text)
        });
        Reply { code, authoritative: true, authorities: vec![soa], explanation, ..Reply::default() }
    }

    fn soa(&self, apex: &Name, ttl_s: u32) -> Record {
        // The serial is the generation, wrapped: serials compare in a circle (RFC 1982).
        let serial = (self.zone.generation().get() & u64::from(u32::MAX)) as u32;
        let mailbox = apex.prepend_label("hostmaster").unwrap_or_else(|_| apex.clone());
        let soa =
            SOA::new(nameserver(apex), mailbox, serial, 7200, 1800, 86400, self.settings.negative_ttl_s);
        Record::from_rdata(apex.clone(), ttl_s, RData::SOA(soa))
    }
}

/// Where this server's own addresses stand, below each domain. Three labels, so that no service, pod or cluster
/// can have the name.
const NAMESERVER: &str = "ns.dns.tombolo";

fn nameserver(apex: &Name) -> Name {
    let labels = NAMESERVER.rsplit('.');
    // A domain with no room for three more labels is its own server's name.
    labels
        .into_iter()
        .try_fold(apex.clone(), |name, label| name.prepend_label(label))
        .unwrap_or_else(|_| apex.clone())
}

fn addresses_of(entry: &Entry) -> impl Iterator<Item = IpAddr> {
    entry.v4.map(IpAddr::V4).into_iter().chain(entry.v6.map(IpAddr::V6))
}

fn rdata(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

fn text(parts: &[&str]) -> RData {
    // A string of a TXT record holds 255 bytes.
    RData::TXT(TXT::from_bytes(parts.iter().map(|part| &part.as_bytes()[..part.len().min(255)]).collect()))
}

fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A validated name on the wire. Such names always fit.
fn wire_name(name: &str) -> Name {
    let labels = name.split('.').map(str::as_bytes);
    Name::from_labels(labels)
        .map(|mut name| {
            name.set_fqdn(true);
            name
        })
        .unwrap_or_default()
}

/// The name as zones have it: lower case, no dot at the end. A label that none of our names can have becomes `?`,
/// so that it is never taken for two labels.
fn key(name: &Name) -> String {
    let mut key = String::with_capacity(name.len());
    for label in name.iter() {
        if !key.is_empty() {
            key.push('.');
        }
        if label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            key.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        } else {
            key.push('?');
        }
    }
    key
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` is, and whether the name lies below it.
fn reverse(key: &str) -> Option<(IpAddr, bool)> {
    if let Some(rest) = key.strip_suffix(".in-addr.arpa") {
        let mut labels = rest.rsplit('.');
        let mut octets = [0; 4];
        for octet in &mut octets {
            let label = labels.next()?;
            *octet = label.parse().ok().filter(|n: &u8| n.to_string() == label)?;
        }
        return Some((Ipv4Addr::from(octets).into(), labels.next().is_some()));
    }
    let mut labels = key.strip_suffix(".ip6.arpa")?.rsplit('.');
    let mut address = 0;
    for _ in 0..32 {
        let digit = labels.next().filter(|label| label.len() == 1)?;
        address = address << 4 | u128::from_str_radix(digit, 16).ok()?;
    }
    Some((Ipv6Addr::from(address).into(), labels.next().is_some()))
}
