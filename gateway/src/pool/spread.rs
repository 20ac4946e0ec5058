//! Which of several tunnels to one address takes the next stream, and which one is too many. Pure.
//!
//! Behind one address there may be several gateways (a load balancer's, a node's port). Who answers there is chosen by the network, a
//! connection at a time, so several are made, and streams go by the load of each gateway: three tunnels to one and one to another
//! are two gateways, not four.

use std::{cmp::Reverse, collections::HashMap, hash::Hash, time::Duration};

/// A tunnel, as far as it matters here. `R` tells gateways apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen<R> {
    pub(super) replica: R,
    pub(super) streams: usize,
    /// Whether it takes one more.
    pub(super) room: bool,
    /// When it was picked last.
    pub(super) turn: u64,
    pub(super) age: Duration,
}

/// The tunnel for the next stream: of the gateway with the fewest, and of equal ones that which waited longest.
pub(super) fn next<R: Eq>(all: &[Seen<R>]) -> Option<usize> {
    // They are few: nothing is looked up.
    let gateway = |of: &Seen<R>| {
        let same = all.iter().filter(|one| one.replica == of.replica);
        same.fold((0, 0), |(streams, turn), one| (streams + one.streams, turn.max(one.turn)))
    };
    let with_room = all.iter().enumerate().filter(|(_, one)| one.room);
    with_room.min_by_key(|(_, one)| (gateway(one), one.streams, one.turn)).map(|(at, _)| at)
}

/// The one that goes where there is one too many: of the gateway that has the most, the one with the fewest streams, which would
/// keep it open; of equal ones the oldest.
pub(super) fn spare<R: Eq + Hash>(all: &[Seen<R>]) -> Option<usize> {
    let mut counts: HashMap<&R, usize> = HashMap::new();
    all.iter().for_each(|one| *counts.entry(&one.replica).or_default() += 1);
    let of = |one: &Seen<R>| counts.get(&one.replica).copied();
    let order = |(_, one): &(usize, &Seen<R>)| (Reverse(of(one)), one.streams, Reverse(one.age));
    all.iter().enumerate().min_by_key(order).map(|(at, _)| at)
}

/// Whether all of them lead to one gateway.
pub(super) fn is_lone<R: Eq>(all: &[Seen<R>]) -> bool {
    all.windows(2).all(|two| two[0].replica == two[1].replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(replica: char, streams: usize, turn: u64) -> Seen<char> {
        Seen { replica, streams, room: true, turn, age: Duration::ZERO }
    }

    /// Picks so often, and nothing ends: how many each gateway has then.
    fn picked(mut all: Vec<Seen<char>>, times: u64) -> HashMap<char, usize> {
        for turn in 1..=times {
            let at = next(&all).unwrap();
            (all[at].streams, all[at].turn) = (all[at].streams + 1, turn);
        }
        let mut counts = HashMap::new();
        all.iter().for_each(|one| *counts.entry(one.replica).or_default() += one.streams);
        counts
    }

    #[test]
    fn gateways_share_alike_however_many_tunnels_each_has() {
        let all = vec![seen('a', 0, 0), seen('a', 0, 0), seen('b', 0, 0), seen('a', 0, 0)];
        assert_eq!(picked(all, 100), [('a', 50), ('b', 50)].into());
        let busy = vec![seen('a', 30, 0), seen('b', 0, 0)];
        assert_eq!(picked(busy, 10), [('a', 30), ('b', 10)].into(), "the less loaded one first");
    }

    #[test]
    fn calls_that_end_at_once_take_turns_too() {
        let mut all = [seen('a', 0, 0), seen('a', 0, 0), seen('b', 0, 0)];
        let mut order = String::new();
        for turn in 1..=6 {
            let at = next(&all).unwrap();
            all[at].turn = turn;
            order.push_str(&format!("{}{at} ", all[at].replica));
        }
        assert_eq!(order, "a0 b2 a1 b2 a0 b2 ", "each gateway, and each of its tunnels");
    }

    #[test]
    fn a_full_tunnel_is_passed_over() {
        let full = Seen { room: false, ..seen('a', 0, 0) };
        assert_eq!(next(&[full.clone(), seen('b', 9, 9)]), Some(1));
        assert_eq!(next(&[full]), None);
        assert_eq!(next::<char>(&[]), None);
    }

    #[test]
    fn of_the_gateway_with_the_most_the_one_that_carries_least_goes() {
        let aged = |replica, seconds| Seen { age: Duration::from_secs(seconds), ..seen(replica, 0, 0) };
        assert_eq!(spare(&[aged('b', 90), aged('a', 5), aged('a', 60), aged('a', 7)]), Some(2));
        assert_eq!(spare(&[aged('b', 90), aged('a', 5)]), Some(0), "equal ones: the oldest");
        let carries = Seen { streams: 3, ..aged('a', 60) };
        assert_eq!(
            spare(&[aged('b', 90), carries.clone(), aged('a', 0)]),
            Some(2),
            "a newcomer that shows nothing new"
        );
        assert_eq!(
            spare(&[carries.clone(), carries, aged('b', 0)]),
            Some(0),
            "one that shows a gateway stays"
        );
        assert_eq!(spare::<char>(&[]), None);
        assert!(is_lone(&[aged('a', 1), aged('a', 2)]) && !is_lone(&[aged('a', 1), aged('b', 2)]));
    }
}
