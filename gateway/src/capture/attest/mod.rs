//! Who is calling, where one proxy serves a whole machine: the kernel names the socket's owner, and exactly one
//! workload's selectors must agree with it (as SPIRE's unix attestor has it).
//!
//! The caller says nothing about itself, so nothing it says has to be believed. What is read can change right after:
//! the answer is about the process that held the socket when the connection was taken.

mod kernel;
mod process;
mod select;

pub(crate) use select::{Mismatch, ProcessFacts};

use kernel::{KernelError, SocketOwner};
use process::{Process, ProcessError, Processes};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};
use tombolo_model::{SpiffeId, snapshot::WorkloadSpec};

/// How many connections are looked up at once: each takes a thread that blocks.
const CONCURRENT: usize = 16;
/// How many may wait for their turn; one more is refused at once.
const WAITING: usize = 4096;
/// How long one waits for its turn and its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a caller is not known to be one workload.
#[derive(Debug, Error)]
pub(crate) enum AttestError {
    /// The kernel does not say whose socket it is.
    #[error("the kernel does not say who is calling")]
    Kernel(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The process that holds the socket is not found.
    #[error("the calling process is not known")]
    Process(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The process is no workload of this cluster.
    #[error(
        "no workload's selectors agree with the caller ({0}): give its ServiceAccount a tombolo.io/selector annotation \
         that does (path= counts only beside uid= or cgroup=)"
    )]
    Nobody(String),
    /// The process is more than one workload.
    #[error("the selectors of {workloads} all agree with the caller ({facts}): make them differ")]
    Several {
        /// The workloads.
        workloads: String,
        /// What is known of the caller.
        facts: String,
    },
    /// Processes of more than one workload hold the socket.
    #[error("the caller's socket is shared by {workloads}: let each process open its own")]
    Shared {
        /// The workloads.
        workloads: String,
    },
    /// Too many connections wait to be looked up.
    #[error("too many callers wait to be looked up")]
    Overloaded,
}

/// Looks callers up, off the data path's threads, a bounded number at a time.
#[derive(Clone, Debug)]
pub(crate) struct Attestor {
    waiting: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    processes: Arc<Processes>,
    patience: Duration,
}

impl Attestor {
    pub(crate) fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    fn with_patience(patience: Duration) -> Self {
        Self {
            patience,
            waiting: Arc::new(Semaphore::new(WAITING)),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
            processes: Arc::new(Processes::new()),
        }
    }

    /// The one workload among `workloads` that the caller of a connection is. `client` is the caller's address,
    /// `server` the address it dialled, before any redirect.
    ///
    /// Cancel safe: a look-up that nobody waits for ends by itself.
    ///
    /// # Errors
    /// [`AttestError::Nobody`] and [`AttestError::Several`] say what is known of the caller;
    /// [`AttestError::Overloaded`] after two seconds without an answer.
    pub(crate) async fn attest(
        &self,
        workloads: Arc<[WorkloadSpec]>,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<SpiffeId, AttestError> {
        let _place = self.waiting.try_acquire().map_err(|_| AttestError::Overloaded)?;
        let (permits, processes) = (Arc::clone(&self.permits), Arc::clone(&self.processes));
        let looked_up = async move {
            let permit = permits.acquire_owned().await.map_err(|_| AttestError::Overloaded)?;
            tokio::task::spawn_blocking(move || {
                let answer = look_up(&workloads, &processes, || kernel::owner(client, server));
                drop(permit);
                answer
            })
            .await
            .map_err(|stopped| AttestError::Process(stopped.into()))?
        };
        timeout(self.patience, looked_up).await.map_err(|_| AttestError::Overloaded)?
    }
}

/// `owner` asks the kernel about the caller's socket.
fn look_up(
    workloads: &[WorkloadSpec],
    processes: &Processes,
    owner: impl Fn() -> Result<SocketOwner, KernelError>,
) -> Result<SpiffeId, AttestError> {
    let unknown = |e: KernelError| AttestError::Kernel(e.into());
    let socket = owner().map_err(unknown)?;
    if !select::needs_process(workloads, socket.uid) {
        let facts = ProcessFacts { uid: socket.uid, ..ProcessFacts::default() };
        return one(workloads, &facts).map(|workload| workload.identity.clone());
    }
    // A workload may still be known by the user id alone, but then another one that asks for a path might agree as
    // well: not knowing is a refusal.
    let holders =
        processes.holders(socket.inode).map_err(|e: ProcessError| AttestError::Process(e.into()))?;
    // What was read is about this socket only if it was there all the time: inodes and process ids are used again.
    if owner().map_err(unknown)? != socket {
        return Err(AttestError::Kernel(KernelError::Gone.into()));
    }
    let mut found: Option<&WorkloadSpec> = None;
    for Process { exe, cgroup } in holders {
        let facts = ProcessFacts { uid: socket.uid, exe, cgroup };
        let workload = one(workloads, &facts)?;
        match found.replace(workload) {
            Some(other) if other.identity != workload.identity => {
                let workloads = format!("{} and {}", other.identity, workload.identity);
                return Err(AttestError::Shared { workloads });
            }
            _ => {}
        }
    }
    found.map(|workload| workload.identity.clone()).ok_or_else(|| unknown(KernelError::Gone))
}

fn one<'a>(workloads: &'a [WorkloadSpec], facts: &ProcessFacts) -> Result<&'a WorkloadSpec, AttestError> {
    select::pick(workloads, facts).map_err(|mismatch| match mismatch {
        Mismatch::Nobody => AttestError::Nobody(describe(facts)),
        Mismatch::Several(ids) => {
            let workloads = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
            AttestError::Several { workloads, facts: describe(facts) }
        }
    })
}

fn describe(facts: &ProcessFacts) -> String {
    let mut text = format!("uid={}", facts.uid);
    if let Some(exe) = &facts.exe {
        text.push_str(&format!(" path={}", exe.display()));
    }
    if let Some(cgroup) = &facts.cgroup {
        text.push_str(&format!(" cgroup={cgroup}"));
    }
    text
}

#[cfg(test)]
mod tests;
