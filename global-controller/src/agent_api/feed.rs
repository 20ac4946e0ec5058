//! The feed: JSON lines, for as long as the agent stands and listens.

use super::{Agent, peer::AgentPeer, version};
use crate::{
    app::{
        audit,
        error::{Kind, Refusal},
    },
    publish::{AttachError, FeedGuard, Next, Telling},
    store::lineage::Witness,
};
use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tombolo_model::{Generation, snapshot::ClusterResource};
use tombolo_runtime::{drain, task, telemetry};
use tombolo_wire::{
    codec::encode_line,
    message::{Digest, FeedLine},
    session::HEARTBEAT,
};

/// Lines that may wait for a slow receiver. What comes meanwhile is merged into the next one.
const WAITING: usize = 2;

/// What the agent has.
#[derive(Debug, Deserialize)]
pub(super) struct Resume {
    generation: Option<u64>,
    digest: Option<String>,
}

impl Resume {
    fn state(self) -> Option<(Generation, Digest)> {
        let generation = self.generation.filter(|generation| *generation > 0)?;
        Some((Generation::new(generation), Digest(self.digest?)))
    }
}

/// `GET /agent/v1/feed?generation=G&digest=D`
pub(super) async fn feed(
    State(agent): State<Agent>,
    peer: AgentPeer,
    resume: Result<Query<Resume>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(resume) = resume.map_err(|error| {
        Refusal::new(Kind::InvalidField, format!("What the agent has cannot be read: {error}."))
    })?;
    let resume = resume.state();
    if let Some((held, _)) = resume.as_ref().filter(|(held, _)| *held > peer.org.generation) {
        restored(&agent, &peer, *held).await?;
    }
    let (lines, waiting) = mpsc::channel(WAITING);
    let feed = Feed { lines, agent, peer };
    let channel = feed.agent.deps.view.attach(feed.peer.org.id, feed.peer.cluster).map_err(|error| {
        let refusal = match error {
            AttachError::NoState => {
                Refusal::new(Kind::Unavailable, "There is no state for this cluster yet; try again.")
            }
            AttachError::TooMany => {
                Refusal::new(Kind::RateLimited, "This cluster has too many feeds open; close some first.")
            }
        };
        refusal.retry_after(1)
    })?;
    task::spawn("feed", async move {
        let (org, cluster) = (feed.peer.org.id, feed.peer.cluster);
        let hold = feed.agent.liveness.open(org, cluster);
        feed.agent.liveness.published(org, cluster, channel.changed_at(), feed.agent.deps.now());
        feed.agent.metrics.feeds.inc();
        let end = feed.run(&channel, resume).await;
        feed.agent.metrics.feeds.dec();
        tracing::info!(
            org.id = %feed.peer.org.id,
            cluster.name = %feed.peer.peer.id.cluster,
            reason = end.reason(),
            "a feed ended"
        );
        drop(hold);
    });
    let body = Body::from_stream(ReceiverStream::new(waiting).map(Ok::<Bytes, Infallible>));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// How long an agent waits for the first state of a new epoch.
const EPOCH: Duration = Duration::from_secs(5);

/// The agent has a generation that this replica has not. Where the database has not either, it was restored from a
/// backup: a new epoch begins, so that the agent takes what is stored now for newer than what it has.
async fn restored(agent: &Agent, peer: &AgentPeer, held: Generation) -> Result<(), Refusal> {
    let (org, now) = (peer.org.id, agent.deps.now());
    let mut tx = agent.deps.store.begin().await?;
    if tx.world_org(org).await?.is_none_or(|(_, stored, _)| held <= stored) {
        return Ok(());
    }
    peer.check(&mut tx, now).await?;
    let Some(begun) = tx.begin_epoch(org, (held, Witness::Agent), now).await? else {
        tracing::warn!(org.id = %org, cluster.name = %peer.peer.id.cluster, snapshot.generation = %held,
            "an agent says that it has a generation that nobody gave it");
        return Ok(());
    };
    tx.insert_audit(&audit::restored(org, begun, Some(&peer.peer.id), now)).await?;
    tx.commit().await?;
    tracing::warn!(org.id = %org, cluster.name = %peer.peer.id.cluster, seen = %held, stored = %begun.0,
        snapshot.generation = %begun.1, "the database is older than what agents have: a new epoch begins");
    agent.deps.view.wait_for(org, begun.1, EPOCH).await;
    Ok(())
}

/// Why a feed ended.
enum End {
    /// The agent is gone.
    Left,
    /// Its cluster does not stand any more.
    Revoked,
    /// This replica ends.
    Draining,
    /// A line could not be written: it is too long.
    Unwritable,
    /// The database was restored from a backup: what the agent reported may be gone, and it looks when it comes again.
    Restored,
}

impl End {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Left => "the agent left",
            Self::Revoked => "the cluster was revoked",
            Self::Draining => "the controller ends",
            Self::Unwritable => "a line could not be written",
            Self::Restored => "the controller's database was restored; come again",
        }
    }
}

struct Feed {
    lines: mpsc::Sender<Bytes>,
    agent: Agent,
    peer: AgentPeer,
}

impl Feed {
    async fn run(&self, channel: &FeedGuard, resume: Option<(Generation, Digest)>) -> End {
        let stop: drain::Watch = self.agent.stop.clone();
        let end = tokio::select! {
            biased;
            () = self.revoked() => End::Revoked,
            () = stop.signaled() => End::Draining,
            () = self.lines.closed() => End::Left,
            end = self.feed(channel, resume) => end,
        };
        if matches!(end, End::Revoked | End::Draining | End::Restored) {
            let goodbye: FeedLine<ClusterResource> = FeedLine::Goodbye { reason: end.reason().to_owned() };
            if let Ok(line) = encode_line(&goodbye) {
                // a receiver that does not read does not need to know
                let _ = self.lines.try_send(line.into());
            }
        }
        end
    }

    /// Waits until the peer does not stand any more.
    async fn revoked(&self) {
        let Some(mut states) = self.agent.deps.view.watch(self.peer.org.id) else { return };
        loop {
            let stands = self.peer.stands(&states.borrow_and_update());
            if !stands || states.changed().await.is_err() {
                return;
            }
        }
    }

    async fn feed(&self, channel: &FeedGuard, resume: Option<(Generation, Digest)>) -> End {
        let mut newest = channel.watch();
        newest.borrow_and_update();
        if let Err(end) = self.send(&FeedLine::Hello(version::hello())).await {
            return end;
        }
        let (mut telling, lines) = Telling::begin(channel, resume);
        for line in &lines {
            if let Err(end) = self.send(line).await {
                return end;
            }
        }
        drop(lines);
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                changed = newest.changed() => {
                    if changed.is_err() {
                        return End::Left;
                    }
                    telling.news(channel)
                }
                _ = beat.tick() => telling.beat(channel),
            };
            let line = match next {
                Next::Line(line) => line,
                Next::Nothing => continue,
                Next::Restored => return End::Restored,
            };
            if let Err(end) = self.send(&line).await {
                return end;
            }
        }
    }

    async fn send(&self, line: &FeedLine<ClusterResource>) -> Result<(), End> {
        let kind = match line {
            FeedLine::Hello(_) => "hello",
            FeedLine::Current { .. } => "current",
            FeedLine::Part { .. } => "part",
            FeedLine::Snapshot { .. } => "snapshot",
            FeedLine::Delta { .. } => "delta",
            FeedLine::Heartbeat { .. } => "heartbeat",
            FeedLine::Goodbye { .. } => "goodbye",
            FeedLine::Unknown => "unknown",
        };
        let bytes = encode_line(line).map_err(|error| {
            tracing::error!(
                org.id = %self.peer.org.id,
                cluster.name = %self.peer.peer.id.cluster,
                error = telemetry::chain(&error),
                "what a cluster must know cannot be sent"
            );
            End::Unwritable
        })?;
        self.agent.metrics.lines.get_or_create(&[("kind", kind)]).inc();
        self.agent.metrics.bytes.get_or_create(&[("kind", kind)]).inc_by(bytes.len() as u64);
        self.lines.send(bytes.into()).await.map_err(|_| End::Left)
    }
}
