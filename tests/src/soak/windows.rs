//! Which failures the faults explain: those of what was under way through something that was ended, hung, or not trusted any more. What began after
//! it has no excuse.

use super::Failure;
use std::{collections::BTreeMap, time::Duration};

/// A fault that cuts, and when. Moments are counted from the run's begin.
#[derive(Clone, Debug)]
struct Window {
    fault: String,
    /// From when it may have hurt.
    begin: Duration,
    /// From when nothing that begins goes through what it hit; not known while it is being done.
    settled: Option<Duration>,
    /// When the last of what it hurt has failed; not known while it is there.
    over: Option<Duration>,
}

impl Window {
    fn explains(&self, failure: &Failure) -> bool {
        failure.reason.is_of_a_lost_process()
            && self.begin <= failure.ended
            && self.settled.is_none_or(|settled| failure.began < settled)
            && self.over.is_none_or(|over| failure.ended <= over)
    }
}

/// All faults that cut, and what they explained.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    all: Vec<Window>,
    explained: BTreeMap<(String, String), u64>,
}

impl Windows {
    /// A fault is about to be there; gives its number.
    pub fn open(&mut self, fault: String, now: Duration) -> usize {
        self.all.push(Window { fault, begin: now, settled: None, over: None });
        self.all.len() - 1
    }

    /// Nothing that begins from now on goes through what it hit.
    pub fn settle(&mut self, number: usize, now: Duration) {
        self.all[number].settled = Some(now);
    }

    /// It is mended; what it hurt has failed by then.
    pub fn close(&mut self, number: usize, by: Duration) {
        self.all[number].over = Some(by);
    }

    /// Whether a fault explains it; counts it, where one does.
    pub fn explain(&mut self, failure: &Failure) -> bool {
        let Some(window) = self.all.iter().rev().find(|window| window.explains(failure)) else {
            return false;
        };
        let what = (window.fault.clone(), format!("{}: {}", failure.kind, failure.reason));
        *self.explained.entry(what).or_default() += 1;
        true
    }

    /// How often each kind of fault explained each failure.
    #[must_use]
    pub const fn explained(&self) -> &BTreeMap<(String, String), u64> {
        &self.explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::{Kind, Reason};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(began: u64, ended: u64, reason: Reason) -> Failure {
        Failure { kind: Kind::Request, began: s(began), ended: s(ended), reason }
    }

    fn cut() -> Reason {
        Reason::Cut("read: reset".to_owned())
    }

    fn kill() -> Windows {
        let mut windows = Windows::default();
        let number = windows.open("kill".to_owned(), s(10));
        windows.settle(number, s(11));
        windows.close(number, s(20));
        windows
    }

    #[test]
    fn what_was_under_way_is_explained() {
        let mut windows = kill();
        assert!(windows.explain(&failure(9, 12, cut())));
        assert!(windows.explain(&failure(10, 20, Reason::Late)));
        let counted: Vec<_> =
            windows.explained().iter().map(|((fault, what), count)| (&**fault, &**what, *count)).collect();
        assert_eq!(
            counted,
            [("kill", "request: no whole answer in time", 1), ("kill", "request: read: reset", 1)]
        );
    }

    #[test]
    fn nothing_else_is() {
        for wrong in [
            // it had failed before
            failure(8, 9, cut()),
            // it began after it
            failure(11, 12, cut()),
            // it lived through it, and failed for another reason
            failure(9, 21, cut()),
        ] {
            assert!(!kill().explain(&wrong), "{wrong}");
        }
        let never = [
            Reason::Other,
            Reason::Ended,
            Reason::Name("no answer".into()),
            Reason::Connect("refused".into()),
        ];
        for reason in never {
            let wrong = failure(9, 12, reason);
            assert!(!kill().explain(&wrong), "{wrong}");
        }
        assert!(!Windows::default().explain(&failure(9, 12, cut())));
    }

    #[test]
    fn a_fault_that_is_there_explains_what_fails_meanwhile() {
        let mut windows = Windows::default();
        let number = windows.open("hang".to_owned(), s(10));
        assert!(windows.explain(&failure(10, 11, cut())), "it is being done");
        windows.settle(number, s(12));
        assert!(windows.explain(&failure(11, 100, Reason::Late)), "it is there");
        assert!(!windows.explain(&failure(12, 13, cut())), "it was there when this began");
    }
}
