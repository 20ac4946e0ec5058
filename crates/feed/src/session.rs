//! One connection, from its first byte to its end.

use crate::{
    backoff::Backoff,
    client::{Options, Shared, within},
    connect::{ConnectError, Connector},
    follower::{Follower, Took},
    request::{Link, REQUEST_TIMEOUT, RequestError, Requests, handshake},
};
use h2::RecvStream;
use rand::{SeedableRng as _, rngs::StdRng};
use std::{pin::pin, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tombolo_model::{Generation, snapshot::Resource};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::{
    codec::{CodecError, LineDecoder},
    digest::Stated,
    message::{Ack, Digest, FeedLine},
    session::Refused,
};

/// Why a feed ended.
#[derive(Debug, Error)]
pub(crate) enum Ended {
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no connection within {} ms", limit.as_millis())]
    ConnectTimeout { limit: Duration },
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
    #[error("the sender closed the connection")]
    Closed,
    #[error("the feed was refused")]
    Request(#[from] RequestError),
    #[error("the sender was silent for {} ms", limit.as_millis())]
    Silent { limit: Duration },
    #[error("the feed can't be read")]
    Codec(#[from] CodecError),
    #[error("a line was refused")]
    Refused(#[from] Refused),
    #[error("the sender said goodbye: {reason}")]
    Goodbye { reason: String },
}

impl Ended {
    /// Nobody was reached: to ask again costs the other side nothing.
    pub(crate) const fn is_unreached(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Socket { .. }))
    }
}

/// Connects and keeps the feed until something ends it.
pub(crate) async fn run<R: Resource, C: Connector>(
    connector: &C,
    options: &Options<R>,
    shared: &Shared<R>,
    follower: &mut Follower<R>,
) -> Ended {
    match connected(connector, options, shared, follower).await {
        Err(ended) => ended,
        Ok(never) => match never {},
    }
}

enum Never {}

async fn connected<R: Resource, C: Connector>(
    connector: &C,
    options: &Options<R>,
    shared: &Shared<R>,
    follower: &mut Follower<R>,
) -> Result<Never, Ended> {
    let limit = options.connect_timeout;
    let opened = async {
        let io = connector.connect().await?;
        Ok::<_, Ended>(handshake(io).await?)
    };
    let (send, connection) = within(limit, opened, || Ended::ConnectTimeout { limit }).await?;
    let link = Link::new(send, connector, options.token.clone());
    let work = async {
        if let Some(hook) = &options.on_connect {
            hook(Requests::fixed(link.clone(), REQUEST_TIMEOUT)).await?;
        }
        shared.status.send_modify(|status| status.connections += 1);
        shared.link.send_replace(Some(link.clone()));
        let acks = shared.ack.subscribe();
        tokio::select! {
            ended = follow(&link, options, shared, follower) => ended,
            never = acknowledge(&link, &options.ack_path, acks) => Ok(never),
        }
    };
    let (connection, work) = (pin!(connection), pin!(work));
    tokio::select! {
        biased;
        ended = work => ended,
        ended = connection => Err(ended.map_or_else(Ended::Connection, |()| Ended::Closed)),
    }
}

/// Asks for the feed and takes its lines.
async fn follow<R: Resource>(
    link: &Link,
    options: &Options<R>,
    shared: &Shared<R>,
    follower: &mut Follower<R>,
) -> Result<Never, Ended> {
    let limit = options.silence;
    let path = with_resume(&options.path, follower.begin());
    let mut body = timeout(limit, link.get(&path)).await.map_err(|_| Ended::Silent { limit })??;
    let mut decoder = LineDecoder::new();
    loop {
        let chunk = next_chunk(&mut body, limit).await?;
        let Some(chunk) = chunk else {
            decoder.finish()?;
            return Err(Ended::Closed);
        };
        decoder.push(&chunk);
        while let Some(line) = decoder.next_message::<FeedLine<Stated<R>>>()? {
            take(line, shared, follower)?;
        }
    }
}

async fn next_chunk(body: &mut RecvStream, limit: Duration) -> Result<Option<bytes::Bytes>, Ended> {
    match timeout(limit, body.data()).await {
        Err(_) => Err(Ended::Silent { limit }),
        Ok(None) => Ok(None),
        Ok(Some(chunk)) => {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            Ok(Some(chunk))
        }
    }
}

fn with_resume(path: &str, resume: Option<(Generation, Digest)>) -> String {
    match resume {
        None => path.to_owned(),
        Some((generation, Digest(digest))) => {
            let sign = if path.contains('?') { '&' } else { '?' };
            format!("{path}{sign}generation={generation}&digest={digest}")
        }
    }
}

/// Takes one line, and tells the readers.
fn take<R: Resource>(
    line: FeedLine<Stated<R>>,
    shared: &Shared<R>,
    follower: &mut Follower<R>,
) -> Result<(), Ended> {
    match follower.take(line)? {
        Took::Goodbye(reason) => return Err(Ended::Goodbye { reason }),
        Took::Hello(hello) => shared.status.send_modify(|status| {
            status.sender = Some(hello);
            status.heard = Some(Instant::now());
        }),
        Took::Alive(newest) => shared.status.send_modify(|status| {
            (status.connected, status.lost, status.failures) = (true, None, 0);
            status.newest = newest;
            status.heard = Some(Instant::now());
        }),
        Took::Refused { generation, reason, ack } => {
            tracing::warn!(snapshot.generation = generation.get(), error = reason, "a state was refused");
            shared.ack.send_replace(Some(ack));
            shared.status.send_modify(|status| {
                status.newest = status.newest.max(generation);
                status.heard = Some(Instant::now());
                status.error = Some(format!("generation {generation} was refused: {reason}"));
            });
        }
        Took::State { state, ack } => {
            let generation = ack.generation;
            if let Some(state) = state {
                tracing::debug!(
                    snapshot.generation = generation.get(),
                    upserted = state.changes.upserted.len(),
                    removed = state.changes.removed.len(),
                    "a state is in force"
                );
                shared.state.send_replace(Arc::new(state));
            }
            shared.status.send_modify(|status| {
                (status.connected, status.lost, status.failures) = (true, None, 0);
                (status.generation, status.newest) = (generation, generation);
                (status.error, status.from_cache) = (None, false);
                status.heard = Some(Instant::now());
            });
            shared.ack.send_replace(Some(ack));
        }
    }
    Ok(())
}

/// Sends the newest acknowledgement; one at a time, older ones are passed over. One that had no room is sent again: the other side counts us
/// as behind until it has it.
async fn acknowledge(link: &Link, path: &str, mut acks: watch::Receiver<Option<Ack>>) -> Never {
    let (mut backoff, mut rng) = (Backoff::default(), StdRng::from_os_rng());
    loop {
        if acks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        loop {
            let Some(ack) = acks.borrow_and_update().clone() else { break };
            let sent = within(REQUEST_TIMEOUT, link.post::<_, ()>(path, None, &ack), || {
                RequestError::Timeout { path: path.to_owned(), limit: REQUEST_TIMEOUT }
            });
            let Err(error) = sent.await else { break };
            tracing::warn!(
                error = chain(&error),
                snapshot.generation = ack.generation.get(),
                "could not acknowledge"
            );
            if !error.retry() {
                break;
            }
            sleep(error.wait(backoff.next(&mut rng))).await;
        }
        backoff.reset();
    }
}
