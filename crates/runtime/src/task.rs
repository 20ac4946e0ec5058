//! Background work that has a name and does not fail in silence.

use std::future::Future;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// Starts a task. Its log lines carry the span `task` with its name. A panic in it goes to whoever joins it; it is logged all the same, by the hook of
/// [`crate::telemetry::init`], which sees the span.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // At the level of errors, so that no filter takes the name away from an error that is logged.
    let span = tracing::error_span!("task", task.name = name);
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    tokio::spawn(future.instrument(span))
}

/// Starts a task that is polled for each packet: its log lines carry no span, which would be entered and left each time.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn_bare<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the other place that spawns")]
    tokio::spawn(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_output() {
        assert_eq!(spawn("sum", async { 1 + 1 }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_reaches_whoever_joins() {
        let error = spawn("broken", async { panic!("as told") }).await.unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&"as told"));
    }
}
