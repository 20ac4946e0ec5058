//! The signals that end a process in order.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the process should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminate {
    /// SIGTERM: whoever runs us wants us gone.
    Term,
    /// SIGINT: Ctrl-C.
    Interrupt,
}

/// Takes SIGTERM and SIGINT over, at once: a signal between this and the first wait is not lost.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// What the system says.
    pub fn install() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them. Cancel-safe.
    pub async fn terminate(&mut self) -> Terminate {
        tokio::select! {
            _ = self.term.recv() => Terminate::Term,
            _ = self.interrupt.recv() => Terminate::Interrupt,
        }
    }
}

/// Waits for SIGHUP, taken over when this is first polled: the terminal is gone.
///
/// # Panics
/// As [`terminate`].
pub async fn hangup() {
    signal(SignalKind::hangup()).expect("a process may handle its own signals").recv().await;
}

/// Waits for SIGTERM or SIGINT. The signals are taken over when this is first polled; a program that must not miss one while it starts uses
/// [`Signals`].
///
/// # Panics
/// Where the system does not let a process handle its signals.
pub async fn terminate() -> Terminate {
    Signals::install().expect("a process may handle its own signals").terminate().await
}
