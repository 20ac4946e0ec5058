//! Messages: bytes to a question, and a reply to bytes. Nothing that comes in makes it fail: what is no query
//! is dropped or gets an error.

use super::{
    answer::Reply,
    explain::Explanation,
    trail::{self, Trail},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::Record,
};

/// The bytes of a header.
pub(super) const HEADER: usize = 12;
/// The most that a response over TCP may have.
const TCP_LIMIT: usize = 65_535;
/// What a client without EDNS takes over UDP, and the least that one with EDNS must take.
const CLASSIC_LIMIT: usize = 512;
/// What this server takes and sends over UDP: passes every network unfragmented (DNS flag day 2020).
pub const UDP_PAYLOAD: u16 = 1232;

/// How a message came, and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// A well-formed question.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Id and flags.
    pub(super) metadata: Metadata,
    /// What is asked.
    pub(super) question: Query,
    /// How it came.
    pub(super) transport: Transport,
    /// The servers like this one that it passed.
    pub(super) trail: Trail,
    /// What the client says of itself, if it speaks EDNS.
    pub(super) edns: Option<ClientEdns>,
}

/// What of a client's EDNS counts for the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEdns {
    /// The longest datagram that it takes, in bytes.
    pub(super) payload: u16,
    /// Whether it wants DNSSEC records.
    pub(super) dnssec_ok: bool,
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// Shorter than a header.
    Short,
    /// A response. To answer one is how two servers talk for ever.
    Response,
}

/// What a packet is.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Nothing to answer.
    Ignored(Ignored),
    /// A query that can't be answered; these bytes say so.
    Refused(ResponseCode, Vec<u8>),
    /// A question.
    Question(Box<Request>),
}

/// Reads a packet.
#[must_use]
pub(super) fn read(packet: &[u8], transport: Transport) -> Incoming {
    let [id0, id1, flags, _, count0, count1, ..] = *packet else {
        return Incoming::Ignored(Ignored::Short);
    };
    if packet.len() < HEADER {
        return Incoming::Ignored(Ignored::Short);
    }
    if flags & 0x80 != 0 {
        return Incoming::Ignored(Ignored::Response);
    }
    // From here on it can be answered, if only with the header. RFC 9619: a query has one question.
    let opcode = OpCode::from_u8(flags >> 3 & 0xf);
    let refuse = |code| {
        let mut message = Message::error_msg(u16::from_be_bytes([id0, id1]), opcode, code);
        message.metadata.recursion_desired = flags & 1 != 0;
        Incoming::Refused(code, message.to_vec().unwrap_or_default())
    };
    let one = [count0, count1] == [0, 1];
    let Some(mut message) = one.then(|| Message::from_vec(packet).ok()).flatten() else {
        return refuse(if opcode == OpCode::Query { ResponseCode::FormErr } else { ResponseCode::NotImp });
    };
    let Some(question) = message.queries.pop() else { return refuse(ResponseCode::FormErr) };
    let edns = message
        .edns
        .as_ref()
        .map(|edns| ClientEdns { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok });
    let trail = message.edns.as_ref().map(trail::read).unwrap_or_default();
    let request = Request { metadata: message.metadata, question, transport, trail, edns };
    let code = match message.edns {
        Some(edns) if edns.version() != 0 => ResponseCode::BADVERS,
        _ if opcode != OpCode::Query => ResponseCode::NotImp,
        _ => return Incoming::Question(Box::new(request)),
    };
    let bytes = request.write(&Reply { code, ..Reply::default() }, false);
    Incoming::Refused(code, bytes)
}

impl Request {
    /// The most that the response may have, in bytes.
    #[must_use]
    pub(super) fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => TCP_LIMIT,
            (Transport::Udp, None) => CLASSIC_LIMIT,
            (Transport::Udp, Some(edns)) => usize::from(edns.payload.min(UDP_PAYLOAD)).max(CLASSIC_LIMIT),
        }
    }

    /// Writes a response within the client's limit. Additional records go first; where the answer itself has no
    /// room, as many of its records stay as fit (clients that know no TCP live on them) and TC is set.
    #[must_use]
    pub(super) fn write(&self, reply: &Reply, recursion: bool) -> Vec<u8> {
        let mut message = Message::new(self.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.response_code = reply.code;
        message.metadata.authoritative = reply.authoritative;
        message.metadata.recursion_available = recursion;
        message.add_query(self.question.clone());
        if let Some(client) = self.edns {
            message.set_edns(server_edns(client, reply.explanation.as_ref()));
        }
        let limit = self.limit();
        let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);

        message.answers.clone_from(&reply.answers);
        message.authorities.clone_from(&reply.authorities);
        message.additionals.clone_from(&reply.additionals);
        if let Some(bytes) = fits(&message) {
            return bytes;
        }
        message.additionals.clear();
        if let Some(bytes) = fits(&message) {
            return bytes;
        }
        message.metadata.truncation = true;
        message.authorities.clear();
        let (mut best, mut low, mut high) = (Vec::new(), 0, reply.answers.len());
        while low <= high {
            let middle = low.midpoint(high);
            message.answers = reply.answers[..middle].to_vec();
            match (fits(&message), middle) {
                (Some(bytes), _) => (best, low) = (bytes, middle + 1),
                (None, 0) => break,
                (None, _) => high = middle - 1,
            }
        }
        best
    }

    /// Writes that the question failed, and why.
    #[must_use]
    pub(super) fn fail(&self, code: ResponseCode, explanation: Explanation) -> Vec<u8> {
        self.write(&Reply::error(code, explanation), true)
    }

    /// The OPT record of a forwarded response: ours, as EDNS speaks from hop to hop (RFC 6891, section 6.1.1).
    /// None where the client speaks no EDNS.
    #[must_use]
    pub(super) fn forwarded_opt(&self, code_high: u8, options: &[Vec<u8>]) -> Option<Vec<u8>> {
        let client = self.edns?;
        let mut edns = server_edns(client, None);
        edns.set_rcode_high(code_high);
        for data in options {
            use hickory_proto::rr::rdata::opt::EdnsOption;
            edns.options_mut().insert(EdnsOption::Unknown(super::explain::OPTION, data.clone()));
        }
        let mut bytes = Vec::new();
        let mut encoder = hickory_proto::serialize::binary::BinEncoder::new(&mut bytes);
        use hickory_proto::serialize::binary::BinEncodable;
        Record::from(&edns).emit(&mut encoder).ok()?;
        Some(bytes)
    }
}

fn server_edns(client: ClientEdns, explanation: Option<&Explanation>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    edns.set_dnssec_ok(client.dnssec_ok);
    if let Some(explanation) = explanation {
        edns.options_mut().insert(explanation.option());
    }
    edns
}
