//! A plain connection of the cluster to the application behind a sidecar, or a probe of the kubelet: passed on as it is, to where it
//! meant to go. Nobody can say who calls. The application sees it come from its own pod.

use crate::{
    accesslog::{Direction, Record},
    budget::Who,
    carry::Journey,
    conns::{Kind, Ticket},
    copy::tcp::TcpEnd,
    deliver::dial,
    error::Refusal,
    reason::Reason,
    socket,
    state::Shared,
    trace::Trace,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
use tombolo_runtime::places::Source;

/// Serves a connection to its end, that was accepted at the first address and meant to go to the second. A refused one is reset.
///
/// Dropping the future closes the connection.
pub(crate) async fn serve(
    stream: TcpStream,
    client: SocketAddr,
    (accepted, original): (SocketAddr, SocketAddr),
    shared: Arc<Shared>,
) {
    let number = shared.conns.number();
    let mut record = Record::new(shared.clock.now(), shared.config.role, number, Direction::Inbound);
    record.client = Some(client);
    record.original = Some(original);
    record.trace = Trace::fresh().to_string();
    let mut journey = Journey::begin(&shared, record);
    match open(&shared, accepted, original, number).await {
        Ok((ticket, mut application)) => {
            journey.record.upstream = Some(original.to_string());
            journey.record.attempts = 1;
            journey.opened(&ticket);
            let mut waiting = shared.budget.connection(Who::Address(Source::of(client.ip())), &ticket);
            journey.carry(&ticket, &mut waiting, &mut TcpEnd::accepted(stream), &mut application).await;
        }
        Err(refusal) => {
            journey.refused(refusal);
            socket::refuse(stream);
        }
    }
}

async fn open(
    shared: &Shared,
    accepted: SocketAddr,
    original: SocketAddr,
    number: u64,
) -> Result<(Ticket, TcpEnd), Refusal> {
    // Who was not redirected dialled the port itself; passing that on would come back here.
    if original.port() == accepted.port() {
        return Err(Refusal::new(Reason::NoRoute, "this port takes redirected connections only"));
    }
    let ticket = shared.conns.admit(Kind::Connection, number)?;
    let to = SocketAddr::new(original.ip().to_canonical(), original.port());
    let application = tokio::select! {
        biased;
        reason = ticket.ended() => return Err(Refusal::new(reason, "before the application answered")),
        application = dial(shared, to) => application?,
    };
    Ok((ticket, application))
}
