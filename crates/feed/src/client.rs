//! The client: one task that keeps a feed, and the handles that others read.

use crate::{
    backoff::Backoff,
    cache,
    connect::Connector,
    follower::Follower,
    request::{Link, REQUEST_TIMEOUT, RequestError, Requests},
    session,
    status::Status,
    token::TokenFile,
};
use futures::future::BoxFuture;
use rand::{SeedableRng, rngs::StdRng};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tombolo_model::{
    Generation,
    snapshot::{Resource, Resources},
};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::{
    message::Ack,
    session::{Changes, SILENCE},
};

/// The longest wait between two attempts to reach anybody.
const UNREACHED: Duration = Duration::from_secs(1);

/// A state in force.
#[derive(Clone, Debug)]
pub struct State<R> {
    /// Its generation; zero before the first.
    pub generation: Generation,
    /// Every resource.
    pub resources: Arc<Resources<R>>,
    /// The generation before it on this feed.
    pub previous: Generation,
    /// What changed from `previous`. A reader that did not see that one (a watch passes states over) must
    /// take everything as changed.
    pub changes: Changes,
}

/// What there is before the first.
impl<R> Default for State<R> {
    fn default() -> Self {
        Self {
            generation: Generation::ZERO,
            resources: Arc::default(),
            previous: Generation::ZERO,
            changes: Changes::default(),
        }
    }
}

/// Looks at a state before it is put in force; what it refuses is acknowledged as refused, and the old state stays.
pub type Validate<R> = Arc<dyn Fn(&Resources<R>) -> Result<(), String> + Send + Sync>;

/// Runs at the start of each connection, before the feed is asked for: a gateway says hello here.
pub type OnConnect = Arc<dyn Fn(Requests) -> BoxFuture<'static, Result<(), RequestError>> + Send + Sync>;

/// What a feed needs to know.
#[derive(Clone)]
pub struct Options<R> {
    /// The feed's path, as `/agent/v1/feed` or `/gateway/v1/feed?instance=I`; generation and digest are added.
    pub path: String,
    /// Where to acknowledge, as `/agent/v1/ack`.
    pub ack_path: String,
    /// The file for the last good state; its folder must be there.
    pub cache: Option<PathBuf>,
    /// Looks at a state before it is put in force.
    pub validate: Validate<R>,
    /// Runs at the start of each connection.
    pub on_connect: Option<OnConnect>,
    /// What each request shows, where the connection itself does not say who asks.
    pub token: Option<TokenFile>,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// The longest of them while nobody is reached at all: a link that is whole again is to be found soon, and what gets no answer costs
    /// nobody anything.
    pub unreached: Duration,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// After this long without a byte the sender is taken for dead.
    pub silence: Duration,
    /// Makes the jitter repeatable; from the system where there is none.
    pub seed: Option<u64>,
}

impl<R: Resource> Options<R> {
    /// A feed with the usual times, no cache, and every state taken.
    pub fn new(path: impl Into<String>, ack_path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ack_path: ack_path.into(),
            cache: None,
            validate: Arc::new(|_| Ok(())),
            on_connect: None,
            token: None,
            backoff: Backoff::default(),
            unreached: UNREACHED,
            connect_timeout: Duration::from_secs(5),
            silence: SILENCE,
            seed: None,
        }
    }
}

/// What the running feed and its readers share.
pub(crate) struct Shared<R> {
    pub(crate) state: watch::Sender<Arc<State<R>>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) link: watch::Sender<Option<Link>>,
    pub(crate) ack: watch::Sender<Option<Ack>>,
}

/// The handles of a feed. The feed itself is [`Running`].
#[derive(Clone, Debug)]
pub struct Client<R> {
    state: watch::Receiver<Arc<State<R>>>,
    status: watch::Receiver<Status>,
    requests: Requests,
}

/// A feed to be run: `runtime::task::spawn("feed", running.run())`.
pub struct Running<R, C> {
    connector: C,
    options: Options<R>,
    shared: Shared<R>,
    follower: Follower<R>,
}

impl<R: Resource> Client<R> {
    /// Reads the kept state, so that [`Self::state`] has it before any connection, and makes the feed to run.
    /// Never fails: a cache that can't be read is reported in [`Status::cache_error`] and in the log.
    pub fn build<C: Connector>(connector: C, options: Options<R>) -> (Self, Running<R, C>) {
        let mut status = Status::default();
        let mut follower = Follower::new(Arc::clone(&options.validate));
        if let Some(path) = &options.cache {
            match follower.restore(cache::load::<R>(path)) {
                Ok(false) => {}
                Ok(true) => {
                    let generation = follower.generation();
                    tracing::info!(snapshot.generation = generation.get(), "serving the kept state");
                    (status.generation, status.kept, status.from_cache) = (generation, generation, true);
                }
                Err(error) => {
                    tracing::warn!(error, "the kept state can't be used");
                    status.cache_error = Some(error);
                }
            }
        }
        let first = follower.state();
        let (state_tx, state) = watch::channel(Arc::new(first));
        let (status_tx, status) = watch::channel(status);
        let (link, links) = watch::channel(None);
        let (ack, _) = watch::channel(None);
        let client = Self { state, status, requests: Requests::new(links, REQUEST_TIMEOUT) };
        let shared = Shared { state: state_tx, status: status_tx, link, ack };
        (client, Running { connector, options, shared, follower })
    }

    /// The state in force; generation zero before the first.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<State<R>>> {
        self.state.clone()
    }

    /// How the feed is. Changes with every line, heartbeats included.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Sends small requests over the feed's connection.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }
}

impl<R: Resource, C: Connector> Running<R, C> {
    /// Keeps the feed for as long as it is polled. It never ends by itself; dropping it closes the connection.
    pub async fn run(self) {
        let Self { connector, options, shared, mut follower } = self;
        tokio::join!(
            keep_connected(&connector, &options, &shared, &mut follower),
            keep_on_disk(options.cache.clone(), &shared),
        );
    }
}

async fn keep_connected<R: Resource, C: Connector>(
    connector: &C,
    options: &Options<R>,
    shared: &Shared<R>,
    follower: &mut Follower<R>,
) {
    let mut rng = options.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
    let mut backoff = options.backoff.clone();
    loop {
        let began = Instant::now();
        let ended = session::run(connector, options, shared, follower).await;
        shared.link.send_replace(None);
        // A feed that lived was a good one; one that ends at once, again and again, must not be asked for in a loop.
        if began.elapsed() >= options.silence {
            backoff.reset();
        }
        let most = if ended.is_unreached() { options.unreached } else { Duration::MAX };
        let wait = backoff.next_within(most, &mut rng);
        let error = chain(&ended);
        tracing::warn!(
            error,
            retry_ms = wait.as_millis() as u64,
            "the feed ended; the last state stays in force"
        );
        shared.status.send_modify(|status| {
            status.connected = false;
            status.lost.get_or_insert_with(Instant::now);
            status.failures = backoff.failures();
            status.error = Some(error);
        });
        sleep(wait).await;
    }
}

/// Writes each state that comes, the newest only, and at most a tenth of the time: a big state that changes
/// every second must not keep the disk busy.
async fn keep_on_disk<R: Resource>(path: Option<PathBuf>, shared: &Shared<R>) {
    let Some(path) = path else { return };
    let mut states = shared.state.subscribe();
    while states.changed().await.is_ok() {
        let state = Arc::clone(&states.borrow_and_update());
        let began = Instant::now();
        let file = path.clone();
        let written = tokio::task::spawn_blocking({
            let state = Arc::clone(&state);
            move || cache::store(&file, state.generation, &state.resources)
        })
        .await;
        let generation = state.generation;
        let error = match written {
            Ok(Ok(())) => {
                shared.status.send_modify(|status| status.kept = generation);
                None
            }
            Ok(Err(error)) => Some(chain(&error)),
            Err(error) => Some(chain(&error)),
        };
        if let Some(error) = &error {
            tracing::warn!(error, "the state could not be kept on disk; it is in force all the same");
        }
        shared.status.send_modify(|status| status.cache_error = error);
        sleep(began.elapsed() * 9).await;
    }
}

/// Makes a connection within the limit.
pub(crate) async fn within<T, E>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
    late: impl FnOnce() -> E,
) -> Result<T, E> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
