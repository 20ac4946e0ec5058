use super::*;
use crate::{
    budget::{Budget, Who},
    conns::{Conns, Kind},
};
use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex},
    task::Waker,
};
use tombolo_runtime::places::Source;

/// An end made of what it will give, and a note of what was done to it.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    gives: VecDeque<Result<Received, Broken>>,
    room: usize,
    refuses: bool,
    waker: Option<Waker>,
    notes: Vec<String>,
    consumed: usize,
}

impl Fake {
    fn giving(gives: impl IntoIterator<Item = Result<Received, Broken>>) -> Self {
        let fake = Self::default();
        *fake.0.lock().unwrap() =
            State { gives: gives.into_iter().collect(), room: usize::MAX, ..State::default() };
        fake
    }
    fn notes(&self) -> String {
        self.0.lock().unwrap().notes.join(" ")
    }
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap();
        change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl End for Fake {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        let mut state = self.0.lock().unwrap();
        match state.gives.pop_front() {
            Some(next) => Poll::Ready(next),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
    fn poll_gather(&mut self, _cx: &mut Context<'_>) {}
    fn consumed(&mut self, bytes: usize) {
        self.0.lock().unwrap().consumed += bytes;
    }
    fn gathered(&self) -> usize {
        self.0
            .lock()
            .unwrap()
            .gives
            .iter()
            .map(|next| match next {
                Ok(Received::Data(data)) => data.len(),
                _ => 0,
            })
            .sum()
    }
    fn queued(&self) -> usize {
        10_000
    }
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        let mut state = self.0.lock().unwrap();
        if state.refuses {
            return Poll::Ready(Err(Broken::Reset));
        }
        let taken = data.split_to(data.len().min(state.room));
        state.room -= taken.len();
        if !taken.is_empty() {
            state.notes.push(String::from_utf8_lossy(&taken).into_owned());
        }
        if data.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.0.lock().unwrap().notes.push("flush".into());
        Poll::Ready(Ok(()))
    }
    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.0.lock().unwrap().notes.push("finish".into());
        Poll::Ready(Ok(()))
    }
    fn poll_reset(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().unwrap().notes.push("reset".into());
        Poll::Ready(())
    }
    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<Broken> {
        Poll::Pending
    }
    fn abort(&mut self) {
        self.0.lock().unwrap().notes.push("abort".into());
    }
}

fn data(text: &'static str) -> Result<Received, Broken> {
    Ok(Received::Data(Bytes::from_static(text.as_bytes())))
}
const EOF: Result<Received, Broken> = Ok(Received::Eof);
const RESET: Result<Received, Broken> = Err(Broken::Reset);

fn who() -> Who {
    Who::Address(Source::of(IpAddr::from([127, 0, 0, 1])))
}

async fn run(client: &Fake, server: &Fake) -> (Ending, u64, u64) {
    let progress = Progress::default();
    let (budget, conns) = (Budget::new(1 << 20, 1 << 20), Conns::new(1));
    let ticket = conns.admit(Kind::Connection, 1).unwrap();
    let mut waiting = budget.connection(who(), &ticket);
    let ending = copy(&mut client.clone(), &mut server.clone(), &progress, &mut waiting).await;
    (ending, progress.up(), progress.down())
}

#[tokio::test]
async fn each_half_ends_by_itself() {
    let client = Fake::giving([data("ask"), EOF]);
    let server = Fake::giving([data("an"), data("swer"), EOF]);
    assert_eq!(run(&client, &server).await, (Ending::Clean, 3, 6));
    assert_eq!((server.notes().as_str(), client.notes().as_str()), ("ask finish", "an swer finish"));
    assert_eq!(client.0.lock().unwrap().consumed, 3);
}

#[tokio::test]
async fn a_reset_follows_the_bytes_before_it() {
    let client = Fake::giving([]);
    let server = Fake::giving([data("last words"), RESET]);
    let broken = Ending::Broken { side: Side::Server, how: Broken::Reset };
    assert_eq!(run(&client, &server).await, (broken, 0, 10));
    assert_eq!(client.notes(), "last words reset");
}

#[tokio::test]
async fn what_a_broken_end_had_sent_is_delivered() {
    // The client's bytes hit a server that is gone, while its last words are still unread.
    let client = Fake::giving([data("more")]);
    let server = Fake::giving([data("good"), data("bye"), RESET]);
    server.change(|state| state.refuses = true);
    let broken = Ending::Broken { side: Side::Server, how: Broken::Reset };
    assert_eq!(run(&client, &server).await, (broken, 0, 7));
    assert_eq!(client.notes(), "good bye reset");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_sleeps_does_not_hold_a_broken_connection_for_ever() {
    let client = Fake::giving([data("more")]);
    client.change(|state| state.room = 2);
    let server = Fake::giving([data("unread"), RESET]);
    server.change(|state| state.refuses = true);
    let begin = tokio::time::Instant::now();
    let (ending, ..) = run(&client, &server).await;
    assert_eq!(ending, Ending::Broken { side: Side::Server, how: Broken::Reset });
    assert!((STUCK..=STUCK * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(client.notes(), "un abort");
}

#[tokio::test]
async fn nothing_is_taken_that_has_no_room() {
    let client = Fake::giving([data("abcdef"), data("gh"), EOF]);
    let server = Fake::giving([EOF]);
    server.change(|state| state.room = 4);
    let running = run(&client, &server);
    let widening = async {
        tokio::task::yield_now().await;
        assert_eq!(client.0.lock().unwrap().consumed, 4, "the window opens by what went through");
        assert_eq!(client.0.lock().unwrap().gives.len(), 2, "and no more is read");
        server.change(|state| state.room = 100);
    };
    let ((ending, up, _), ()) = tokio::join!(running, widening);
    assert_eq!((ending, up, server.notes().as_str()), (Ending::Clean, 8, "abcd ef gh finish"));
}

#[tokio::test]
async fn one_busy_connection_leaves_the_thread_to_others() {
    let client = Fake::giving((0..10 * TURN).map(|_| data("x")).chain([EOF]));
    let server = Fake::giving([EOF]);
    let mut seen = 0;
    let watch = async {
        while seen == 0 || server.0.lock().unwrap().notes.last().is_some_and(|note| note != "finish") {
            seen += 1;
            tokio::task::yield_now().await;
        }
    };
    let (_, ()) = tokio::join!(run(&client, &server), watch);
    assert!(seen >= 9, "{seen}");
}

#[tokio::test]
async fn what_waits_is_counted_as_long_as_it_does() {
    let client = Fake::giving([data("abcdef"), data("gh"), EOF]);
    let server = Fake::giving([EOF]);
    server.change(|state| state.room = 4);
    let (budget, conns) = (Budget::new(1 << 20, 1 << 20), Conns::new(1));
    let ticket = conns.admit(Kind::Connection, 1).unwrap();
    let mut waiting = budget.connection(who(), &ticket);
    let (progress, mut from, mut to) = (Progress::default(), client.clone(), server.clone());
    let running = copy(&mut from, &mut to, &progress, &mut waiting);
    let widening = async {
        tokio::task::yield_now().await;
        // two bytes that were taken, two that were gathered, and what is queued
        assert_eq!(budget.waiting(), 2 + 2 + 10_000);
        server.change(|state| state.room = 100);
    };
    assert_eq!(tokio::join!(running, widening).0, Ending::Clean);
    assert_eq!(budget.waiting(), 0);
}
