//! From a packet to what is to be done with it: a function, so that any bytes can be tried on it.

use super::{
    answer::{self, Answer, Reply, Settings},
    explain::{Explanation, Why},
    message::{self, Ignored, Incoming, Request, Transport},
    zone::Zone,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};

/// What becomes of names that are none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// They are asked for at another server.
    Forwarded,
    /// They are refused.
    Refused,
}

/// What is to be done with a packet.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing.
    Ignore(Ignored),
    /// Send these bytes.
    Say {
        /// The response.
        bytes: Vec<u8>,
        /// The type asked for, where there was a question.
        kind: Option<RecordType>,
        /// The code in the response.
        code: ResponseCode,
        /// Who answers.
        source: Source,
    },
    /// Ask the other server.
    Forward {
        /// What for.
        request: Box<Request>,
        /// Whether the name is known to be none of ours. If not, only a positive answer may go back.
        foreign: bool,
    },
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The zone.
    Zone,
    /// The server that other names are forwarded to.
    Forward,
    /// Nowhere: this server can't or won't answer.
    Refused,
}

/// Decides what to do with `packet`. No zone means that this server had no snapshot yet. `turn` says which of several
/// answers comes first: many clients take that one, and where there is no room, the last are left out.
#[must_use]
pub(super) fn respond(
    zone: Option<&Zone>,
    settings: &Settings,
    others: Others,
    packet: &[u8],
    transport: Transport,
    turn: u32,
) -> Step {
    let request = match message::read(packet, transport) {
        Incoming::Ignored(why) => return Step::Ignore(why),
        Incoming::Refused(code, bytes) => {
            return Step::Say { bytes, kind: None, code, source: Source::Refused };
        }
        Incoming::Question(request) => request,
    };
    let (mut reply, source) = match zone {
        // The name may be one of the controller itself, without which there will never be a zone.
        None if others == Others::Forwarded => return Step::Forward { request, foreign: false },
        // Not "no such name": that would be kept by resolvers.
        None => (Reply::error(ResponseCode::ServFail, not_ready()), Source::Refused),
        Some(zone) => match answer::resolve(zone, &request.question, settings) {
            Answer::Ours(reply) if reply.authoritative => (reply, Source::Zone),
            Answer::Ours(reply) => (reply, Source::Refused),
            Answer::Elsewhere if others == Others::Forwarded => {
                return Step::Forward { request, foreign: true };
            }
            Answer::Elsewhere => {
                let text = "the name is in no global namespace of this cluster, and --dns-forward is refuse";
                (
                    Reply::error(ResponseCode::Refused, Explanation::new(Why::NotAuthoritative, text)),
                    Source::Refused,
                )
            }
        },
    };
    if let Some(first) = (turn as usize).checked_rem(reply.answers.len()) {
        reply.answers.rotate_left(first);
    }
    let bytes = request.write(&reply, others == Others::Forwarded);
    Step::Say { bytes, kind: Some(request.question.query_type()), code: reply.code, source }
}

/// There is no zone yet, so nothing is known not to be there.
pub(super) fn not_ready() -> Explanation {
    Explanation::new(
        Why::NotReady,
        "no snapshot from the controller yet; ask again, or see the agent's status",
    )
}
