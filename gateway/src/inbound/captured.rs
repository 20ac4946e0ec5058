//! Capture mode `gateway`: an application of this cluster, with no proxy of its own, is brought straight to an egress
//! gateway, at the number that stands for a name and port. Who it is, nobody can say; the gateway answers for it.

use super::{Opened, egress};
use crate::{
    accesslog::{Direction, Record},
    budget::Who,
    carry::Journey,
    conns::{Kind, Ticket},
    copy::tcp::TcpEnd,
    error::Refusal,
    head::{Connect, Destination, Inner},
    reason::Reason,
    socket,
    state::Shared,
    trace::Trace,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, time::timeout};
use tombolo_runtime::places::Source;

/// Serves a connection that was taken at `original`, to its end. A refused one is reset.
///
/// Dropping the future closes the connection.
pub(crate) async fn serve(stream: TcpStream, client: SocketAddr, original: SocketAddr, shared: Arc<Shared>) {
    let number = shared.conns.number();
    let mut record = Record::new(shared.clock.now(), shared.config.role, number, Direction::Outbound);
    record.client = Some(client);
    record.original = Some(original);
    let trace = Trace::fresh();
    record.trace = trace.to_string();
    let mut journey = Journey::begin(&shared, record);
    // Boxed: what opening needs goes when it is done, and the connection may last.
    let opened = Box::pin(async {
        let ticket = shared.conns.admit(Kind::Connection, number)?;
        let way = open(&shared, &ticket, &mut journey.record, original.port(), trace);
        let opened = tokio::select! {
            biased;
            reason = ticket.ended() => Err(Refusal::new(reason, "before the path was open")),
            opened = timeout(shared.config.timing.open, way) => opened
                .unwrap_or_else(|_| Err(Refusal::new(Reason::Timeout, "the path did not open in time"))),
        }?;
        ticket.check(&shared.table.load(), shared.bundle.get().as_deref())?;
        Ok::<_, Refusal>((ticket, opened))
    });
    match opened.await {
        Ok((ticket, opened)) => {
            opened.note(&mut journey.record);
            let Opened { mut end, _hold, .. } = opened;
            journey.opened(&ticket);
            let mut waiting = shared.budget.connection(Who::Address(Source::of(client.ip())), &ticket);
            journey.carry(&ticket, &mut waiting, &mut TcpEnd::accepted(stream), &mut end).await;
        }
        Err(refusal) => {
            journey.refused(refusal);
            socket::refuse(stream);
        }
    }
}

async fn open(
    shared: &Shared,
    ticket: &Ticket,
    record: &mut Record,
    at: u16,
    trace: Trace,
) -> Result<Opened, Refusal> {
    let (name, port) = match shared.table.load().captured(at) {
        Some((route, port)) => (route.name.clone(), *port),
        None => return Err(Refusal::new(Reason::NoRoute, format!("no name is taken at port {at} any more"))),
    };
    let own = shared
        .credentials
        .own()
        .ok_or_else(|| Refusal::new(Reason::NoCredentials, "this gateway has no certificate yet"))?;
    let onward = Connect {
        destination: Destination::Service(name.clone(), port),
        source: Some(own.id().clone()),
        trace,
        inner: Inner::None,
    };
    egress::choose_and_open(shared, ticket, record, &name, port, &onward).await
}
