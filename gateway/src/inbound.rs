//! The side that is dialled: takes tunnels, and for each stream opens the way on.
//!
//! What a stream may do depends on the role: [`egress`] chooses a cluster for a workload, [`ingress`] an endpoint for
//! another cluster, [`sidecar`] hands over to its application.

pub(crate) mod captured;
mod door;
mod egress;
mod ingress;
pub(crate) mod plain;
mod sidecar;

pub use door::serve;

use crate::{
    accesslog::{Direction, Record, Tls},
    budget::Who,
    carry::Journey,
    conns::{Kind, Ticket},
    copy::{
        any::AnyEnd,
        stream::{Reader, StreamEnd},
        tls::{StreamIo, TlsEnd},
    },
    error::Refusal,
    head::{self, Answer, Connect},
    outbound::INNER_ALPN,
    reason::Reason,
    state::Shared,
    trace::Trace,
};
use bytes::Bytes;
use door::Incoming;
use h2::{RecvStream, server::SendResponse};
use http::Request;
use std::{any::Any, convert::Infallible, future::poll_fn, task::Poll};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tombolo_model::{ClusterName, GatewayRole, SpiffeId};
use tombolo_mtls::{Credentials, Peer, server_config};

/// The way on, open.
struct Opened {
    end: AnyEnd,
    cluster: ClusterName,
    inner: bool,
    /// At a sidecar: whose session to answer inside, and who is expected to be there.
    inside: Option<(Credentials, SpiffeId)>,
    upstream: String,
    next_peer: Option<SpiffeId>,
    tls: Option<Tls>,
    attempts: u32,
    _hold: Box<dyn Any + Send + Sync>,
}

impl Opened {
    fn note(&self, record: &mut Record) {
        record.cluster = Some(self.cluster.clone());
        record.upstream = Some(self.upstream.clone());
        record.next_peer.clone_from(&self.next_peer);
        record.tls = self.tls;
        record.attempts = self.attempts;
        record.end_to_end = self.inner;
    }
}

/// One stream to its end.
async fn stream_in(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    place: Option<OwnedSemaphorePermit>,
    shared: &Shared,
    incoming: &Incoming,
) {
    let number = shared.conns.number();
    let role = shared.config.role;
    let direction = if role.is_beside_applications() { Direction::Inbound } else { Direction::Transit };
    let mut record = Record::new(shared.clock.now(), role, number, direction);
    record.peer = Some(incoming.peer.id.clone());
    record.client = Some(incoming.address);
    let mut journey = Journey::begin(shared, record);
    let (request, body) = request.into_parts();
    let (request, mut reader) = (Request::from_parts(request, ()), Reader::new(body));
    // Boxed: what opening needs goes when it is done, and the connection may last.
    let opened = Box::pin(async {
        let connect = Connect::parse(&request)?;
        journey.record.trace = connect.trace.to_string();
        if place.is_none() {
            let detail = format!("{} streams of this tunnel are open already", shared.config.limits.streams);
            return Err(Refusal::new(Reason::Overloaded, detail));
        }
        let ticket = shared.conns.admit(Kind::Connection, number)?;
        let most = shared.config.limits.peer_connections;
        let load = shared.peer_loads.try_add(&incoming.peer.id, most).ok_or_else(|| {
            let detail = format!("{} has {most} connections here already", incoming.peer.id);
            Refusal::new(Reason::Overloaded, detail)
        })?;
        ticket.relies_on(&incoming.peer, shared.bundle.get().as_deref())?;
        let mut waiting = shared.budget.connection(who(role, &incoming.peer, &connect), &ticket);
        let way = open(shared, &ticket, &mut journey.record, &incoming.peer, &connect);
        // Nobody needs to wait for the answer before he sends.
        let ahead = poll_fn(|cx| {
            reader.gather(cx);
            waiting.set(reader.gathered());
            Poll::<Infallible>::Pending
        });
        let opened = tokio::select! {
            biased;
            reason = ticket.ended() => return Err(Refusal::new(reason, "before the path was open")),
            never = ahead => match never {},
            _ = poll_fn(|cx| respond.poll_reset(cx)) => {
                incoming.taken_back();
                return Err(Refusal::new(Reason::Cancelled, "the hop before asks somebody else, or is gone"));
            }
            opened = timeout(shared.config.timing.open, way) => opened
                .unwrap_or_else(|_| Err(Refusal::new(Reason::Timeout, "the path did not open in time")))?,
        };
        // Everything that it relies on is known now; what was taken away meanwhile is seen here.
        ticket.check(&shared.table.load(), shared.bundle.get().as_deref())?;
        Ok((ticket, waiting, load, opened))
    });
    let (ticket, mut waiting, _load, opened) = match opened.await {
        Ok(done) => done,
        Err(refusal) => {
            if journey.record.trace.is_empty() {
                journey.record.trace = Trace::fresh().to_string();
            }
            // Where this fails the peer is gone.
            let _ = respond.send_response(head::refused(&refusal, &shared.hop()), true);
            return journey.refused(refusal);
        }
    };
    opened.note(&mut journey.record);
    let answer = Answer { cluster: opened.cluster.clone(), inner: opened.inner };
    let send = match respond.send_response(answer.response(), false) {
        Ok(send) => send,
        Err(error) => return journey.refused(Refusal::new(Reason::Cancelled, error.to_string())),
    };
    let client = StreamEnd::new(send, reader, shared.config.limits.send_buffer, ());
    let Opened { mut end, inside, _hold, .. } = opened;
    let mut client = match inside {
        None => AnyEnd::Stream(client),
        Some((credentials, claimed)) => {
            let record = &mut journey.record;
            let answered = Box::pin(answer_inside(shared, &ticket, record, client, &credentials, &claimed));
            let answered = tokio::select! {
                biased;
                reason = ticket.ended() => Err(Refusal::new(reason, "in the inner handshake")),
                answered = answered => answered,
            };
            match answered {
                Ok(client) => client,
                Err(refusal) => {
                    use crate::copy::End as _;
                    end.abort();
                    return journey.refused(refusal);
                }
            }
        }
    };
    journey.opened(&ticket);
    journey.carry(&ticket, &mut waiting, &mut client, &mut end).await;
}

/// To whom it is counted what waits in a stream. A sidecar believes the gateways of its cluster whom they bring; a gateway believes
/// those of other clusters nothing, so that each cluster is one.
fn who(role: GatewayRole, peer: &Peer, connect: &Connect) -> Who {
    let source = connect.source.as_ref().filter(|_| role.is_beside_applications());
    Who::Identity(source.unwrap_or(&peer.id).clone())
}

async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    peer: &Peer,
    connect: &Connect,
) -> Result<Opened, Refusal> {
    match shared.config.role {
        GatewayRole::Egress => egress::open(shared, ticket, record, peer, connect).await,
        GatewayRole::Ingress => ingress::open(shared, ticket, record, peer, connect).await,
        GatewayRole::Sidecar | GatewayRole::Node => {
            sidecar::open(shared, ticket, record, peer, connect).await
        }
    }
}

/// The server's side of the workloads' own session: the caller must be whom the gateways spoke of.
async fn answer_inside(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    stream: StreamEnd,
    credentials: &Credentials,
    claimed: &SpiffeId,
) -> Result<AnyEnd, Refusal> {
    let config = server_config(&shared.bundle, credentials, &[INNER_ALPN]);
    let handshake = tombolo_mtls::accept(StreamIo::new(stream), config);
    let (tls, inner) = match timeout(shared.config.timing.handshake, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            shared.metrics.handshake(false);
            return Err(Refusal::handshake(&error, "the calling workload"));
        }
        Err(_) => {
            shared.metrics.handshake(false);
            return Err(Refusal::new(Reason::Timeout, "the calling workload did not finish its handshake"));
        }
    };
    shared.metrics.handshake(true);
    if inner.id != *claimed {
        let detail = format!("the gateways speak of {claimed}, the session is of {}", inner.id);
        return Err(Refusal::new(Reason::WrongIdentity, detail));
    }
    ticket.relies_on(&inner, shared.bundle.get().as_deref())?;
    record.source_verified = true;
    record.tls = Some(Tls::of(tls.get_ref().1));
    Ok(AnyEnd::Tls(TlsEnd::new(tls)))
}
