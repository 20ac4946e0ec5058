//! The three acts of a run. In the first and in the last one a half of the programs is spared, so that each program lives for two fifths of the run
//! at least: long enough to see what its memory does. In the middle nobody is spared.

use std::time::Duration;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// One of each pair is ended, and the other one lives.
    First,
    /// Any of them is, and both of a pair.
    Middle,
    /// The other one of each pair is.
    Last,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Middle, Self::Last];

    /// How long it goes on, in a run that goes on for so long.
    #[must_use]
    pub fn length(self, whole: Duration) -> Duration {
        match self {
            Self::First | Self::Last => whole * 2 / 5,
            Self::Middle => whole / 5,
        }
    }

    /// Whether a program may be ended in it.
    #[must_use]
    pub fn ends(self, program: &str) -> bool {
        const EARLY: [&str; 5] =
            ["controller", "cluster-1-agent", "cluster-1-egress", "cluster-2-ingress", "cluster-3-"];
        const LATE: [&str; 6] = [
            "controller-b",
            "cluster-1-egress-b",
            "cluster-2-agent",
            "cluster-2-dns",
            "cluster-2-ingress-b",
            "cluster-2-sidecar",
        ];
        let early = EARLY.iter().any(|one| *one == program || one.ends_with('-') && program.starts_with(one));
        let late = LATE.contains(&program);
        match self {
            Self::First => early,
            Self::Middle => early || late,
            Self::Last => late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_ended_in_two_of_the_long_acts() {
        for name in
            ["controller", "controller-b", "cluster-2-ingress", "cluster-2-ingress-b", "cluster-3-agent"]
        {
            let [first, middle, last] = Act::ALL.map(|act| act.ends(name));
            assert!(first != last && middle, "{name}");
        }
        // what callers can't do without has no twin
        for name in ["cluster-1-sidecar", "cluster-1-dns"] {
            assert!(Act::ALL.iter().all(|act| !act.ends(name)), "{name}");
        }
        let whole = Duration::from_secs(100);
        assert_eq!(Act::ALL.iter().map(|act| act.length(whole)).sum::<Duration>(), whole);
    }
}
