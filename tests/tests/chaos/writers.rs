//! Clients that write and read by the API, and the record of all that they were told.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tombolo_testkit::wait::until_ok;
use tombolo_tests::{
    dice::Dice,
    history::{Operation, Told, What, check},
    loopback::{Api, SOON},
};

const CLIENTS: u64 = 4;
/// Fewer than clients, so that they get in each other's way.
const OBJECTS: usize = 3;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked and told, of each object.
#[derive(Clone)]
struct Book {
    start: Instant,
    told: Arc<Mutex<All>>,
}

#[derive(Default)]
struct All {
    /// The next value to write, and the next place in the book.
    next: u64,
    of: [BTreeMap<u64, Operation>; OBJECTS],
}

impl Book {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, object: usize, called: u64, value: u64) {
        let one = Operation { called, returned: self.now(), what: What::Read(value) };
        let mut all = self.all();
        all.next += 1;
        let place = all.next;
        all.of[object].insert(place, one);
    }

    /// A change is asked for. Until more is told, it may have been made: others can see it before its answer is here.
    fn ask(&self, object: usize, from: u64) -> u64 {
        let called = self.now();
        let mut all = self.all();
        all.next += 1;
        let to = all.next;
        let what = What::Change { from, to, told: Told::Nothing };
        all.of[object].insert(to, Operation { called, returned: u64::MAX, what });
        to
    }

    /// The answer is here. `None`: it was not looked at.
    fn tell(&self, object: usize, to: u64, answer: Option<Told>) {
        let now = self.now();
        let mut all = self.all();
        let Some(answer) = answer else {
            all.of[object].remove(&to);
            return;
        };
        let one = all.of[object].get_mut(&to).unwrap();
        one.returned = now;
        if let What::Change { told, .. } = &mut one.what {
            *told = answer;
        }
    }

    fn of(&self, object: usize) -> Vec<Operation> {
        self.all().of[object].values().copied().collect()
    }
}

/// What became of what was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    pub(crate) read: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, refused, unanswered, read } = self;
        write!(
            f,
            "{acknowledged} writes acknowledged, {refused} refused, {unanswered} without an answer, {read} reads"
        )
    }
}

/// Clients, at work until they are stopped.
pub(crate) struct Writers {
    api: Api,
    book: Book,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Writers {
    /// Makes the objects, and begins. A client rests for `pause` after each turn.
    pub(crate) async fn start(api: &Api, seed: u64, pause: Duration) -> Self {
        for object in 0..OBJECTS {
            let path = "/organizations/acme/global-namespaces";
            until_ok("the object is made", SOON, || async { api.try_post(path, &body(object, 0)).await })
                .await;
        }
        let book = Book { start: Instant::now(), told: Arc::default() };
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for one in 1..=CLIENTS {
            let dice = Dice::new(seed.wrapping_add(one << 32));
            clients.spawn(client(api.clone(), dice, book.clone(), pause, stopped.clone()));
        }
        Self { api: api.clone(), book, stop, clients }
    }

    /// Whether all that was told until now can be true.
    ///
    /// # Panics
    /// Where it can't, or a client ended.
    pub(crate) fn check(&mut self) {
        if let Some(ended) = self.clients.try_join_next() {
            panic!("a client ended: {ended:?}");
        }
        self.hold();
    }

    fn hold(&self) {
        for object in 0..OBJECTS {
            let told = self.book.of(object);
            check(0, &told).unwrap_or_else(|wrong| panic!("{}: {wrong}", path(object)));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for one in self.book.all().of.iter().flat_map(BTreeMap::values) {
            match one.what {
                What::Change { told: Told::Done, .. } => counts.acknowledged += 1,
                What::Change { told: Told::Refused, .. } => counts.refused += 1,
                What::Change { told: Told::Nothing, .. } => counts.unanswered += 1,
                What::Read(_) => counts.read += 1,
            }
        }
        counts
    }

    /// Lets the clients end, reads each object once more, and holds all that was told against it.
    pub(crate) async fn stop(mut self) -> Counts {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        for object in 0..OBJECTS {
            let called = self.book.now();
            let read = || async {
                match self.api.exchange(Method::GET, &path(object), None, PATIENCE).await {
                    Ok((StatusCode::OK, _, body)) => Ok(value(&body)),
                    other => Err(format!("{other:?}")),
                }
            };
            let last = until_ok("the object is read", SOON, read).await;
            self.book.read(object, called, last);
        }
        self.hold();
        self.counts()
    }
}

/// The object, holding a value: as a label that no cluster has.
fn body(object: usize, value: u64) -> Value {
    let rules =
        json!([{ "cluster": { "labels": { "value": value.to_string() } }, "namespace": { "name": "none" } }]);
    json!({ "name": format!("register-{object}"), "domain": format!("register-{object}.example.com"), "rules": rules })
}

fn path(object: usize) -> String {
    format!("/organizations/acme/global-namespaces/register-{object}")
}

fn value(body: &Value) -> u64 {
    let text = body["rules"][0]["cluster"]["labels"]["value"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{body} has no value"))
}

/// Reads, and mostly changes what it read, until it is told to stop.
async fn client(api: Api, mut dice: Dice, book: Book, pause: Duration, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        turn(&api, &mut dice, &book).await;
        sleep(pause).await;
    }
}

async fn turn(api: &Api, dice: &mut Dice, book: &Book) {
    let object = usize::try_from(dice.below(OBJECTS as u64)).unwrap();
    let called = book.now();
    let answer = api.exchange(Method::GET, &path(object), None, PATIENCE).await;
    let Ok((StatusCode::OK, Some(tag), read)) = answer else {
        return sleep(Duration::from_millis(100)).await;
    };
    let from = value(&read);
    book.read(object, called, from);
    if dice.below(4) == 0 {
        return;
    }
    let to = book.ask(object, from);
    let answer = api.exchange(Method::PUT, &path(object), Some((&tag, &body(object, to))), PATIENCE).await;
    let told = match answer {
        Ok((StatusCode::OK, ..)) => Some(Told::Done),
        Ok((StatusCode::PRECONDITION_FAILED, ..)) => Some(Told::Refused),
        // faster than the API lets one token be: nothing was done
        Ok((StatusCode::TOO_MANY_REQUESTS, ..)) => None,
        Ok((status, _, body)) if status.is_client_error() => panic!("{status}: {body}"),
        _ => Some(Told::Nothing),
    };
    book.tell(object, to, told);
    if told.is_none() {
        sleep(Duration::from_millis(500)).await;
    }
}
