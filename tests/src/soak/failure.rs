//! What failed, and why.

use std::{fmt, io, time::Duration};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A new connection, from the name to the last byte.
    Request,
    /// A long-lived connection; it fails when it ends.
    Stream,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Stream => "long-lived connection",
        })
    }
}

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name has no address.
    Name(String),
    /// The address takes no connection.
    Connect(String),
    /// The connection broke.
    Cut(String),
    /// No whole answer came in time.
    Late,
    /// It ended as if all was said, and it was not.
    Ended,
    /// Other bytes came than were sent.
    Other,
}

impl Reason {
    /// What an error of a connection comes to.
    #[must_use]
    pub fn io(doing: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Ended;
        }
        Self::Cut(format!("{doing}: {error}"))
    }

    /// Whether it is what the end, or the silence, of a process that carried the bytes looks like. An end that looks like the last byte is not, nor are
    /// other bytes, a name without an address, or a proxy of the caller that takes nothing.
    #[must_use]
    pub const fn is_of_a_lost_process(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Late)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "name: {error}"),
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::Cut(error) => f.write_str(error),
            Self::Late => f.write_str("no whole answer in time"),
            Self::Ended => f.write_str("an end before the end"),
            Self::Other => f.write_str("other bytes than were sent"),
        }
    }
}

/// Something that failed. Moments are counted from the run's begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was asked for.
    pub kind: Kind,
    /// When.
    pub began: Duration,
    /// When it had failed.
    pub ended: Duration,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (began, ended) = (self.began.as_secs_f64(), self.ended.as_secs_f64());
        write!(f, "a {} that began at {began:.3} s failed at {ended:.3} s: {}", self.kind, self.reason)
    }
}
