//! An ingress gateway's streams: the egress gateway of another cluster asks for a name that is served here.

use super::Opened;
use crate::{
    accesslog::Record,
    authz,
    conns::Ticket,
    deliver::deliver,
    error::Refusal,
    head::{Connect, Destination},
    reason::Reason,
    state::Shared,
};
use tombolo_mtls::Peer;

pub(super) async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    peer: &Peer,
    connect: &Connect,
) -> Result<Opened, Refusal> {
    let Destination::Service(name, port) = &connect.destination else {
        return Err(Refusal::new(Reason::BadRequest, "endpoints are asked for by gateways, of sidecars"));
    };
    record.name = Some(name.clone());
    record.port = Some(*port);
    let source = authz::speaks_for(&peer.id, connect.source.as_ref())?;
    record.source = Some(source.clone());
    // First rely on the right, then look whether it is there.
    ticket.relies_on_grant(name, &peer.id.cluster);
    let table = shared.table.load_full();
    let itself = table.itself().ok_or_else(|| Refusal::new(Reason::NoRoute, "there is no snapshot yet"))?;
    let (export, at) = authz::export(&table, &peer.id.cluster, name, *port)?;
    let delivered = deliver(shared, itself, &export, at, connect).await?;
    if let Some(sidecar) = &delivered.next_peer {
        ticket.relies_on(sidecar, shared.bundle.get().as_deref())?;
    }
    Ok(Opened {
        end: delivered.end,
        cluster: itself.cluster.clone(),
        inner: delivered.inner,
        inside: None,
        upstream: delivered.endpoint.to_string(),
        next_peer: delivered.next_peer.map(|peer| peer.id),
        tls: delivered.tls,
        attempts: delivered.attempts,
        _hold: Box::new(delivered.load),
    })
}
