//! How the feed is.

use tokio::time::Instant;
use tombolo_model::Generation;
use tombolo_wire::version::Hello;

/// How the feed is, for status reports and readiness.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the sender is connected and was heard lately.
    pub connected: bool,
    /// How often it has connected. A connection that is lost and made anew between two looks is seen by this alone.
    pub connections: u64,
    /// Who the sender is, as it said last.
    pub sender: Option<Hello>,
    /// The generation in force.
    pub generation: Generation,
    /// The newest generation that the sender named.
    pub newest: Generation,
    /// When the sender was heard last.
    pub heard: Option<Instant>,
    /// When the feed was lost; nothing while it is connected.
    pub lost: Option<Instant>,
    /// Attempts that failed since the last one that worked.
    pub failures: u32,
    /// Why the last feed ended, or the last line was refused, with its causes.
    pub error: Option<String>,
    /// Whether the state in force was read from disk and not confirmed by the sender since.
    pub from_cache: bool,
    /// The generation that is kept on disk.
    pub kept: Generation,
    /// Why the last state could not be kept on disk, or the kept one not be read.
    pub cache_error: Option<String>,
}

impl Status {
    /// How many generations behind the sender's newest we are, as far as we know.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.newest.get().saturating_sub(self.generation.get())
    }
}
