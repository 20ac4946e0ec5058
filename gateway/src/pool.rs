//! Tunnels that are kept: one handshake for many connections.
//!
//! A key is who dials whom where. Each has one tunnel mostly, and more when many streams share one or the peer
//! takes no more of them. A tunnel made with a certificate that was rotated takes no new streams; those it has go on.

use crate::{
    copy::stream::StreamEnd,
    error::Refusal,
    head::{Answer, Connect},
    reason::Reason,
    tunnel::{ALPN, Dialer, Tunnel},
};
use rustls::ClientConfig;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tombolo_model::{ClusterName, GatewayRole, SpiffeId};
use tombolo_mtls::{Credentials, Expect, client_config};
use tombolo_runtime::task;

/// Keys after which those without a tunnel are thrown out.
const KEYS: usize = 4096;
/// How often another tunnel is tried after one that was ending.
const AGAIN: u32 = 2;
/// How long a failure to dial counts for choosing.
const LATELY: Duration = Duration::from_secs(1);

/// Who dials whom where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The identity shown.
    pub identity: SpiffeId,
    /// `host:port`.
    pub address: Arc<str>,
    /// The cluster of the gateway expected there.
    pub cluster: ClusterName,
    /// Its role.
    pub role: GatewayRole,
}

#[derive(Debug)]
struct Slot {
    config: Arc<ClientConfig>,
    credentials: Credentials,
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    dialling: tokio::sync::Mutex<()>,
    growing: AtomicBool,
    failure: Mutex<Option<(Instant, Refusal)>>,
}

/// The pool. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    dialer: Dialer,
    slots: Arc<Mutex<HashMap<Key, Arc<Slot>>>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, slots: Arc::default() }
    }

    /// How its tunnels are dialled.
    #[must_use]
    pub const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Tunnels that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(|slot| slot.usable().len()).sum()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether dialling this failed a moment ago.
    #[must_use]
    pub fn failed_lately(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|slot| {
            let failure = slot.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.as_ref().is_some_and(|(at, _)| at.elapsed() < LATELY)
        })
    }

    /// No new streams on any tunnel to this address: it does not answer.
    pub fn retire(&self, address: &str) {
        let slots: Vec<Arc<Slot>> = self
            .lock()
            .iter()
            .filter(|(key, _)| *key.address == *address)
            .map(|(_, slot)| slot.clone())
            .collect();
        for slot in slots {
            slot.lock().drain(..).for_each(|tunnel| tunnel.retire());
        }
    }

    /// A tunnel with room for one more stream: the least loaded, or a new one.
    ///
    /// Cancel safe; a dial under way is dropped with it, and the next one waiting dials itself.
    ///
    /// # Errors
    /// Those of [`Dialer::dial`], and [`Reason::NoCredentials`] while the identity has no certificate.
    pub async fn tunnel(&self, key: &Key, credentials: &Credentials) -> Result<Arc<Tunnel>, Refusal> {
        if !credentials.ready() {
            return Err(Refusal::new(
                Reason::NoCredentials,
                format!("{} has no certificate yet", key.identity),
            ));
        }
        let slot = self.slot(key, credentials);
        if let Some(tunnel) = slot.pick(self.dialer.limits.pool_streams) {
            return Ok(tunnel);
        }
        if let Some(tunnel) = slot.pick(usize::MAX) {
            self.grow(key, &slot);
            return Ok(tunnel);
        }
        let asked = Instant::now();
        let _one_at_a_time = slot.dialling.lock().await;
        if let Some(tunnel) = slot.pick(usize::MAX) {
            return Ok(tunnel);
        }
        // A dial that began and failed while this waited is the answer for all who waited.
        let failed = slot.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, refusal)) = failed.filter(|(at, _)| *at >= asked) {
            return Err(refusal);
        }
        self.dial(key, &slot).await
    }

    /// Opens a stream on a tunnel with room. A tunnel that turns out to be ending is no reason to fail: another one is
    /// taken, or dialled.
    ///
    /// # Errors
    /// Those of [`Self::tunnel`] and [`Tunnel::open`].
    pub async fn open(
        &self,
        key: &Key,
        credentials: &Credentials,
        connect: &Connect,
    ) -> Result<(StreamEnd, Answer, Arc<Tunnel>), Refusal> {
        let mut again = 0;
        loop {
            let tunnel = self.tunnel(key, credentials).await?;
            match tunnel.open(connect).await {
                Ok((stream, answer)) => return Ok((stream, answer, tunnel)),
                Err(refusal)
                    if refusal.reason == Reason::TunnelLost && refusal.hop.is_none() && again < AGAIN =>
                {
                    again += 1;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn dial(&self, key: &Key, slot: &Slot) -> Result<Arc<Tunnel>, Refusal> {
        let not_after = slot.credentials.not_after();
        let reach = self.dialer.reach(key.role);
        let result = self.dialer.dial(&key.address, reach, slot.config.clone(), not_after).await;
        let failure = result.as_ref().err().map(|refusal| (Instant::now(), refusal.clone()));
        *slot.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        let tunnel = result?;
        slot.lock().push(tunnel.clone());
        Ok(tunnel)
    }

    /// Dials another tunnel beside a busy one, unless that is under way or there are enough.
    fn grow(&self, key: &Key, slot: &Arc<Slot>) {
        if slot.lock().len() >= self.dialer.limits.pool_tunnels || slot.growing.swap(true, Ordering::SeqCst) {
            return;
        }
        let (pool, key, slot) = (self.clone(), key.clone(), slot.clone());
        task::spawn("tunnel-grow", async move {
            if let Err(refusal) = pool.dial(&key, &slot).await {
                tracing::debug!(%refusal, "no second tunnel");
            }
            slot.growing.store(false, Ordering::SeqCst);
        });
    }

    fn slot(&self, key: &Key, credentials: &Credentials) -> Arc<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        if slots.len() >= KEYS {
            slots.retain(|_, slot| !slot.usable().is_empty());
        }
        let expect = Expect::Gateway { cluster: Some(key.cluster.clone()), role: key.role };
        let slot = Arc::new(Slot {
            config: client_config(&self.dialer.bundle, credentials, expect, &[ALPN]),
            credentials: credentials.clone(),
            tunnels: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            growing: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        slots.insert(key.clone(), slot.clone());
        slot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Tunnel>>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tunnels that take new streams; the others are let go.
    fn usable(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Tunnel>>> {
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

    /// The least loaded tunnel with fewer than `most` streams.
    fn pick(&self, most: usize) -> Option<Arc<Tunnel>> {
        let tunnels = self.usable();
        let least = tunnels.iter().min_by_key(|tunnel| tunnel.streams())?;
        (least.streams() < most.min(least.capacity())).then(|| least.clone())
    }
}
