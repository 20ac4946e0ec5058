//! The access log: one JSON line for each connection at each hop, at its end, refusals included.
//!
//! A line is made where the connection ends and put into a bounded queue; a thread of its own writes. A slow or full
//! disk costs lines (they are counted), never a connection its time.

mod line;
mod record;
mod writer;

pub use record::{Direction, Record, Tls};
pub use writer::Target;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};
use writer::Message;

/// How many lines may wait for the disk.
const QUEUE: usize = 8192;

/// Where the lines go. Cheap to clone; the writer ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// A log that keeps nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self { queue: None, dropped: Arc::default() }
    }

    /// Opens the log, to append.
    ///
    /// # Errors
    /// Where the file can't be opened, or the thread not be started.
    pub fn open(target: Target) -> io::Result<Self> {
        Self::with_queue(target, QUEUE)
    }

    fn with_queue(target: Target, bound: usize) -> io::Result<Self> {
        let (queue, lines) = sync_channel(bound);
        let dropped = Arc::<AtomicU64>::default();
        writer::start(target, lines, Arc::clone(&dropped))?;
        Ok(Self { queue: Some(queue), dropped })
    }

    /// Takes a line for a connection that ended. Never blocks: with a full queue the line is dropped, and counted.
    pub fn write(&self, record: &Record) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Message::Line(line::render(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again, by its name: what was renamed away keeps what it has. Where the new one can't be opened
    /// the old one goes on.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // with a full queue the disk is the problem, and the next signal comes
            let _ = queue.try_send(Message::Reopen);
        }
    }

    /// Waits until everything before this call is written, or the deadline passes. Blocks; for the end of the process
    /// and for tests. Says whether it was in time.
    pub fn flush(&self, deadline: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        let until = std::time::Instant::now() + deadline;
        while let Err(error) = queue.try_send(message) {
            let TrySendError::Full(back) = error else { return false };
            message = back;
            if std::time::Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        written.recv_timeout(until.saturating_duration_since(std::time::Instant::now())).is_ok()
    }

    /// Lines lost since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
