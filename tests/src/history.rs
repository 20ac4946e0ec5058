//! What clients were told of one object, and whether it can be true: whether there is one order of all that they did, in which each thing
//! happened between its call and its answer, and each answer follows from those before it (linearizability; Herlihy and Wing, 1990).
//!
//! The object is a register that is read, and changed from a value that was read to a new one. No value is written twice. So most of the search
//! is no choice: what changes nothing goes as early as it can, and only changes whose answer was lost leave two ways. Each object has a history of
//! its own: what clients see of several in one order is not promised.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

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

/// All that clients asked.
struct Asked {
    /// What happened, by when it was asked.
    surely: Vec<Operation>,
    /// Changes that may have happened, by the value that they change.
    perhaps: BTreeMap<u64, Vec<Operation>>,
}

impl Asked {
    /// # Panics
    /// Where a value is written twice.
    fn of(initial: u64, operations: &[Operation]) -> Self {
        let (mut surely, mut perhaps) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        let mut written = BTreeSet::from([initial]);
        for one in operations {
            match one.what {
                What::Change { from, told: Told::Nothing, .. } => perhaps.entry(from).or_default().push(*one),
                _ => surely.push(*one),
            }
            if let What::Change { to, .. } = one.what {
                assert!(written.insert(to), "{to} is written twice: nobody can tell one from the other");
            }
        }
        surely.sort_by_key(|one| one.called);
        Self { surely, perhaps }
    }
}

/// The beginning of an order. Changes that only may have happened are not listed in it: the value that they changed does not come again, so none of
/// them fits a second time.
#[derive(Clone, Debug)]
struct Order {
    value: u64,
    /// All that surely happened is placed up to this one,
    first: usize,
    /// and these after it.
    beyond: BTreeSet<usize>,
    /// Changes without an answer that are in it.
    lost: usize,
}

impl Order {
    /// What may come next, and until when what comes next was asked: nothing that is not placed yet was answered before that.
    fn next(&self, all: &Asked) -> (Vec<usize>, u64) {
        let (mut next, mut horizon) = (Vec::new(), u64::MAX);
        for (at, one) in all.surely.iter().enumerate().skip(self.first) {
            if one.called > horizon {
                break;
            }
            if !self.beyond.contains(&at) {
                horizon = horizon.min(one.returned);
                next.push(at);
            }
        }
        next.retain(|at| all.surely[*at].called <= horizon);
        (next, horizon)
    }

    fn place(&mut self, at: usize) {
        self.beyond.insert(at);
        while self.beyond.remove(&self.first) {
            self.first += 1;
        }
    }

    /// Places what changes nothing and may come now: later it fits no better.
    fn settle(&mut self, all: &Asked) {
        loop {
            let (mut now, _) = self.next(all);
            now.retain(|at| all.surely[*at].fits(self.value));
            if now.is_empty() {
                return;
            }
            now.into_iter().for_each(|at| self.place(at));
        }
    }

    fn placed(&self) -> usize {
        self.first + self.beyond.len() + self.lost
    }
}

/// Whether all of it can be true of an object that was `initial`.
///
/// It takes as many steps as there are operations, and each looks at those that were under way at once: only one change leads to a value, from one
/// other, so each value is reached in one way or in none, and what is placed by then follows from it.
///
/// # Errors
/// When no order makes sense of it.
///
/// # Panics
/// Where a value is written twice.
pub fn check(initial: u64, operations: &[Operation]) -> Result<(), Contradiction> {
    let all = Asked::of(initial, operations);
    let mut open = vec![Order { value: initial, first: 0, beyond: BTreeSet::new(), lost: 0 }];
    let mut longest = None::<Contradiction>;
    while let Some(mut order) = open.pop() {
        order.settle(&all);
        if order.first == all.surely.len() {
            return Ok(());
        }
        let (next, horizon) = order.next(&all);
        let perhaps = all.perhaps.get(&order.value).into_iter().flatten();
        let perhaps: Vec<&Operation> = perhaps.filter(|one| one.called <= horizon).collect();
        if longest.as_ref().is_none_or(|longest| order.placed() > longest.placed) {
            let next =
                next.iter().map(|at| all.surely[*at]).chain(perhaps.iter().copied().copied()).collect();
            longest = Some(Contradiction { placed: order.placed(), value: order.value, next });
        }
        for one in perhaps {
            if let Some(value) = one.change(order.value) {
                open.push(Order { value, lost: order.lost + 1, ..order.clone() });
            }
        }
        for at in next {
            if let Some(value) = all.surely[at].change(order.value) {
                let mut with = Order { value, ..order.clone() };
                with.place(at);
                open.push(with);
            }
        }
    }
    longest.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

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

    /// What clients are told of a register in so many operations; of the acknowledged changes, the first one from there on is forgotten. Each
    /// is at most 30 from the moment in which it happens; these are 10 apart.
    fn recorded(count: u64, mut forgotten: Option<u64>) -> Vec<Operation> {
        let (mut dice, mut value) = (Dice::new(count), 0);
        let one = |number: u64| {
            let at = 100 + number * 10;
            let (called, returned) = (at - dice.below(30), at + dice.below(30));
            let (from, to) = (value, number + 1);
            let what = match dice.below(8) {
                0 | 1 => What::Read(value),
                2 if value != 0 => What::Change { from: 0, to, told: Told::Refused },
                3 => What::Change { from, to, told: Told::Nothing },
                4 => {
                    value = to;
                    What::Change { from, to, told: Told::Nothing }
                }
                _ => {
                    if forgotten.is_some_and(|at| at <= number) {
                        forgotten = None;
                    } else {
                        value = to;
                    }
                    What::Change { from, to, told: Told::Done }
                }
            };
            Operation { called, returned, what }
        };
        (0..count).map(one).collect()
    }

    /// With a search that looks at all of it in each step, this would take hours.
    #[test]
    fn long_histories_are_checked_too() {
        const COUNT: u64 = 100_000;
        assert_eq!(check(0, &recorded(COUNT, None)), Ok(()));
        let wrong = check(0, &recorded(COUNT, Some(COUNT / 2))).unwrap_err();
        assert!(wrong.placed.abs_diff(50_000) < 20_000, "{wrong}");
    }

    #[test]
    #[should_panic(expected = "7 is written twice")]
    fn what_is_written_twice_says_nothing() {
        let _ = check(0, &[change(1, 2, 0, 7, Told::Done), change(3, 4, 7, 7, Told::Done)]);
    }

    #[test]
    fn a_contradiction_shows_where_it_is() {
        let lost = [change(1, 2, 0, 1, Told::Done), read(3, 4, 1), read(5, 6, 0)];
        let expected = Contradiction { placed: 2, value: 1, next: vec![read(5, 6, 0)] };
        assert_eq!(check(0, &lost), Err(expected));
    }
}
