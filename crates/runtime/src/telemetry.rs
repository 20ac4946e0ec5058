//! Logs: lines on stderr, JSON by default, the level from `TOMBOLO_LOG`.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    error::Error as StdError,
    fmt::{self, Write},
    io::{IsTerminal as _, stderr},
    str::FromStr,
};
use thiserror::Error;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The variable that says what is logged, as `info` or `warn,tombolo_gateway=debug`.
pub const LEVEL_VARIABLE: &str = "TOMBOLO_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text where a person looks on (standard error is a terminal), JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is not a log format; use auto, json or text"),
        }
    }
}
impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum InitError {
    /// `TOMBOLO_LOG` is not a filter.
    #[error(
        "TOMBOLO_LOG is not a log filter; write a level (error, warn, info, debug, trace) or target=level, with commas"
    )]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Another logger is there already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the process, and logs panics in the same format. To be called once, first thing in `main`.
///
/// # Errors
/// [`InitError`].
pub fn init(format: LogFormat) -> Result<(), InitError> {
    let filter = match std::env::var(LEVEL_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text).map_err(InitError::Filter)?,
        _ => EnvFilter::new(DEFAULT),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let text = format == LogFormat::Text || (format == LogFormat::Auto && stderr().is_terminal());
    let lines = match text {
        false => lines.json().flatten_event(true).with_current_span(false).with_span_list(true).boxed(),
        true => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| InitError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            tracing::error!(panic.place = place, panic.backtrace = %trace, "panic: {panic}");
        } else {
            tracing::error!(panic.place = place, "panic: {panic}");
        }
    }));
    Ok(())
}

/// What is logged where nothing else is said. What happens to the client of Kubernetes is told by who uses it, once.
const DEFAULT: &str = "info,kube_client=off,kube_runtime=off";

/// An error with all its causes, for the log line of whoever handles it: `outer: cause: its cause`.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, Error)]
    #[error("read bundle")]
    struct Outer(#[source] io::Error);

    #[test]
    fn chain_names_every_cause() {
        let error = Outer(io::Error::other("disk gone"));
        assert_eq!(chain(&error), "read bundle: disk gone");
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        assert_eq!(LogFormat::default().to_string(), "auto");
        assert_eq!("auto".parse(), Ok(LogFormat::Auto));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
