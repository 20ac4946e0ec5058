//! The tunnels of one key.

use super::spread::{self, Seen};
use crate::{error::Refusal, tunnel::Tunnel};
use futures::future::select_all;
use rustls::ClientConfig;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tombolo_model::snapshot::CaFingerprint;
use tombolo_mtls::Credentials;

/// How long a failure to dial counts for choosing.
const LATELY: Duration = Duration::from_secs(1);

/// So long the tunnels are not looked at again for whether there should be others.
const CALM: Duration = Duration::from_millis(100);

/// The tunnels of one key.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) config: Arc<ClientConfig>,
    pub(super) credentials: Credentials,
    pub(super) dialling: tokio::sync::Mutex<()>,
    /// Whether another tunnel is made beside busy ones.
    pub(super) growing: AtomicBool,
    /// Whether tunnels are made so that all gateways behind the address have some.
    pub(super) spreading: AtomicBool,
    /// Whether others were looked for behind the address, and there was none.
    pub(super) alone: AtomicBool,
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    turns: AtomicU64,
    /// When a tunnel was made last.
    dialled: Mutex<Instant>,
    begin: Instant,
    /// Milliseconds since, until which the tunnels are not looked at.
    calm: AtomicU64,
    failure: Mutex<Option<(Instant, Refusal)>>,
    /// When one that no call waited for could not be made.
    failed_beside: Mutex<Option<Instant>>,
}

/// What is to be done for a spread of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// There are fewer than there should be.
    Few,
    /// All of them lead to one gateway; there may be others.
    Lone,
    /// None was made for long.
    Old,
    /// Nothing.
    Enough,
}

impl Slot {
    pub(super) fn new(config: Arc<ClientConfig>, credentials: Credentials) -> Self {
        Self {
            config,
            credentials,
            dialling: tokio::sync::Mutex::default(),
            growing: AtomicBool::new(false),
            spreading: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            tunnels: Mutex::default(),
            turns: AtomicU64::new(0),
            dialled: Mutex::new(Instant::now()),
            begin: Instant::now(),
            calm: AtomicU64::new(0),
            failure: Mutex::default(),
            failed_beside: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tunnel>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnels that take new streams, now or when they answer again; the others are let go.
    pub(super) fn usable(&self) -> MutexGuard<'_, Vec<Arc<Tunnel>>> {
        let not_after = self.credentials.not_after();
        let mut tunnels = self.lock();
        tunnels.retain(|tunnel| {
            if tunnel.not_after != not_after {
                tunnel.retire();
            }
            tunnel.usable()
        });
        tunnels
    }

    /// A tunnel with fewer than `most` streams.
    pub(super) fn pick(&self, most: usize) -> Option<Arc<Tunnel>> {
        let tunnels = self.usable();
        let tunnel = &tunnels[spread::next(&seen(&tunnels, most))?];
        tunnel.pick(self.turns.fetch_add(1, Ordering::Relaxed) + 1);
        Some(tunnel.clone())
    }

    /// Whether there are `aim` of them, and they were looked at a moment ago. Where not, they are looked at now.
    pub(super) fn is_calm(&self, aim: usize) -> bool {
        let now = self.begin.elapsed();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let calm = self.lock().len() >= aim && ms(now) < self.calm.load(Ordering::Relaxed);
        if !calm {
            self.calm.store(ms(now + CALM), Ordering::Relaxed);
        }
        calm
    }

    /// What is to be done that there are `aim` of them, and new ones now and then.
    pub(super) fn spread(&self, aim: usize, respread: Duration) -> Spread {
        let tunnels = self.answering();
        if tunnels.len() < aim {
            Spread::Few
        } else if self.dialled.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= respread {
            Spread::Old
        } else if spread::is_lone(&seen(&tunnels, usize::MAX)) {
            Spread::Lone
        } else {
            Spread::Enough
        }
    }

    /// No new streams on those over `most`; those over `bound` go, too, whether they answer or not.
    pub(super) fn trim(&self, most: usize, bound: usize) {
        let spare = |mut tunnels: Vec<Arc<Tunnel>>, most: usize| {
            while tunnels.len() > most
                && let Some(at) = spread::spare(&seen(&tunnels, usize::MAX))
            {
                tunnels.remove(at).retire();
            }
        };
        spare(self.answering(), most);
        let (answering, silent): (Vec<_>, Vec<_>) =
            self.usable().iter().cloned().partition(|tunnel| tunnel.answers());
        spare(silent, bound.saturating_sub(answering.len()));
    }

    /// The tunnels that take new streams now.
    pub(super) fn answering(&self) -> Vec<Arc<Tunnel>> {
        self.usable().iter().filter(|tunnel| tunnel.answers()).cloned().collect()
    }

    /// Waits until a tunnel that is silent answers again.
    pub(super) async fn answer(&self) -> Arc<Tunnel> {
        let silent: Vec<_> = self.usable().iter().cloned().map(|tunnel| Box::pin(tunnel.answer())).collect();
        if silent.is_empty() {
            return std::future::pending().await;
        }
        select_all(silent).await.0
    }

    /// One was made.
    pub(super) fn add(&self, tunnel: Arc<Tunnel>) {
        *self.dialled.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.lock().push(tunnel);
    }

    /// One that no call waited for could not be made.
    pub(super) fn set_failed_beside(&self) {
        *self.failed_beside.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether that was a moment ago.
    pub(super) fn failed_beside_lately(&self) -> bool {
        self.failed_beside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|at| at.elapsed() < LATELY)
    }

    pub(super) fn set_failure(&self, failure: Option<Refusal>) {
        let failure = failure.map(|refusal| (Instant::now(), refusal));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn failure(&self) -> Option<(Instant, Refusal)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How dialling failed that began after this.
    pub(super) fn failed_since(&self, time: Instant) -> Option<Refusal> {
        self.failure().filter(|(at, _)| *at >= time).map(|(_, refusal)| refusal)
    }

    /// Whether dialling failed a moment ago.
    pub(super) fn failed_lately(&self) -> bool {
        self.failure().is_some_and(|(at, _)| at.elapsed() < LATELY)
    }
}

fn seen(tunnels: &[Arc<Tunnel>], most: usize) -> Vec<Seen<Option<CaFingerprint>>> {
    let one = |tunnel: &Arc<Tunnel>| Seen {
        replica: tunnel.replica.clone(),
        streams: tunnel.streams(),
        room: tunnel.answers() && tunnel.streams() < most.min(tunnel.capacity()),
        turn: tunnel.turn(),
        age: tunnel.age(),
    };
    tunnels.iter().map(one).collect()
}
