use super::*;
use crate::conns::{Conns, Kind, Ticket};
use std::net::IpAddr;

const K: usize = 1 << 10;

fn who(last: u8) -> Who {
    Who::Address(Source::of(IpAddr::from([10, 0, 0, last])))
}

fn ticket(conns: &Conns) -> Ticket {
    conns.admit(Kind::Connection, conns.number()).unwrap()
}

fn is_cut(ticket: &Ticket) -> Option<Reason> {
    use futures::FutureExt as _;
    ticket.ended().now_or_never()
}

#[test]
fn the_largest_of_whoever_has_most_go() {
    let waiting = [("hog", 1, 40), ("hog", 2, 30), ("hog", 3, 30), ("other", 4, 35), ("third", 5, 0)];
    let goes = |most| cut(waiting, most);
    assert!(goes(135).is_empty());
    assert_eq!(goes(134), [1]);
    assert_eq!(goes(80), [1, 3], "of two that are as large, one");
    assert_eq!(goes(64), [1, 3, 4]);
    assert_eq!(goes(0), [1, 3, 4, 2], "where nothing waits, nothing is to be had");
}

#[test]
fn windows_get_narrow_early_and_wide_late() {
    let steps = [0, 49, 50, 74, 75, 60, 49, 38, 37, 50];
    let mut now = 0;
    let seen: Vec<u8> = steps
        .into_iter()
        .map(|waiting| {
            now = step(now, waiting * 8, 800);
            now
        })
        .collect();
    assert_eq!(seen, [0, 0, 1, 1, 2, 2, 2, 2, 0, 1]);
}

#[test]
fn one_who_reads_nothing_takes_no_more_than_there_is() {
    let (budget, conns) = (Budget::new(800 * K, 1 << 20), Conns::new(100));
    let other = ticket(&conns);
    let mut of_other = budget.connection(who(2), &other);
    of_other.set(150 * K);
    let mut hog: Vec<_> = (0..100 - 1)
        .map(|_| {
            let ticket = ticket(&conns);
            (budget.connection(who(1), &ticket), ticket)
        })
        .collect();
    for (waiting, _) in &mut hog {
        waiting.set(90 * K);
        assert!(budget.waiting() <= 800 * K, "{}", budget.waiting());
    }
    assert_eq!(is_cut(&other), None, "who has less than others loses nothing");
    let cut = hog.iter().filter(|(_, ticket)| is_cut(ticket) == Some(Reason::Overloaded)).count();
    assert!((90..99).contains(&cut), "{cut}");
    // what was cut counts no more, whatever it says; and nothing is given back twice
    hog.iter_mut().for_each(|(waiting, _)| waiting.set(4 * K));
    assert_eq!(budget.waiting(), (150 + (99 - cut) * 4) * K);
    drop(hog);
    assert_eq!((budget.waiting(), budget.entries().len()), (150 * K, 1));
    of_other.set(0);
    drop(of_other);
    assert_eq!((budget.waiting(), budget.entries().len()), (0, 0));
}

#[test]
fn many_threads_lose_no_byte_of_the_count() {
    let (budget, conns) = (Budget::new(100 * K, 1 << 20), Conns::new(100));
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let (budget, conns) = (budget.clone(), conns.clone());
            scope.spawn(move || {
                for round in 0..200 {
                    let ticket = ticket(&conns);
                    let mut waiting = budget.connection(who(thread), &ticket);
                    for step in 0..20 {
                        waiting.set((round * 37 + step * 911) % (30 * K));
                    }
                }
            });
        }
    });
    assert_eq!((budget.waiting(), budget.0.waiting.load(Ordering::Relaxed)), (0, 0));
    assert!(budget.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_told_when_its_peer_can_be() {
    let (budget, conns) = (Budget::new(800 * K, 1 << 20), Conns::new(1));
    let ticket = ticket(&conns);
    let mut waiting = budget.connection(who(1), &ticket);
    let mut windows = budget.windows();
    waiting.set(700 * K);
    assert_eq!(windows.change().await, 64 << 10);
    windows.tell(64 << 10, false);
    let again = Instant::now();
    assert_eq!((windows.change().await, windows.told()), (64 << 10, 1 << 20));
    assert!(again.elapsed() >= PACE);
    windows.tell(64 << 10, true);
    assert_eq!(budget.windows().told(), 64 << 10, "new ones begin so");
    drop(waiting);
    assert_eq!(windows.change().await, 1 << 20);
}

#[test]
fn the_usual_is_a_part_of_what_there_is() {
    assert_eq!(usual(Some(512 << 20)), 128 << 20);
    assert_eq!(usual(Some(1 << 20)), 16 << 20);
    assert_eq!((usual(Some(u64::MAX)), usual(None)), (4 << 30, 4 << 30));
}
