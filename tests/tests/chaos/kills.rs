//! Many kills at random moments, while clients write and read: what a client was told stays true.

use crate::{Load, World};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tombolo_testkit::{postgres, wait::until_ok};
use tombolo_tests::{
    history::{Operation, Told, What, check},
    loopback::{Api, SOON, fill},
};

/// Kills where `TOMBOLO_KILLS` says nothing else.
const KILLS: u64 = 30;
const CLIENTS: u64 = 4;
/// Fewer than clients, so that they get in each other's way.
const OBJECTS: usize = 3;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        let mut word = [0; 8];
        fill(&mut word, &mut self.0);
        (u64::from_le_bytes(word) >> 33) % end
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What was asked and told, of each object.
#[derive(Clone)]
struct Book {
    start: Instant,
    told: Arc<Mutex<[Vec<Operation>; OBJECTS]>>,
    next: Arc<AtomicU64>,
}

impl Book {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap()
    }

    fn note(&self, object: usize, called: u64, what: What) {
        let returned = self.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told[object].push(Operation { called, returned, what });
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
async fn client(api: Api, mut dice: Dice, book: Book, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let object = usize::try_from(dice.below(OBJECTS as u64)).unwrap();
        let called = book.now();
        let answer = api.exchange(Method::GET, &path(object), None, PATIENCE).await;
        let Ok((StatusCode::OK, Some(tag), read)) = answer else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let from = value(&read);
        book.note(object, called, What::Read(from));
        if dice.below(4) == 0 {
            continue;
        }
        let to = book.next.fetch_add(1, Ordering::Relaxed);
        let called = book.now();
        let answer =
            api.exchange(Method::PUT, &path(object), Some((&tag, &body(object, to))), PATIENCE).await;
        let told = match answer {
            Ok((StatusCode::OK, ..)) => Told::Done,
            Ok((StatusCode::PRECONDITION_FAILED, ..)) => Told::Refused,
            // faster than the API lets one token be: nothing was done
            Ok((StatusCode::TOO_MANY_REQUESTS, ..)) => {
                sleep(Duration::from_millis(500)).await;
                continue;
            }
            Ok((status, _, body)) if status.is_client_error() => panic!("{status}: {body}"),
            _ => Told::Nothing,
        };
        book.note(object, called, What::Change { from, to, told });
    }
}

/// Kills one of them, or both replicas, and brings it back.
async fn strike(world: &mut World, dice: &mut Dice) -> &'static str {
    let victim = ["a replica", "the other replica", "both replicas", "PostgreSQL"]
        [usize::try_from(dice.below(4)).unwrap()];
    let killed: &[&str] = match victim {
        "a replica" => &["controller"],
        "the other replica" => &["controller-b"],
        "both replicas" => &["controller", "controller-b"],
        _ => &[],
    };
    for name in killed {
        world.kill(name);
        sleep(Duration::from_millis(dice.below(50))).await;
    }
    if killed.is_empty() {
        tokio::task::spawn_blocking(postgres::crash).await.unwrap();
    }
    sleep(Duration::from_millis(dice.below(200))).await;
    for name in killed {
        world.restart(name).await;
    }
    victim
}

pub(crate) async fn many_are_killed_at_random(world: &mut World, load: &Load) {
    let kills = number("TOMBOLO_KILLS").unwrap_or(KILLS);
    let seed = number("TOMBOLO_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    eprintln!("  {kills} kills; TOMBOLO_SEED={seed}");
    load.whole().await;
    for object in 0..OBJECTS {
        let path = "/organizations/acme/global-namespaces";
        until_ok("the object is made", SOON, || async { world.api.try_post(path, &body(object, 0)).await })
            .await;
    }

    let begin = Instant::now();
    let book = Book { start: begin, told: Arc::default(), next: Arc::new(AtomicU64::new(1)) };
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for one in 1..=CLIENTS {
        let dice = Dice(seed.wrapping_add(one << 32));
        clients.spawn(client(world.api.clone(), dice, book.clone(), stopped.clone()));
    }
    let (mut dice, mut struck) = (Dice(seed), BTreeMap::<_, u32>::new());
    for _ in 0..kills {
        *struck.entry(strike(world, &mut dice).await).or_default() += 1;
        sleep(Duration::from_millis(dice.below(300))).await;
    }
    load.since(begin, begin).await.nothing_noticed(world);
    stop.send_replace(true);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }

    let mut counts = [0; 3];
    for object in 0..OBJECTS {
        let called = book.now();
        let read = || async {
            match world.api.exchange(Method::GET, &path(object), None, PATIENCE).await {
                Ok((StatusCode::OK, _, body)) => Ok(value(&body)),
                other => Err(format!("{other:?}")),
            }
        };
        let last = until_ok("the object is read", SOON, read).await;
        book.note(object, called, What::Read(last));
        let told = book.told.lock().unwrap_or_else(PoisonError::into_inner)[object].clone();
        for one in &told {
            match one.what {
                What::Change { told: Told::Done, .. } => counts[0] += 1,
                What::Change { told: Told::Refused, .. } => counts[1] += 1,
                What::Change { told: Told::Nothing, .. } => counts[2] += 1,
                What::Read(_) => {}
            }
        }
        check(0, &told).unwrap_or_else(|wrong| panic!("TOMBOLO_SEED={seed}: {}: {wrong}", path(object)));
    }
    let [done, refused, nothing] = counts;
    eprintln!("  {struck:?}: {done} writes acknowledged, {refused} refused, {nothing} without an answer");
    assert!(done > kills, "{done} writes are no test of {kills} kills");
}
