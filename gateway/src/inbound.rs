//! The side that is dialled: takes tunnels, and for each stream opens the way on.
//!
//! What a stream may do depends on the role: [`egress`] chooses a cluster for a workload, [`ingress`] an endpoint for
//! another cluster, [`sidecar`] hands over to its application.

mod egress;
mod ingress;
mod sidecar;

use crate::{
    accesslog::{Direction, Record, Tls},
    authz,
    carry::Journey,
    conns::{Kind, Ticket},
    copy::{
        any::AnyEnd,
        stream::StreamEnd,
        tls::{StreamIo, TlsEnd},
    },
    error::Refusal,
    head::{self, Answer, Connect},
    outbound::INNER_ALPN,
    reason::Reason,
    socket,
    state::Shared,
    trace::Trace,
    tunnel::{self, ALPN},
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Request;
use std::{any::Any, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tombolo_model::{ClusterName, GatewayRole, SpiffeId};
use tombolo_mtls::{Credentials, Peer, server_config};
use tombolo_runtime::{drain::Watch, task};

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

/// A tunnel that was taken.
struct Incoming {
    peer: Peer,
    address: SocketAddr,
}

/// Takes tunnels until the draining begins, and then ends those it has in order.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, watch: Watch) {
    let room = Arc::new(Semaphore::new(shared.config.limits.tunnels));
    loop {
        let accepted = tokio::select! {
            biased;
            () = watch.signaled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors mostly: give the others time to end.
                tracing::warn!(%error, "no tunnel taken");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(client.address = %address, "the bound of tunnels is reached; refused");
            socket::refuse(stream);
            continue;
        };
        let (shared, watch) = (shared.clone(), watch.clone());
        task::spawn("tunnel-in", async move {
            let _permit = permit;
            if let Err(refusal) = tunnel(stream, address, &shared, &watch).await {
                tracing::info!(client.address = %address, %refusal, "tunnel refused");
            }
        });
    }
}

/// One tunnel to its end.
async fn tunnel(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Arc<Shared>,
    watch: &Watch,
) -> Result<(), Refusal> {
    let timing = shared.config.timing;
    socket::prepare(&stream);
    let own = shared
        .credentials
        .own()
        .ok_or_else(|| Refusal::new(Reason::NoCredentials, "this gateway has no certificate yet"))?;
    let config = server_config(&shared.bundle, &own, &[ALPN]);
    let late = |what: &str| Refusal::new(Reason::Timeout, format!("no {what} handshake in time"));
    let (tls, peer) = match timeout(timing.handshake, tombolo_mtls::accept(stream, config)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            shared.metrics.handshake(false);
            return Err(Refusal::handshake(&error, "the caller"));
        }
        Err(_) => return Err(late("TLS")),
    };
    shared.metrics.handshake(true);
    let ticket = shared.conns.admit(Kind::Tunnel, shared.conns.number())?;
    ticket.describe(format!("tunnel from {address}"));
    ticket.relies_on(&peer, shared.bundle.get().as_deref())?;
    {
        let table = shared.table.load();
        let itself =
            table.itself().ok_or_else(|| Refusal::new(Reason::NoRoute, "there is no snapshot yet"))?;
        authz::tunnel_peer(shared.config.role, itself, &peer.id)?;
    }
    let handshake = tunnel::server_builder(&shared.config.limits).handshake::<_, Bytes>(tls);
    let mut connection = match timeout(timing.handshake, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(Refusal::new(Reason::BadRequest, error.to_string())),
        Err(_) => return Err(late("HTTP/2")),
    };
    let incoming = Arc::new(Incoming { peer, address });
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            reason = ticket.ended() => {
                tracing::info!(%reason, peer.id = %incoming.peer.id, "tunnel closed");
                return Ok(());
            }
            () = watch.signaled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let (shared, incoming, watch) = (shared.clone(), incoming.clone(), watch.clone());
                    task::spawn("stream", async move {
                        let _held = watch;
                        stream_in(request, respond, &shared, &incoming).await;
                    });
                }
                // The peer is gone, in order or not: its streams know.
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}

/// One stream to its end.
async fn stream_in(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    incoming: &Incoming,
) {
    let number = shared.conns.number();
    let role = shared.config.role;
    let direction = if role == GatewayRole::Sidecar { Direction::Inbound } else { Direction::Transit };
    let mut record = Record::new(shared.clock.now(), role, number, direction);
    record.peer = Some(incoming.peer.id.clone());
    record.client = Some(incoming.address);
    let mut journey = Journey::begin(shared, record);
    let opened = async {
        let connect = Connect::parse(&request)?;
        journey.record.trace = connect.trace.to_string();
        let ticket = shared.conns.admit(Kind::Connection, number)?;
        let most = shared.config.limits.peer_connections;
        if shared.peer_loads.of(&incoming.peer.id) >= most {
            let detail = format!("{} has {most} connections here already", incoming.peer.id);
            return Err(Refusal::new(Reason::Overloaded, detail));
        }
        let load = shared.peer_loads.add(&incoming.peer.id);
        ticket.relies_on(&incoming.peer, shared.bundle.get().as_deref())?;
        let way = open(shared, &ticket, &mut journey.record, &incoming.peer, &connect);
        let opened = tokio::select! {
            biased;
            reason = ticket.ended() => return Err(Refusal::new(reason, "before the path was open")),
            _ = poll_fn(|cx| respond.poll_reset(cx)) => {
                return Err(Refusal::new(Reason::Cancelled, "the hop before asks somebody else, or is gone"));
            }
            opened = timeout(shared.config.timing.open, way) => opened
                .unwrap_or_else(|_| Err(Refusal::new(Reason::Timeout, "the path did not open in time")))?,
        };
        // Everything that it relies on is known now; what was taken away meanwhile is seen here.
        ticket.check(&shared.table.load(), shared.bundle.get().as_deref())?;
        Ok((ticket, load, opened))
    };
    let (ticket, _load, opened) = match opened.await {
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
    journey.record.cluster = Some(opened.cluster.clone());
    journey.record.upstream = Some(opened.upstream.clone());
    journey.record.next_peer = opened.next_peer.clone();
    journey.record.tls = opened.tls;
    journey.record.attempts = opened.attempts;
    journey.record.end_to_end = opened.inner;
    let answer = Answer { cluster: opened.cluster.clone(), inner: opened.inner };
    let send = match respond.send_response(answer.response(), false) {
        Ok(send) => send,
        Err(error) => return journey.refused(Refusal::new(Reason::Cancelled, error.to_string())),
    };
    let client = StreamEnd::new(send, request.into_body(), ());
    let Opened { mut end, inside, _hold, .. } = opened;
    let mut client = match inside {
        None => AnyEnd::Stream(client),
        Some((credentials, claimed)) => {
            let answered =
                answer_inside(shared, &ticket, &mut journey.record, client, &credentials, &claimed);
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
    journey.carry(&ticket, &mut client, &mut end).await;
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
        GatewayRole::Sidecar => sidecar::open(shared, ticket, record, peer, connect).await,
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
