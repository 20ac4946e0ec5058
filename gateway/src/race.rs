//! Attempts one after another, and side by side where one does not answer: the next at once after a failure, the
//! next group in parallel after a silence. The first success wins and the others are dropped.
//!
//! Nothing of the application's bytes moves before the race is won, so that an attempt may be repeated safely.

use futures::{StreamExt as _, stream::FuturesUnordered};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How a race went, apart from its winner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Attempts that began.
    pub attempts: u32,
    /// Attempts that began because another one was silent.
    pub hedges: u32,
}

/// Runs `attempt` over `groups` (a group is a cluster with its addresses, in the order of preference) until one
/// succeeds. After a failure the next of the same group follows at once, or the next group where it is used up or
/// where the verdict says that its other members would answer alike. `hedge` after a group began without a success the
/// next group begins in parallel, also where its members fail one after another in the meantime.
///
/// At most `limit` attempts are made. One is kept for each group that has not begun, so that many members of one that
/// fails do not use up what the others are for.
///
/// # Errors
/// The failure of every attempt, in order; empty where there was nothing to try. A failure that `judge` calls final
/// ends the race at once.
///
/// Cancel safe: dropping it drops the attempts.
pub async fn first<T, O, E, F>(
    groups: Vec<VecDeque<T>>,
    hedge: Duration,
    limit: u32,
    mut attempt: impl FnMut(T) -> F,
    judge: impl Fn(&E) -> Verdict,
) -> (Result<O, Vec<E>>, Course)
where
    F: Future<Output = Result<O, E>>,
{
    let mut field = Field::new(groups, limit);
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut course = Course::default();
    let mut start = |(group, target): (usize, T)| {
        let future = attempt(target);
        async move { (group, future.await) }
    };
    running.extend(field.next_group().map(&mut start));
    let mut patience = Instant::now() + hedge;
    while !running.is_empty() {
        let outcome = tokio::select! {
            biased;
            outcome = running.next() => outcome,
            () = sleep_until(patience) => None,
        };
        let begun = field.begun;
        let next = match outcome {
            Some((_, Ok(won))) => {
                course.attempts = field.attempts;
                return (Ok(won), course);
            }
            Some((group, Err(failure))) => {
                let verdict = judge(&failure);
                failures.push(failure);
                match verdict {
                    Verdict::Final => break,
                    Verdict::NextMember => field.next_member(group).or_else(|| field.next_group()),
                    Verdict::NextGroup => {
                        field.drop_group(group);
                        field.next_group()
                    }
                }
            }
            None => {
                let next = field.next_group();
                course.hedges += u32::from(next.is_some());
                patience = Instant::now() + hedge;
                next
            }
        };
        if field.begun > begun {
            patience = Instant::now() + hedge;
        }
        running.extend(next.map(&mut start));
    }
    course.attempts = field.attempts;
    (Err(failures), course)
}

/// What is left to be tried.
struct Field<T> {
    groups: Vec<VecDeque<T>>,
    /// How many groups have begun: the first so many.
    begun: usize,
    attempts: u32,
    limit: u32,
}

impl<T> Field<T> {
    fn new(mut groups: Vec<VecDeque<T>>, limit: u32) -> Self {
        groups.retain(|group| !group.is_empty());
        Self { groups, begun: 0, attempts: 0, limit }
    }

    /// Another member of a group that has begun, as long as each group that has not keeps an attempt.
    fn next_member(&mut self, group: usize) -> Option<(usize, T)> {
        let kept = u32::try_from(self.groups.len() - self.begun).unwrap_or(u32::MAX);
        if self.attempts.saturating_add(kept) >= self.limit {
            return None;
        }
        let target = self.groups[group].pop_front()?;
        self.attempts += 1;
        Some((group, target))
    }

    /// The first member of the next group; where all have begun, what is left in any.
    fn next_group(&mut self) -> Option<(usize, T)> {
        if self.begun < self.groups.len() {
            if self.attempts >= self.limit {
                return None;
            }
            self.begun += 1;
            self.attempts += 1;
            let group = self.begun - 1;
            return self.groups[group].pop_front().map(|target| (group, target));
        }
        let group = self.groups.iter().position(|group| !group.is_empty())?;
        self.next_member(group)
    }

    /// The others of a group would answer the same.
    fn drop_group(&mut self, group: usize) {
        self.groups[group].clear();
    }
}

/// What a failure means for the attempts still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another member of the group may do better.
    NextMember,
    /// The whole group would answer the same.
    NextGroup,
    /// Nobody will do better.
    Final,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Timing};
    use tokio::time::sleep;

    /// A target that answers after so many milliseconds, well or with this verdict.
    #[derive(Clone, Copy)]
    struct Target(u64, Result<&'static str, Verdict>);

    async fn run(groups: &[&[Target]]) -> (Result<&'static str, Vec<Verdict>>, Course, u64) {
        let groups = groups.iter().map(|group| group.iter().copied().collect()).collect();
        let begin = Instant::now();
        let attempt = |Target(after, answer)| async move {
            sleep(Duration::from_millis(after)).await;
            answer
        };
        let (result, course) =
            first(groups, Timing::default().hedge, Limits::default().attempts, attempt, |verdict| *verdict)
                .await;
        (result, course, begin.elapsed().as_millis() as u64)
    }

    const HANG: Target = Target(1_000_000, Ok("late"));

    #[tokio::test(start_paused = true)]
    async fn the_next_follows_a_failure_at_once() {
        let refused = Target(1, Err(Verdict::NextMember));
        let (won, course, ms) =
            run(&[&[refused, Target(1, Ok("second address"))], &[Target(1, Ok("far"))]]).await;
        assert_eq!((won.unwrap(), course.attempts, ms), ("second address", 2, 2));
        let refused = Target(1, Err(Verdict::NextGroup));
        let (won, ..) = run(&[&[refused, Target(1, Ok("second address"))], &[Target(1, Ok("far"))]]).await;
        assert_eq!(won.unwrap(), "far");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_cluster_costs_a_quarter_second() {
        let (won, course, ms) = run(&[&[HANG, HANG], &[Target(5, Ok("far"))]]).await;
        assert_eq!((won.unwrap(), ms), ("far", 255));
        assert!(Timing::default().hedge <= Duration::from_millis(250), "what the architecture promises");
        assert_eq!(course, Course { attempts: 2, hedges: 1 });
        // A slow answer still wins where the other is slower.
        let (won, ..) = run(&[&[Target(300, Ok("near"))], &[Target(100, Ok("far"))]]).await;
        assert_eq!(won.unwrap(), "near");
        // With nobody else to ask, it waits.
        let (won, course, ms) = run(&[&[Target(900, Ok("only"))]]).await;
        assert_eq!((won.unwrap(), course.hedges, ms), ("only", 0, 900));
    }

    #[tokio::test(start_paused = true)]
    async fn says_every_failure() {
        let refused = Target(1, Err(Verdict::NextMember));
        let (lost, course, _) = run(&[&[refused], &[refused, refused]]).await;
        assert_eq!((lost.unwrap_err().len(), course.attempts), (3, 3));
        let (lost, ..) = run(&[&[Target(1, Err(Verdict::Final))], &[Target(1, Ok("never"))]]).await;
        assert_eq!(lost.unwrap_err(), [Verdict::Final]);
        assert_eq!(run(&[]).await.0.unwrap_err(), []);
        let many = [refused; 9];
        assert_eq!(run(&[&many]).await.1.attempts, 6, "bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_full_of_failures_leaves_the_others_their_turn() {
        let limit = Limits::default().attempts;
        let refused = Target(1, Err(Verdict::NextMember));
        let (won, course, ms) = run(&[&[refused; 6], &[Target(1, Ok("far"))]]).await;
        assert_eq!((won.unwrap(), course.attempts, ms), ("far", limit, 6));
        // Two others: each has its turn.
        let (won, course, _) = run(&[&[refused; 9], &[refused; 9], &[Target(1, Ok("third"))]]).await;
        assert_eq!((won.unwrap(), course.attempts), ("third", limit));
        // A group that says no for all frees what its members would have used.
        let no = Target(1, Err(Verdict::NextGroup));
        let (won, ..) = run(&[&[no; 6], &[refused, refused, Target(1, Ok("third member"))]]).await;
        assert_eq!(won.unwrap(), "third member");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_do_not_put_the_hedge_off() {
        let slow = Target(200, Err(Verdict::NextMember));
        let (won, course, ms) = run(&[&[slow; 3], &[Target(1, Ok("far"))]]).await;
        assert_eq!((won.unwrap(), ms), ("far", 251), "counted from the group's beginning");
        assert_eq!(course, Course { attempts: 3, hedges: 1 });
        // The second group has its own quarter second.
        let (won, _, ms) = run(&[&[HANG], &[slow; 3], &[Target(1, Ok("third"))]]).await;
        assert_eq!((won.unwrap(), ms), ("third", 501));
    }
}
