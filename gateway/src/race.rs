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
/// where `judge` says that its other members would answer alike. When `hedge` has passed since a group began, whatever its
/// members did meanwhile, the next one begins in parallel.
///
/// At most `limit` attempts are made; each group that has not begun has one of them kept for it, so that a cluster with many
/// dead addresses does not use up the others' turns.
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
    attempt: impl FnMut(T) -> F,
    judge: impl Fn(&E) -> Verdict,
) -> (Result<O, Vec<E>>, Course)
where
    F: Future<Output = Result<O, E>>,
{
    first_with(groups, hedge, limit, attempt, judge, |_| false).await
}

/// The same, where `hold` is asked when `hedge` has passed whether to wait as long again; it gets the whole silence since an
/// attempt ended last.
///
/// # Errors
/// Those of [`first`].
pub async fn first_with<T, O, E, F>(
    groups: Vec<VecDeque<T>>,
    hedge: Duration,
    limit: u32,
    mut attempt: impl FnMut(T) -> F,
    judge: impl Fn(&E) -> Verdict,
    hold: impl Fn(Duration) -> bool,
) -> (Result<O, Vec<E>>, Course)
where
    F: Future<Output = Result<O, E>>,
{
    let mut ended = Instant::now(); // when an attempt did last
    let mut deadline = ended + hedge; // of the group that began last
    let mut groups = groups;
    let mut fresh = 0; // the first group that has not begun
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    let mut course = Course::default();
    let mut start = |groups: &mut Vec<VecDeque<T>>, group: usize, course: &mut Course| {
        if course.attempts >= limit {
            return None;
        }
        let target = groups.get_mut(group)?.pop_front()?;
        course.attempts += 1;
        let future = attempt(target);
        Some(async move { (group, future.await) })
    };
    let open_next = |groups: &Vec<VecDeque<T>>, fresh: &mut usize| {
        while *fresh < groups.len() {
            *fresh += 1;
            if !groups[*fresh - 1].is_empty() {
                return Some(*fresh - 1);
            }
        }
        // Every group has begun: what is left in any of them.
        groups.iter().position(|group| !group.is_empty())
    };
    // Whether there are more attempts left than groups that wait for their first.
    let spare = |groups: &Vec<VecDeque<T>>, fresh: usize, course: &Course| {
        let waiting = groups[fresh..].iter().filter(|group| !group.is_empty()).count();
        (limit.saturating_sub(course.attempts)) as usize > waiting
    };
    if let Some(group) = open_next(&groups, &mut fresh)
        && let Some(future) = start(&mut groups, group, &mut course)
    {
        running.push(future);
    }
    while !running.is_empty() {
        let outcome = tokio::select! {
            biased;
            outcome = running.next() => outcome,
            () = sleep_until(deadline) => None,
        };
        if outcome.is_some() {
            ended = Instant::now();
        }
        let begun = fresh;
        match outcome {
            Some((_, Ok(won))) => return (Ok(won), course),
            Some((group, Err(failure))) => {
                let verdict = judge(&failure);
                failures.push(failure);
                let next = match verdict {
                    Verdict::Final => return (Err(failures), course),
                    Verdict::NextMember if !groups[group].is_empty() && spare(&groups, fresh, &course) => {
                        Some(group)
                    }
                    Verdict::NextMember => open_next(&groups, &mut fresh),
                    Verdict::NextGroup => {
                        groups[group].clear();
                        open_next(&groups, &mut fresh)
                    }
                };
                if let Some(group) = next
                    && let Some(future) = start(&mut groups, group, &mut course)
                {
                    running.push(future);
                }
            }
            None if hold(ended.elapsed()) => deadline = Instant::now() + hedge,
            None => {
                deadline = Instant::now() + hedge;
                if let Some(group) = open_next(&groups, &mut fresh)
                    && let Some(future) = start(&mut groups, group, &mut course)
                {
                    course.hedges += 1;
                    running.push(future);
                }
            }
        }
        if fresh > begun {
            deadline = Instant::now() + hedge;
        }
    }
    (Err(failures), course)
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
    async fn a_silence_may_be_borne_longer() {
        let begin = Instant::now();
        let attempt = |Target(after, answer)| async move {
            sleep(Duration::from_millis(after)).await;
            answer.map_err(|_: Verdict| ())
        };
        let groups = || vec![[HANG].into(), [Target(5, Ok("second"))].into()];
        let hold = |silence| silence < Duration::from_secs(1);
        let (won, course) =
            first_with(groups(), Timing::default().hedge, 6, attempt, |()| Verdict::Final, hold).await;
        assert_eq!((won, begin.elapsed().as_millis(), course.hedges), (Ok("second"), 1005, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_dead_addresses_leave_the_next_cluster_its_turn() {
        let refused = [Target(1, Err(Verdict::NextMember)); 6];
        let (won, course, _) = run(&[&refused, &refused, &[Target(1, Ok("third"))]]).await;
        assert_eq!((won.unwrap(), course.attempts), ("third", 6));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_do_not_put_the_next_cluster_off() {
        let slow = [Target(200, Err(Verdict::NextMember)); 3];
        let (won, course, ms) = run(&[&slow, &[Target(5, Ok("far"))]]).await;
        assert_eq!((won.unwrap(), ms, course.hedges), ("far", 255, 1));
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
}
