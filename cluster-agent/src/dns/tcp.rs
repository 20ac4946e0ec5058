//! DNS over TCP (RFC 7766): many queries on a connection, answered as they are ready. Who comes has a share of the connections.

use super::{
    message::Transport,
    server::{Next, Shared},
    wire,
};
use bytes::{Buf, BytesMut};
use futures::{StreamExt, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tombolo_runtime::places::{Place, Places, Shares, Source};

/// While more than half of the connections are taken, a new one may be idle for this part of the usual time.
const CROWDED: u32 = 5;

pub(super) async fn serve(shared: &Arc<Shared>, listener: &TcpListener, stop: &CancellationToken) {
    let mut connections = JoinSet::new();
    let limits = shared.limits;
    let places = Places::new(Shares { all: limits.connections, each: limits.each });
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a DNS connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.take(&Source::of(client.ip())) else {
            shared.metrics.connection_refused();
            continue;
        };
        let crowded = places.taken() * 2 > limits.connections;
        let idle = if crowded { limits.idle / CROWDED } else { limits.idle };
        let (shared, stop) = (Arc::clone(shared), stop.clone());
        connections.spawn(async move {
            let _open = shared.metrics.connection();
            tokio::select! {
                biased;
                // Also while it does not take its answers.
                () = place.lost() => shared.metrics.connection_refused(),
                ended = Connection::new(&shared, stream, idle).run(&stop, &place) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a DNS connection broke off");
                    }
                }
            }
        });
    }
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a DNS connection's task broke off; please report this");
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    idle: Duration,
    buffer: BytesMut,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, stream: TcpStream, idle: Duration) -> Self {
        let (from, to) = stream.into_split();
        Self { shared, from, to, idle, buffer: BytesMut::new() }
    }

    async fn run(mut self, stop: &CancellationToken, place: &Place) -> std::io::Result<()> {
        let shared = self.shared;
        let mut forwards = FuturesUnordered::new();
        let mut reading = true;
        let mut deadline = Instant::now() + self.idle;
        loop {
            let room = shared.limits.pipelined.saturating_sub(forwards.len());
            if room > 0
                && let Some(message) = next_message(&mut self.buffer)
            {
                match shared.step(&message, Transport::Tcp) {
                    Some(Next::Send(bytes)) => self.send(&bytes).await?,
                    Some(Next::Forward(request, foreign)) => {
                        let busy = place.busy();
                        forwards.push(async move {
                            let _busy = busy;
                            shared.forward(&request, foreign).await
                        });
                    }
                    // Who sends what is no query on a stream has lost its place in it.
                    None => return Ok(()),
                }
                deadline = Instant::now() + self.idle;
                continue;
            }
            if !reading && forwards.is_empty() {
                return self.to.shutdown().await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if reading => reading = false,
                Some(bytes) = forwards.next() => {
                    self.send(&bytes).await?;
                    deadline = Instant::now() + self.idle;
                }
                length = self.from.read_buf(&mut self.buffer), if reading && room > 0 => {
                    reading = length? > 0;
                }
                () = sleep_until(deadline), if forwards.is_empty() => return Ok(()),
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        // One write: the length alone in a segment confuses some clients (RFC 7766, section 8).
        timeout(self.idle, self.to.write_all(&wire::framed(message))).await?
    }
}

/// Takes the first message out of what was read, once it is whole.
fn next_message(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*buffer.first_chunk::<2>()?));
    if buffer.len() < 2 + length {
        buffer.reserve(2 + length - buffer.len());
        return None;
    }
    buffer.advance(2);
    Some(buffer.split_to(length))
}
