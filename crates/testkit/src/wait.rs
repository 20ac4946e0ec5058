//! Waiting for a value, never for a while: a test polls until what it looks at is right, and when the deadline passes says what it saw last.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// Between two looks at least. Short, for what is awaited is mostly there at once.
const LEAST: Duration = Duration::from_millis(10);
/// Between two looks at most.
const MOST: Duration = Duration::from_millis(500);

/// Between a look that took so long and the next: a dear one, as a program that is run, leaves the processor to what is awaited.
fn pause(took: Duration) -> Duration {
    (took * 2).clamp(LEAST, MOST)
}

/// Looks until `good` says yes; gives the value.
///
/// # Panics
/// When the deadline passes, with `what` and the last value.
pub async fn until<V, Look, Seen>(
    what: &str,
    deadline: Duration,
    mut look: Look,
    good: impl Fn(&V) -> bool,
) -> V
where
    V: Debug,
    Look: FnMut() -> Seen,
    Seen: Future<Output = V>,
{
    let start = Instant::now();
    loop {
        let began = Instant::now();
        let value = look().await;
        if good(&value) {
            return value;
        }
        assert!(start.elapsed() < deadline, "{what}: not within {deadline:?}; last seen: {value:#?}");
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// Looks until there is a value; `None` and errors mean "not yet".
///
/// # Panics
/// When the deadline passes, with `what` and the last error.
pub async fn until_ok<V, E, Look, Seen>(what: &str, deadline: Duration, mut look: Look) -> V
where
    E: Debug,
    Look: FnMut() -> Seen,
    Seen: Future<Output = Result<V, E>>,
{
    let start = Instant::now();
    loop {
        let began = Instant::now();
        match look().await {
            Ok(value) => return value,
            Err(error) => {
                assert!(
                    start.elapsed() < deadline,
                    "{what}: not within {deadline:?}; last error: {error:#?}"
                );
            }
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// [`until_ok`] for code without a runtime.
///
/// # Panics
/// When the deadline passes, with `what` and the last error.
pub fn until_ok_blocking<V, E: Debug>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<V, E>,
) -> V {
    let start = Instant::now();
    loop {
        let began = Instant::now();
        match look() {
            Ok(value) => return value,
            Err(error) => {
                assert!(
                    start.elapsed() < deadline,
                    "{what}: not within {deadline:?}; last error: {error:#?}"
                );
            }
        }
        std::thread::sleep(pause(began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn gives_the_first_good_value() {
        let count = Cell::new(0);
        let look = || {
            count.set(count.get() + 1);
            std::future::ready(count.get())
        };
        assert_eq!(until("three", Duration::from_secs(5), look, |n| *n == 3).await, 3);
    }

    #[test]
    fn a_dear_look_is_followed_by_a_pause() {
        let ms = Duration::from_millis;
        assert_eq!([ms(0), ms(50), ms(4000)].map(pause), [ms(10), ms(100), ms(500)]);
    }

    #[test]
    #[should_panic(expected = "never: not within 20ms; last error: \"no\"")]
    fn says_what_it_saw_last() {
        until_ok_blocking("never", Duration::from_millis(20), || Err::<(), _>("no"));
    }
}
