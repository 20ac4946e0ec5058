//! DNS for the global names of this cluster, over UDP and TCP.
//!
//! `zone::build` makes the zone of a snapshot, `answer::resolve` answers a question from it, `respond` goes from
//! bytes to bytes: functions, all of them. The sockets (`server`, `tcp`) and the forwarding of other names
//! (`upstream`) are around them. A new zone is put with [`ZoneWriter::set`]; no zone withdraws a name because
//! nothing serves it, or because the controller is away.

mod answer;
mod explain;
pub mod kept;
mod message;
mod metrics;
pub mod process;
mod reader;
mod respond;
mod server;
mod tcp;
#[cfg(test)]
mod tests;
mod trail;
mod udp;
mod upstream;
mod wire;
mod zone;

pub use answer::{Answer, Reply, Settings, resolve};
pub use explain::{Explanation, Why};
pub use message::{Transport, UDP_PAYLOAD};
pub use metrics::Metrics;
pub use reader::{ZoneReader, ZoneWriter};
pub use server::{BindError, Config, Server, TcpLimits};
pub use upstream::{ForwardTo, Limits};
pub use wire::explanation;
pub use zone::{Entry, Node, Zone, build};

/// Takes any bytes as a packet to the server, and as a response to be forwarded; for fuzzing.
///
/// # Panics
/// Where an answer breaks a promise: another id, longer than the client takes, not DNS, an answer to a response.
pub fn fuzz(bytes: &[u8]) {
    use respond::{Others, Step};
    let zone = Zone::default();
    let settings = Settings::default();
    for transport in [Transport::Udp, Transport::Tcp] {
        for others in [Others::Forwarded, Others::Refused] {
            match respond::respond(Some(&zone), &settings, others, bytes, transport, 1) {
                Step::Ignore(_) => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "a query was ignored"),
                Step::Say { bytes: answer, .. } => {
                    check(&answer, &bytes[..2]);
                    assert!(
                        transport == Transport::Tcp || answer.len() <= usize::from(UDP_PAYLOAD),
                        "too long"
                    );
                }
                Step::Forward { request, .. } => {
                    // The same bytes as a response, of a query that they may answer.
                    let mut response = bytes.to_vec();
                    response[2] |= 0x80;
                    if let Some(response) = wire::Response::read(&response, bytes)
                        && let Some(forwarded) = response.finish(&request)
                    {
                        check(&forwarded.bytes, &bytes[..2]);
                        assert!(forwarded.bytes.len() <= request.limit(), "too long");
                    }
                }
            }
        }
    }
}

fn check(answer: &[u8], id: &[u8]) {
    assert!(
        answer.len() >= 12 && &answer[..2] == id && answer[2] & 0x80 != 0,
        "not the answer: {answer:02x?}"
    );
}
