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
    table::{RouteTable, stands_before},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;
use tombolo_model::SpiffeId;
use tombolo_mtls::{Credentials, Peer};

/// How much later than a gateway that brings connections a new proxy may hear of what it stands before.
const MOMENT: Duration = Duration::from_millis(500);

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
    let table = table_with(shared, *address).await;
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
        Some((certified(shared, identity).await?, source.clone()))
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

/// The table. Where this process is new, as a node's proxy in the place of the one before, the gateway that brings the connection may have heard
/// of it before its own table says so: then the one that does, of the moment after.
async fn table_with(shared: &Shared, address: SocketAddr) -> Arc<RouteTable> {
    if !shared.is_new() {
        return shared.table.load_full();
    }
    let mut changed = shared.changed();
    let found = async {
        loop {
            let table = shared.table.load_full();
            let is_here =
                |own| table.served(address).is_some_and(|served| stands_before(&served.endpoint, own));
            if shared.tunnel().is_some_and(is_here) || changed.changed().await.is_err() {
                return table;
            }
        }
    };
    timeout(MOMENT, found).await.unwrap_or_else(|_| shared.table.load_full())
}

/// The workload's certificate: the first one comes a moment after the endpoint.
async fn certified(shared: &Shared, identity: &SpiffeId) -> Result<Credentials, Refusal> {
    if let Some(credentials) = shared.credentials.get(identity).filter(Credentials::ready) {
        return Ok(credentials);
    }
    let ready = async {
        let credentials = shared.credentials.wait(identity).await?;
        credentials.wait_ready().await;
        Some(credentials)
    };
    let ready = timeout(shared.config.timing.handshake, ready).await.ok().flatten();
    ready.ok_or_else(|| {
        Refusal::new(Reason::NoCredentials, format!("no certificate for {identity} came in time"))
    })
}
