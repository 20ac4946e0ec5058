//! A response of another server, taken apart no further than it must be: where its question ends, and where its
//! EDNS record is. Every step is bounded by the packet's length.

use super::{
    explain::{self, Explanation, Why},
    message::{HEADER, Request},
    upstream::Forwarded,
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::rdata::opt::EdnsOption,
};
use std::ops::Range;

/// A response that belongs to our query.
#[derive(Debug)]
pub(crate) struct Response {
    bytes: Vec<u8>,
    /// Where its question is; none where it repeats none (some errors do so).
    question: Option<Range<usize>>,
    opt: Option<Opt>,
}

/// The EDNS record of a response.
#[derive(Debug)]
struct Opt {
    at: Range<usize>,
    code_high: u8,
    /// The data of its extended errors.
    explanations: Vec<Vec<u8>>,
}

/// `message` with its length before it, as it goes over TCP.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), &message[..usize::from(length)]].concat()
}

impl Response {
    /// Takes `bytes` as the response to `query` if they are one.
    pub(crate) fn read(bytes: &[u8], query: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER || bytes[..2] != query[..2] || bytes[2] & 0xf8 != 0x80 {
            return None;
        }
        let mut walk = Walk { bytes, at: HEADER };
        let question = match walk.count(4) {
            1 => {
                let end = walk.skip_question()?;
                // Only letters may differ in case; type and class are the last four bytes.
                let (name, kind) = bytes[HEADER..end].split_last_chunk::<4>()?;
                let (our_name, our_kind) = query.get(HEADER..end)?.split_last_chunk::<4>()?;
                if kind != our_kind || !name.eq_ignore_ascii_case(our_name) {
                    return None;
                }
                Some(HEADER..end)
            }
            // Without a question only the id says that it is ours; enough for "no", not for an answer.
            0 if bytes[3] & 0xf != 0 => None,
            _ => return None,
        };
        for _ in 0..walk.count(6) + walk.count(8) {
            walk.skip_record()?;
        }
        let mut opt = None;
        for _ in 0..walk.count(10) {
            let start = walk.at;
            let record = walk.skip_record()?;
            if record.kind == 41 {
                let explanations = options(&bytes[record.data.clone()], explain::OPTION);
                opt = Some(Opt { at: start..walk.at, code_high: record.ttl[0], explanations });
            }
        }
        Some(Self { bytes: bytes[..walk.at].to_vec(), question, opt })
    }

    fn code(&self) -> ResponseCode {
        ResponseCode::from(self.opt.as_ref().map_or(0, |opt| opt.code_high), self.bytes[3] & 0xf)
    }

    /// Whether it comes from a server that does not know EDNS.
    pub(crate) fn rejects_edns(&self) -> bool {
        self.opt.is_none() && matches!(self.code(), ResponseCode::FormErr | ResponseCode::NotImp)
    }

    /// Makes it the response to the client's query. None where it can't be.
    pub(crate) fn finish(mut self, request: &Request) -> Option<Forwarded> {
        let code = self.code();
        let (Some(question), true) = (self.question.clone(), request.edns.is_some() || code.high() == 0)
        else {
            let text = format!("the server that other names are forwarded to answered {code}");
            let low = if code.high() == 0 { code } else { ResponseCode::ServFail };
            let bytes = request.fail(low, Explanation::new(Why::NetworkError, text));
            return Some(Forwarded { bytes, code: low });
        };
        let (code_high, explanations) =
            self.opt.as_ref().map(|opt| (opt.code_high, opt.explanations.clone())).unwrap_or_default();
        if let Some(opt) = self.opt.take() {
            if opt.at.end == self.bytes.len() {
                self.bytes.truncate(opt.at.start);
                let count = u16::from_be_bytes([self.bytes[10], self.bytes[11]]) - 1;
                self.bytes[10..12].copy_from_slice(&count.to_be_bytes());
            } else {
                // Names after it may point across it, so it can't be cut out. Rare enough to write it all again.
                let mut message = Message::from_vec(&self.bytes).ok()?;
                message.edns = None;
                message.metadata.response_code = ResponseCode::from(0, code.low());
                self.bytes = message.to_vec().ok()?;
            }
        }
        self.bytes[..2].copy_from_slice(&request.metadata.id.to_be_bytes());
        // The case of the letters as the client wrote them: it may check that (draft-vixie-dnsext-dns0x20).
        let mut at = question.start;
        for label in request.question.name().iter() {
            at += 1;
            self.bytes[at..at + label.len()].copy_from_slice(label);
            at += label.len();
        }
        let opt = request.forwarded_opt(code_high, &explanations);
        let opt_length = opt.as_ref().map_or(0, Vec::len);
        if self.bytes.len() + opt_length > request.limit() {
            self.bytes.truncate(question.end);
            self.bytes[2] |= 0x02;
            self.bytes[6..12].fill(0);
        }
        if let Some(opt) = opt {
            let count = u16::from_be_bytes([self.bytes[10], self.bytes[11]]).checked_add(1)?;
            self.bytes[10..12].copy_from_slice(&count.to_be_bytes());
            self.bytes.extend(opt);
        }
        Some(Forwarded { bytes: self.bytes, code })
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

struct Skipped {
    kind: u16,
    ttl: [u8; 4],
    data: Range<usize>,
}

impl Walk<'_> {
    /// A count of the header.
    fn count(&self, at: usize) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(taken)
    }

    /// Past a name: labels up to the root, or up to a pointer.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take::<1>()? {
                [0] => return Some(()),
                [length] if length & 0xc0 == 0 => self.at += usize::from(length),
                [first] if first & 0xc0 == 0xc0 => return self.take::<1>().map(|_| ()),
                _ => return None,
            }
        }
    }

    /// Past the question. Its name is the first of the message, so it has no pointer to follow.
    fn skip_question(&mut self) -> Option<usize> {
        loop {
            match self.take::<1>()? {
                [0] => break,
                [length] if length & 0xc0 == 0 => self.at += usize::from(length),
                _ => return None,
            }
        }
        self.take::<4>()?;
        Some(self.at)
    }

    fn skip_record(&mut self) -> Option<Skipped> {
        self.skip_name()?;
        let [kind0, kind1, _, _] = self.take()?;
        let ttl = self.take()?;
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let data = self.at..self.at + length;
        self.bytes.get(data.clone())?;
        self.at = data.end;
        Some(Skipped { kind: u16::from_be_bytes([kind0, kind1]), ttl, data })
    }
}

/// The data of the options with this code; what is cut off is left out.
fn options(mut data: &[u8], wanted: u16) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let [c0, c1, l0, l1, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some((option, rest)) = rest.split_at_checked(length) else { break };
        if u16::from_be_bytes([*c0, *c1]) == wanted && option.len() <= 256 && found.len() < 2 {
            found.push(option.to_vec());
        }
        data = rest;
    }
    found
}

/// The explanation in a response, for tests and tools.
#[must_use]
pub fn explanation(message: &Message) -> Option<(u16, String)> {
    match message.edns.as_ref()?.option(explain::CODE)? {
        EdnsOption::Unknown(_, data) => {
            let (code, text) = data.split_first_chunk::<2>()?;
            Some((u16::from_be_bytes(*code), String::from_utf8_lossy(text).into_owned()))
        }
        _ => None,
    }
}
