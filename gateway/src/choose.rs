//! Which destination takes a connection. Pure: health, load and random numbers come in as values.
//!
//! The nearest first; among equally near ones, two are drawn by weight and the less loaded of the two is taken
//! ("power of two choices": almost as even as asking everybody, and it does not send a herd to the idlest). A
//! destination that came back a short while ago takes a growing share: the rest goes on as if it were away, also to
//! places farther off. One that refused lately comes last.

use tombolo_model::Proximity;

/// Where random numbers come from: each call gives a number in `0.0..1.0`.
pub trait Random {
    /// The next number.
    fn next(&mut self) -> f64;
}

impl<F: FnMut() -> f64> Random for F {
    fn next(&mut self) -> f64 {
        self()
    }
}

/// A destination to choose from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// How near; ties are equal.
    pub proximity: Proximity,
    /// Its weight among the equally near; zero is never chosen.
    pub weight: u32,
    /// The part of its weight it takes now: 0.0 for one that is dead, below 1.0 in slow start.
    pub share: f64,
    /// Whether it refused this name lately.
    pub refused: bool,
    /// Connections it has from here.
    pub load: usize,
}

/// All candidates that may take the connection, the preferred one first, by their place in `candidates`. The dead
/// and the weightless are left out.
pub fn order(candidates: &[Candidate], random: &mut impl Random) -> Vec<usize> {
    let alive = |i: &usize| candidates[*i].weight > 0 && candidates[*i].share > 0.0;
    let mut rest: Vec<usize> = (0..candidates.len()).filter(alive).collect();
    let mut order = Vec::with_capacity(rest.len());
    for refused in [false, true] {
        let mut later = Vec::new();
        let mut tier: Vec<usize> = Vec::new();
        let mut tiers: Vec<Proximity> = rest.iter().map(|i| candidates[*i].proximity).collect();
        tiers.sort_unstable();
        tiers.dedup();
        for proximity in tiers {
            tier.clear();
            let here =
                |i: &&usize| candidates[**i].proximity == proximity && candidates[**i].refused == refused;
            tier.extend(rest.iter().filter(here));
            if tier.is_empty() {
                continue;
            }
            // A tier in slow start as a whole lets a part of the connections pass to the next one.
            let (mut full, mut now) = (0.0, 0.0);
            for i in &tier {
                full += f64::from(candidates[*i].weight);
                now += f64::from(candidates[*i].weight) * candidates[*i].share;
            }
            let into = if random.next() * full < now { &mut order } else { &mut later };
            draw_all(candidates, &mut tier, random, into);
        }
        order.append(&mut later);
        rest.retain(|i| candidates[*i].refused != refused);
    }
    order
}

/// The less loaded of two drawn by weight, again and again until none is left.
fn draw_all(candidates: &[Candidate], tier: &mut Vec<usize>, random: &mut impl Random, out: &mut Vec<usize>) {
    while !tier.is_empty() {
        let first = draw(candidates, tier, None, random);
        let picked = match tier.len() {
            1 => first,
            _ => {
                let second = draw(candidates, tier, Some(first), random);
                if busier(&candidates[tier[first]], &candidates[tier[second]]) { second } else { first }
            }
        };
        out.push(tier.swap_remove(picked));
    }
}

/// A place in `tier`, drawn with the weights of those there, `except` left out.
fn draw(candidates: &[Candidate], tier: &[usize], except: Option<usize>, random: &mut impl Random) -> usize {
    let weight = |at: usize| match except {
        Some(other) if other == at => 0.0,
        _ => effective(&candidates[tier[at]]),
    };
    let total: f64 = (0..tier.len()).map(weight).sum();
    let mut point = random.next() * total;
    let mut last = 0;
    for at in (0..tier.len()).filter(|at| Some(*at) != except) {
        last = at;
        point -= weight(at);
        if point < 0.0 {
            break;
        }
    }
    last
}

fn effective(candidate: &Candidate) -> f64 {
    f64::from(candidate.weight) * candidate.share
}

/// Whether `a` has more load for its weight than `b`.
fn busier(a: &Candidate, b: &Candidate) -> bool {
    let load = |c: &Candidate| (c.load as f64 + 1.0) / effective(c);
    load(a) > load(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    fn candidate(proximity: Proximity, weight: u32) -> Candidate {
        Candidate { proximity, weight, share: 1.0, refused: false, load: 0 }
    }
    fn random(seed: u64) -> impl Random {
        let mut rng = StdRng::seed_from_u64(seed);
        move || rng.random::<f64>()
    }
    fn firsts(candidates: &[Candidate], draws: u64) -> Vec<f64> {
        let mut counts = vec![0.0; candidates.len()];
        for seed in 0..draws {
            counts[order(candidates, &mut random(seed))[0]] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn near_goes_before_far() {
        let far = candidate(Proximity::Elsewhere, 100);
        let near = candidate(Proximity::Zone, 1);
        assert_eq!(order(&[far, near], &mut random(1)), [1, 0]);
        let dead = Candidate { share: 0.0, ..near };
        assert_eq!(order(&[far, dead], &mut random(1)), [0]);
        let empty = Candidate { weight: 0, ..near };
        assert_eq!(order(&[far, empty], &mut random(1)), [0]);
        let refused = Candidate { refused: true, ..near };
        assert_eq!(order(&[far, refused], &mut random(1)), [0, 1], "tried last, but tried");
    }

    #[test]
    fn weight_and_load_share() {
        let counts = firsts(&[candidate(Proximity::Zone, 9), candidate(Proximity::Zone, 1)], 4000);
        assert!(counts[0] > 0.8, "{counts:?}");
        let busy = Candidate { load: 50, ..candidate(Proximity::Zone, 1) };
        let counts = firsts(&[busy, candidate(Proximity::Zone, 1)], 1000);
        assert!(counts[1] > 0.99, "{counts:?}");
    }

    #[test]
    fn slow_start_spills_to_the_next_place() {
        let back = Candidate { share: 0.25, ..candidate(Proximity::Zone, 4) };
        let counts = firsts(&[back, candidate(Proximity::Elsewhere, 4)], 4000);
        assert!((counts[0] - 0.25).abs() < 0.05, "{counts:?}");
        // With nowhere else to go it takes everything.
        assert_eq!(order(&[back], &mut random(3)), [0]);
    }

    proptest! {
        #[test]
        fn names_each_living_candidate_once(
            specs in prop::collection::vec((0..4usize, 0..5u32, 0..3u32, any::<bool>(), 0..9usize), 0..12),
            seed in any::<u64>(),
        ) {
            use Proximity::*;
            let all: Vec<Candidate> = specs.iter().map(|(p, weight, share, refused, load)| Candidate {
                proximity: [Cluster, Zone, Region, Elsewhere][*p],
                weight: *weight, share: f64::from(*share) / 2.0, refused: *refused, load: *load,
            }).collect();
            let mut got = order(&all, &mut random(seed));
            got.sort_unstable();
            let want: Vec<usize> =
                (0..all.len()).filter(|i| all[*i].weight > 0 && all[*i].share > 0.0).collect();
            prop_assert_eq!(got, want);
        }
    }
}
