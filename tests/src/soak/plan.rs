//! What is done, and when: the same for the same seed.

use super::{Act, Fault};
use crate::dice::Dice;
use std::time::Duration;

/// Kills in a row, at random moments.
const STRIKES: u64 = 8;
/// How long a fault is there at most: certificates of 40 s are renewed at 20 s, and an agent that is away longer than the rest would end them.
const LONGEST: u64 = 6_000;

/// What may be done in one place of a deck: any one of these.
type Card = &'static [Fault];

/// Each is drawn once before any of them comes again.
const DECK: [Card; 21] = [
    &[Fault::Kill(&["controller"]), Fault::Kill(&["controller-b"])],
    &[Fault::REPLICAS],
    &[Fault::Postgres],
    &[
        Fault::Kill(&["cluster-1-agent"]),
        Fault::Kill(&["cluster-2-agent"]),
        Fault::Kill(&["cluster-3-agent"]),
    ],
    &[Fault::Kill(&["cluster-1-egress"]), Fault::Kill(&["cluster-1-egress-b"])],
    &[Fault::Kill(&["cluster-2-ingress"]), Fault::Kill(&["cluster-2-ingress-b"])],
    &[Fault::Kill(&["cluster-2-sidecar"]), Fault::Kill(&["cluster-3-sidecar"])],
    &[Fault::FAR],
    &[Fault::GATEWAYS],
    &[Fault::CLUSTER],
    &[Fault::Hang("controller"), Fault::Hang("controller-b")],
    &[Fault::Hang("cluster-1-agent"), Fault::Hang("cluster-2-agent")],
    &[Fault::Hang("cluster-1-egress"), Fault::Hang("cluster-1-egress-b")],
    &[Fault::Hang("cluster-2-ingress"), Fault::Hang("cluster-2-ingress-b")],
    &[Fault::End("controller"), Fault::End("controller-b")],
    &[Fault::End("cluster-1-agent"), Fault::End("cluster-2-agent")],
    &[Fault::End("cluster-1-egress"), Fault::End("cluster-1-egress-b")],
    &[Fault::End("cluster-2-ingress"), Fault::End("cluster-2-ingress-b")],
    &[Fault::Strikes(STRIKES)],
    &[Fault::Join(2), Fault::Join(3)],
    &[Fault::Revoke(2)],
];

/// One thing that is done, or two at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long all is well before it.
    pub rest: Duration,
    /// What is done.
    pub first: Fault,
    /// What is done so long after it, while it is there.
    pub second: Option<(Duration, Fault)>,
    /// How long it stays before it is mended.
    pub hold: Duration,
}

/// What is done in an act: without end.
#[derive(Clone, Debug)]
pub struct Plan {
    act: Act,
    dice: Dice,
    deck: Vec<Fault>,
}

impl Plan {
    /// The plan of an act.
    #[must_use]
    pub fn new(seed: u64, act: Act) -> Self {
        Self { act, dice: Dice::new(seed.wrapping_add((act as u64 + 1) << 40)), deck: Vec::new() }
    }

    /// The next fault, of those that `fits`.
    fn draw(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        if self.deck.is_empty() {
            for card in DECK {
                let may = |fault: &&Fault| fault.ended().iter().all(|name| self.act.ends(name));
                let all: Vec<Fault> = card.iter().filter(may).copied().collect();
                if !all.is_empty() {
                    self.deck.push(self.dice.pick(&all));
                }
            }
            self.dice.shuffle(&mut self.deck);
        }
        let at = self.deck.iter().rposition(fits)?;
        Some(self.deck.remove(at))
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.dice.below(to - from))
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let first = self.draw(|_| true)?;
        let second = match self.dice.below(3) {
            0 => self.draw(|other| other.goes_with(&first)),
            _ => None,
        };
        let rest = self.ms(0, 2_000);
        let second = second.map(|fault| (self.ms(0, 1_000), fault));
        Some(Step { rest, first, second, hold: self.ms(500, LONGEST) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn steps(seed: u64, act: Act, count: usize) -> Vec<Step> {
        Plan::new(seed, act).take(count).collect()
    }

    fn faults(steps: &[Step]) -> impl Iterator<Item = Fault> {
        steps.iter().flat_map(|step| [Some(step.first), step.second.map(|(_, fault)| fault)]).flatten()
    }

    #[test]
    fn a_seed_decides_the_plan() {
        for act in Act::ALL {
            assert_eq!(steps(5, act, 100), steps(5, act, 100));
            assert_ne!(steps(5, act, 100), steps(6, act, 100));
        }
        assert_ne!(steps(5, Act::First, 100), steps(5, Act::Middle, 100));
    }

    #[test]
    fn each_kind_comes_about_as_often() {
        let mut counts = BTreeMap::<String, u32>::new();
        for fault in faults(&steps(1, Act::Middle, 1000)) {
            *counts.entry(fault.kind()).or_default() += 1;
        }
        assert_eq!(counts.len(), DECK.len(), "{counts:?}");
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(most - least <= 1, "{counts:?}");
    }

    #[test]
    fn an_act_spares_whom_it_says() {
        for (act, seed) in Act::ALL.iter().flat_map(|act| (0..20).map(move |seed| (*act, seed))) {
            for fault in faults(&steps(seed, act, 100)) {
                assert!(fault.ended().iter().all(|name| act.ends(name)), "{act:?}: {fault}");
            }
        }
    }

    #[test]
    fn two_at_once_leave_something() {
        let all: Vec<Step> = (0..50).flat_map(|seed| steps(seed, Act::Middle, 100)).collect();
        let pairs: Vec<_> = all.iter().filter_map(|step| Some((step.first, step.second?))).collect();
        assert!(pairs.len() > all.len() / 8, "{} of {}", pairs.len(), all.len());
        for (one, (after, two)) in pairs {
            assert!(one.goes_with(&two) && after < Duration::from_secs(1), "{one}, {two}");
        }
        let holds = all.iter().map(|step| step.hold);
        assert!(holds.clone().max().unwrap() <= Duration::from_millis(LONGEST));
        assert!(holds.min().unwrap() >= Duration::from_millis(500));
    }
}
