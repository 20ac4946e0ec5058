//! What clients were told of one object, and whether it can be true: whether there is one order of all that they did, in which each thing
//! happened between its call and its answer, and each answer follows from those before it (linearizability; Herlihy and Wing, 1990).
//!
//! The object is a register that is read, and changed from a value that was read to a new one. No value is written twice. So most of the search
//! is no choice: what changes nothing goes as early as it can, and only changes whose answer was lost leave two ways.

use std::{collections::HashSet, fmt};

/// Something that a client asked, and what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was asked; any clock that all clients share.
    pub called: u64,
    /// When the answer was there.
    pub returned: u64,
    /// What it was.
    pub what: What,
}

/// What a client can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It read this.
    Read(u64),
    /// It was to become `to` if it was `from`.
    Change {
        /// What the client had read.
        from: u64,
        /// What nobody else writes.
        to: u64,
        /// What became of it.
        told: Told,
    },
}

/// What a client was told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is made.
    Done,
    /// It is not, for the value is another one.
    Refused,
    /// Nothing that can be relied on: it may have been made, or be made at any later time.
    Nothing,
}

impl Operation {
    /// By when it has happened, where it has.
    const fn by(&self) -> u64 {
        match self.what {
            What::Change { told: Told::Nothing, .. } => u64::MAX,
            _ => self.returned,
        }
    }

    /// Whether it may be left out of the order.
    const fn is_optional(&self) -> bool {
        matches!(self.what, What::Change { told: Told::Nothing, .. })
    }

    /// Whether it can come where the object has this value, and leaves it.
    fn fits(&self, value: u64) -> bool {
        match self.what {
            What::Read(read) => read == value,
            What::Change { from, told: Told::Refused, .. } => from != value,
            What::Change { .. } => false,
        }
    }

    /// What it makes of this value, where it can come there.
    fn change(&self, value: u64) -> Option<u64> {
        match self.what {
            What::Change { from, to, told: Told::Done | Told::Nothing } if from == value => Some(to),
            _ => None,
        }
    }
}

/// No order makes sense of this.
#[derive(Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// How many things were in the longest order.
    pub placed: usize,
    /// The value at its end.
    pub value: u64,
    /// What could not come next.
    pub next: Vec<Operation>,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "after {} operations the object is {}, and none of these can follow:",
            self.placed, self.value
        )?;
        self.next.iter().try_for_each(|one| write!(f, "\n  {one:?}"))
    }
}

/// The beginning of an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Order {
    value: u64,
    placed: Vec<bool>,
}

impl Order {
    /// What may come next: what was asked before anything that is not placed yet was answered.
    fn next(&self, all: &[Operation]) -> Vec<usize> {
        let (mut next, mut horizon) = (Vec::new(), u64::MAX);
        for (at, one) in all.iter().enumerate().filter(|(at, _)| !self.placed[*at]) {
            if one.called > horizon {
                break;
            }
            horizon = horizon.min(one.by());
            next.push(at);
        }
        next.retain(|at| all[*at].called <= horizon);
        next
    }

    /// Places what changes nothing and may come now: later it fits no better.
    fn settle(&mut self, all: &[Operation]) {
        loop {
            let fits = |at: &usize| all[*at].fits(self.value);
            let now: Vec<usize> = self.next(all).into_iter().filter(fits).collect();
            if now.is_empty() {
                return;
            }
            for at in now {
                self.placed[at] = true;
            }
        }
    }

    fn is_whole(&self, all: &[Operation]) -> bool {
        all.iter().zip(&self.placed).all(|(one, placed)| *placed || one.is_optional())
    }
}

/// Whether all of it can be true of an object that was `initial`.
///
/// # Errors
/// When no order makes sense of it.
pub fn check(initial: u64, operations: &[Operation]) -> Result<(), Contradiction> {
    let mut all = operations.to_vec();
    all.sort_by_key(|one| one.called);
    let mut open = vec![Order { value: initial, placed: vec![false; all.len()] }];
    let (mut seen, mut longest) = (HashSet::new(), None::<Contradiction>);
    while let Some(mut order) = open.pop() {
        order.settle(&all);
        if order.is_whole(&all) {
            return Ok(());
        }
        if !seen.insert(order.clone()) {
            continue;
        }
        let next = order.next(&all);
        let placed = order.placed.iter().filter(|placed| **placed).count();
        if longest.as_ref().is_none_or(|longest| placed > longest.placed) {
            let next = next.iter().map(|at| all[*at]).collect();
            longest = Some(Contradiction { placed, value: order.value, next });
        }
        for at in next {
            if let Some(value) = all[at].change(order.value) {
                let mut with = order.clone();
                (with.value, with.placed[at]) = (value, true);
                open.push(with);
            }
        }
    }
    longest.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(called: u64, returned: u64, value: u64) -> Operation {
        Operation { called, returned, what: What::Read(value) }
    }

    fn change(called: u64, returned: u64, from: u64, to: u64, told: Told) -> Operation {
        Operation { called, returned, what: What::Change { from, to, told } }
    }

    #[test]
    fn what_may_be_said() {
        let fine: [&[Operation]; 8] = [
            &[],
            &[read(1, 2, 0), change(3, 4, 0, 1, Told::Done), read(5, 6, 1)],
            // beside the change, both values may be read
            &[change(1, 9, 0, 1, Told::Done), read(2, 3, 0), read(4, 5, 1)],
            // the refused one comes after it
            &[change(1, 9, 0, 1, Told::Done), change(2, 3, 0, 2, Told::Refused)],
            // it was not made
            &[change(1, 2, 0, 1, Told::Nothing), read(3, 4, 0)],
            // it was made, long after it was given up
            &[change(1, 2, 0, 1, Told::Nothing), read(3, 4, 0), read(5, 6, 1)],
            // one of two was
            &[change(1, 2, 0, 1, Told::Nothing), change(1, 2, 0, 2, Told::Nothing), read(3, 4, 2)],
            // the next builds on it
            &[
                change(1, 2, 0, 1, Told::Nothing),
                read(3, 4, 1),
                change(5, 6, 1, 2, Told::Done),
                read(7, 8, 2),
            ],
        ];
        for operations in fine {
            assert_eq!(check(0, operations), Ok(()), "{operations:?}");
        }
    }

    #[test]
    fn what_may_not() {
        let wrong: [&[Operation]; 8] = [
            // lost after it was acknowledged
            &[change(1, 2, 0, 1, Told::Done), read(3, 4, 0)],
            // read before it was written
            &[read(1, 2, 1), change(3, 4, 0, 1, Told::Done)],
            // both made from the same
            &[change(1, 5, 0, 1, Told::Done), change(2, 6, 0, 2, Told::Done)],
            // refused, and nobody else changed it
            &[read(1, 2, 0), change(3, 4, 0, 1, Told::Refused)],
            // refused, and made all the same
            &[change(1, 2, 0, 1, Told::Refused), read(3, 4, 1)],
            // back to what it was before
            &[change(1, 2, 0, 1, Told::Nothing), read(3, 4, 1), read(5, 6, 0)],
            // nobody wrote it
            &[read(1, 2, 7)],
            // an older value than another had read
            &[change(1, 9, 0, 1, Told::Done), read(2, 3, 1), read(4, 5, 0)],
        ];
        for operations in wrong {
            assert!(check(0, operations).is_err(), "{operations:?}");
        }
    }

    #[test]
    fn a_contradiction_shows_where_it_is() {
        let lost = [change(1, 2, 0, 1, Told::Done), read(3, 4, 1), read(5, 6, 0)];
        let expected = Contradiction { placed: 2, value: 1, next: vec![read(5, 6, 0)] };
        assert_eq!(check(0, &lost), Err(expected));
    }
}
