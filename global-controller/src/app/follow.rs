//! Following an organization's changes. A hint wakes, the database is read again: a lost hint costs seconds, not
//! events, because every change has its generation in the order of commits.

use super::{
    Deps,
    audit::AuditEvent,
    caller::Scope,
    cluster::Cluster,
    error::{Kind, Refusal, Result},
    status::Installing,
};
use crate::{
    publish::{Event, News},
    store::audit::AuditRow,
};
use futures::FutureExt as _;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::broadcast,
    time::{Instant, timeout_at},
};
use tombolo_model::{Generation, id::OrgId};
use tombolo_runtime::{places::Place, telemetry};

/// How often the database is read without a hint.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a reading comes at least after the one before.
const PAUSE: Duration = Duration::from_millis(100);
/// Audit events read at a time.
const BATCH: i64 = 200;
/// A follower that comes back further behind than this reads everything anew.
const MOST_MISSED: usize = 1000;
/// Clusters whose state is followed.
const MOST_CLUSTERS: i64 = 1000;

/// Something to tell a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `hello`, `audit`, `generation`, `cluster`, `install` or `reset`.
    pub(crate) kind: &'static str,
    /// Where to go on from after this; none in the middle of a generation.
    pub(crate) id: Option<u64>,
    /// JSON.
    pub(crate) data: String,
}

/// One follower.
pub(crate) struct Follower {
    deps: Arc<Deps>,
    scope: Scope,
    hints: broadcast::Receiver<Event>,
    queue: VecDeque<Told>,
    since: Generation,
    /// A hash of what was told last of each: there may be many followers, and many clusters.
    clusters: Option<BTreeMap<String, u64>>,
    installs: Option<BTreeMap<String, u64>>,
    /// When the database was read last.
    read_at: Option<Instant>,
    place: Place<OrgId>,
}

impl Follower {
    /// Begins after the generation `last`, or now.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where too many follow already, and no organization has more than ours.
    pub(crate) async fn start(deps: Arc<Deps>, scope: Scope, last: Option<u64>) -> Result<Self> {
        let place = deps.followers.take(&scope.org.id).map_err(|_| {
            Refusal::new(Kind::Unavailable, "Too many follow already; try again later.").retry_after(30)
        })?;
        // before the first reading, so that nothing falls between
        let hints = deps.view.subscribe();
        let now = scope.org.generation;
        // a number that we never gave out, or gave out before the database was restored, is no place to go on from
        let last = last.map(Generation::new);
        let since = last.filter(|last| *last <= now && last.epoch() == now.epoch()).unwrap_or(now);
        let hello = Told {
            kind: "hello",
            id: Some(since.get()),
            data: json!({ "generation": now.get(), "since": since.get() }).to_string(),
        };
        let mut queue = VecDeque::from([hello]);
        if last.is_some_and(|last| last != since) {
            queue.push_back(reset(now));
        }
        Ok(Self { deps, scope, hints, queue, since, clusters: None, installs: None, read_at: None, place })
    }

    /// The next thing to tell; `None` at the end: the token ended, this process ends, another follower got the place, or the database does
    /// not answer, and the follower comes back with what it had last.
    ///
    /// Cancel safe: what is not told yet is told by the next call.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.queue.pop_front() {
                return Some(told);
            }
            self.wait().await?;
            match self.read().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(refusal) => {
                    let error = refusal.cause.as_deref().map(|cause| telemetry::chain(cause));
                    tracing::warn!(error, "events: the database could not be read");
                    return None;
                }
            }
        }
    }

    /// Until there may be something new; `None` at the end of the process, or of the place.
    async fn wait(&mut self) -> Option<()> {
        if self.place.lost().now_or_never().is_some() {
            return None;
        }
        let Some(last) = self.read_at else { return Some(()) };
        loop {
            let hint = tokio::select! {
                biased;
                () = self.deps.stop.signaled() => return None,
                () = self.place.lost() => return None,
                hint = timeout_at(last + AGAIN, self.hints.recv()) => hint,
            };
            match hint {
                Ok(Ok(event)) if !self.is_news(event) => {}
                Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                Err(_) | Ok(_) => break,
            }
        }
        // hints of a busy moment are one: what they tell is read together
        tokio::time::sleep_until(last + PAUSE).await;
        Some(())
    }

    /// Whether the hint is of our organization, and not of what was read already.
    fn is_news(&self, event: Event) -> bool {
        let news = match event.news {
            News::Generation(generation) => generation > self.since,
            News::Status | News::Gone => true,
        };
        news && event.org == self.scope.org.id
    }

    /// Reads what is new into the queue; `false` where the caller may not follow any more.
    async fn read(&mut self) -> Result<bool> {
        self.read_at = Some(Instant::now());
        let now = self.deps.now();
        let mut tx = self.deps.store.begin_snapshot().await?;
        if !tx.api_token_stands(self.scope.caller.token, now).await? {
            return Ok(false);
        }
        let Some(org) = tx.organization_by_id(self.scope.org.id).await? else { return Ok(false) };
        let mut missed = Vec::new();
        let mut since = self.since;
        while since < org.generation && since.epoch() == org.generation.epoch() && missed.len() <= MOST_MISSED
        {
            let batch = tx.audit_since(org.id, since, BATCH).await?;
            let Some(last) = batch.last() else { break };
            // one use case writes one event: a generation is never cut by the end of a batch
            since = generation(last);
            let whole = i64::try_from(batch.len()).is_ok_and(|n| n < BATCH);
            missed.extend(batch);
            if whole {
                break;
            }
        }
        // of what was before the database was restored, nobody knows what was missed
        let other = self.since.epoch() != org.generation.epoch() || self.since > org.generation;
        if missed.len() > MOST_MISSED || other {
            self.queue.push_back(reset(org.generation));
        } else {
            for (n, row) in missed.iter().enumerate() {
                let ends = missed.get(n + 1).is_none_or(|next| generation(next) != generation(row));
                let shown = AuditEvent::show(row.clone());
                let data = serde_json::to_string(&shown).map_err(Refusal::internal)?;
                self.tell("audit", ends.then_some(generation(row)), data);
            }
            if since < org.generation {
                let data = json!({ "generation": org.generation.get() }).to_string();
                self.tell("generation", Some(org.generation), data);
            }
        }
        self.since = org.generation;
        let rows = tx.list_clusters(org.id, true, None, MOST_CLUSTERS, now).await?;
        let mut clusters = BTreeMap::new();
        for row in &rows {
            let shown = Cluster::show(row);
            let data = serde_json::to_string(&shown).map_err(Refusal::internal)?;
            let hash = hash(&data);
            if self.clusters.as_ref().is_some_and(|known| known.get(&shown.name) != Some(&hash)) {
                self.tell("cluster", None, data);
            }
            clusters.insert(shown.name, hash);
        }
        self.clusters = Some(clusters);
        let mut installs = BTreeMap::new();
        for (cluster, status) in tx.installing(org.id).await? {
            let install = Installing::show(status);
            let data = json!({ "cluster": cluster, "install": install }).to_string();
            let hash = hash(&data);
            if self.installs.as_ref().is_some_and(|known| known.get(&cluster) != Some(&hash)) {
                self.tell("install", None, data);
            }
            installs.insert(cluster, hash);
        }
        self.installs = Some(installs);
        Ok(true)
    }

    fn tell(&mut self, kind: &'static str, id: Option<Generation>, data: String) {
        self.queue.push_back(Told { kind, id: id.map(Generation::get), data });
    }
}

fn hash(data: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// Tells to read everything again.
fn reset(now: Generation) -> Told {
    Told { kind: "reset", id: Some(now.get()), data: json!({ "generation": now.get() }).to_string() }
}

/// The generation of an event of an organization.
fn generation(row: &AuditRow) -> Generation {
    row.org.map_or(Generation::ZERO, |(_, generation)| generation)
}
