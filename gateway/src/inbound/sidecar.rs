//! A server's sidecar: a gateway of this cluster brings a connection for an endpoint that this process stands before.

use super::Opened;
use crate::{
    accesslog::Record,
    authz,
    conns::Ticket,
    copy::any::AnyEnd,
    deliver::dial,
    error::Refusal,
    head::{Connect, Destination, Inner},
    reason::Reason,
    state::Shared,
    table::stands_before,
};
use tombolo_mtls::Peer;

pub(super) async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    peer: &Peer,
    connect: &Connect,
) -> Result<Opened, Refusal> {
    let Destination::Endpoint(address, name, port) = &connect.destination else {
        return Err(Refusal::new(
            Reason::BadRequest,
            "a sidecar is asked for endpoints, with tombolo-service",
        ));
    };
    record.name = Some(name.clone());
    record.port = Some(*port);
    record.source = connect.source.clone();
    let table = shared.table.load_full();
    let itself = table.itself().ok_or_else(|| Refusal::new(Reason::NoRoute, "there is no snapshot yet"))?;
    let source = authz::brings(itself, &peer.id, connect.source.as_ref())?;
    ticket.relies_on_cluster(&source.cluster);
    ticket.relies_on_grant(name, &source.cluster);
    let not_here = || Refusal::new(Reason::NotExported, format!("{address} is no endpoint of this sidecar"));
    let own = shared.tunnel().ok_or_else(not_here)?;
    let served = table.served(*address).filter(|served| stands_before(&served.endpoint, own));
    let served = served.ok_or_else(not_here)?;
    if !served.services.contains(&(name.clone(), *port)) {
        let detail = format!("{address} is no endpoint of {name}:{port}");
        return Err(Refusal::new(Reason::NotExported, detail));
    }
    // Asked again here: the workload's own proxy is the last that can say no.
    authz::export(&table, &source.cluster, name, *port)?;
    let inside = if connect.inner == Inner::Accepted {
        let identity = served.endpoint.identity.as_ref().ok_or_else(not_here)?;
        let credentials = shared.credentials.get(identity).filter(|credentials| credentials.ready());
        let credentials = credentials.ok_or_else(|| {
            Refusal::new(Reason::NoCredentials, format!("no certificate for {identity} yet"))
        })?;
        Some((credentials, source.clone()))
    } else {
        None
    };
    let app = dial(shared, *address).await?;
    Ok(Opened {
        end: AnyEnd::Tcp(app),
        cluster: itself.cluster.clone(),
        inner: inside.is_some(),
        inside,
        upstream: address.to_string(),
        next_peer: None,
        tls: None,
        attempts: 1,
        _hold: Box::new(()),
    })
}
