//! Tunnels that are kept: one handshake for many connections.
//!
//! A key is who dials whom where. Each has one tunnel mostly, and more when many streams share one or the peer
//! takes no more of them. To another cluster there are several from the first call on, for behind one address there may be
//! several gateways ([`spread`]); one that falls silent takes no new streams until it answers again, and the others go on. A tunnel made with a certificate
//! that was rotated takes no new streams; those it has go on.

mod slot;
mod spread;

use crate::{
    copy::stream::StreamEnd,
    error::Refusal,
    head::{Answer, Connect},
    health::newcomers::Pace,
    reach::Reach,
    reason::Reason,
    tunnel::{ALPN, Dialer, Tunnel, Wanted, Watch},
};
use slot::{Slot, Spread};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tombolo_model::{ClusterName, GatewayRole, SpiffeId};
use tombolo_mtls::{Credentials, Expect, client_config};
use tombolo_runtime::{lanes, task};

/// Keys after which those without a tunnel are thrown out, of all lanes.
const KEYS: usize = 4096;
/// How often another tunnel is tried after one that was ending.
const AGAIN: usize = 2;
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

/// The pool. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    dialer: Dialer,
    pace: Pace,
    /// By lane: what is carried on one goes through its own tunnels.
    slots: Arc<[Mutex<Slots>]>,
}

type Slots = HashMap<Key, Arc<Slot>>;

impl Pool {
    /// An empty pool, for so many lanes.
    #[must_use]
    pub fn new(dialer: Dialer, lanes: usize) -> Self {
        Self { dialer, pace: Pace::default(), slots: (0..lanes).map(|_| Mutex::default()).collect() }
    }

    /// How its tunnels are dialled.
    #[must_use]
    pub const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// How fast new addresses of other clusters are dialled.
    #[must_use]
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What is dialled for this key, and how fast.
    #[must_use]
    pub fn reach(&self, key: &Key) -> Reach {
        self.dialer.reach(key.role).paced(&self.pace, &key.cluster)
    }

    /// Tunnels that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all().iter().map(|slot| slot.usable().len()).sum()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of them that do not answer in time.
    #[must_use]
    pub fn silent(&self) -> usize {
        self.all().iter().map(|slot| slot.usable().iter().filter(|tunnel| !tunnel.answers()).count()).sum()
    }

    /// Whether dialling this failed a moment ago.
    #[must_use]
    pub fn failed_lately(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|slot| slot.failed_lately())
    }

    /// Whether any tunnel to this address was heard within this time.
    #[must_use]
    pub fn lives(&self, address: &str, within: Duration) -> bool {
        self.at(address).iter().any(|slot| slot.usable().iter().any(|tunnel| tunnel.heard_within(within)))
    }

    /// No new streams on any tunnel to this address: it does not answer.
    pub fn retire(&self, address: &str) {
        for slot in self.at(address) {
            slot.lock().drain(..).for_each(|tunnel| tunnel.retire());
        }
    }

    fn at(&self, address: &str) -> Vec<Arc<Slot>> {
        self.of(|key| *key.address == *address)
    }

    fn all(&self) -> Vec<Arc<Slot>> {
        self.of(|_| true)
    }

    fn of(&self, which: impl Fn(&Key) -> bool) -> Vec<Arc<Slot>> {
        let mut found = Vec::new();
        for lane in &*self.slots {
            let slots = lane.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(slots.iter().filter(|(key, _)| which(key)).map(|(_, slot)| slot.clone()));
        }
        found
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
            self.spread(key, &slot);
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
        if let Some(refusal) = slot.failed_since(asked) {
            return Err(refusal);
        }
        // All are silent, or there is none. Behind the address there may be another gateway; or it was a moment's.
        let result = tokio::select! {
            biased;
            result = self.dial(key, &slot) => result,
            tunnel = slot.answer() => return Ok(tunnel),
        };
        slot.set_failure(result.as_ref().err().cloned());
        let tunnel = result?;
        self.spread(key, &slot);
        Ok(tunnel)
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
        let (mut again, mut ending) = (0, 0);
        loop {
            let tunnel = self.tunnel(key, credentials).await?;
            match tunnel.open(connect).await {
                Ok((stream, answer)) => return Ok((stream, answer, tunnel)),
                Err(refusal) if refusal.reason == Reason::TunnelLost && refusal.hop.is_none() => {
                    // Of several tunnels many may lead to one gateway that ends; each says so to the first stream that it does not take.
                    let takes = tunnel.usable() && tunnel.answers();
                    let count = if takes { &mut again } else { &mut ending };
                    *count += 1;
                    if again > AGAIN || ending > AGAIN + self.dialer.limits.pool_tunnels {
                        return Err(refusal);
                    }
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn dial(&self, key: &Key, slot: &Slot) -> Result<Arc<Tunnel>, Refusal> {
        let not_after = slot.credentials.not_after();
        let (reach, watch) = (self.reach(key), Dialer::watch(key.role));
        let (address, config) = (key.address.clone(), slot.config.clone());
        let tunnel = self.dialer.dial(Wanted { address, reach, config, not_after, watch }).await?;
        slot.add(tunnel.clone());
        Ok(tunnel)
    }

    /// Dials a tunnel that no call waits for. What becomes of it says nothing to those that do.
    async fn dial_beside(&self, key: &Key, slot: &Slot) -> bool {
        let result = self.dial(key, slot).await;
        if let Err(refusal) = &result {
            tracing::debug!(%refusal, "no other tunnel");
            slot.set_failed_beside();
        }
        result.is_ok()
    }

    /// Dials another tunnel beside a busy one, unless that is under way or there are enough.
    fn grow(&self, key: &Key, slot: &Arc<Slot>) {
        if slot.lock().len() >= self.dialer.limits.pool_tunnels
            || slot.failed_beside_lately()
            || slot.growing.swap(true, Ordering::SeqCst)
        {
            return;
        }
        let (pool, key, slot) = (self.clone(), key.clone(), slot.clone());
        task::spawn("tunnel-grow", async move {
            pool.dial_beside(&key, &slot).await;
            slot.growing.store(false, Ordering::SeqCst);
        });
    }

    /// Makes tunnels beside those that there are, so that all gateways behind an address are used, unless that is under way.
    fn spread(&self, key: &Key, slot: &Arc<Slot>) {
        let aim = match Dialer::watch(key.role) {
            Watch::Tunnel => self.aim(),
            Watch::Address => 1,
        };
        if aim < 2 || slot.is_calm(aim) {
            return;
        }
        let respread = self.dialer.timing.respread;
        let is_due = matches!(slot.spread(aim, respread), Spread::Few | Spread::Old);
        if !is_due || slot.failed_beside_lately() || slot.spreading.swap(true, Ordering::SeqCst) {
            return;
        }
        let (pool, key, slot) = (self.clone(), key.clone(), slot.clone());
        task::spawn("tunnel-spread", async move {
            // A balancer that has led all of them to one gateway may lead the next to another one. Where that was tried in vain once, the
            // new tunnel of now and then is enough.
            let (mut filled, mut more) = (false, aim);
            for _ in 0..2 * aim {
                let wanted = match slot.spread(aim, respread) {
                    Spread::Few => {
                        filled = !slot.alone.load(Ordering::Relaxed);
                        true
                    }
                    Spread::Old => true,
                    Spread::Lone if filled && more > 0 => {
                        more -= 1;
                        true
                    }
                    Spread::Lone => {
                        slot.alone.fetch_or(filled, Ordering::Relaxed);
                        false
                    }
                    Spread::Enough => {
                        slot.alone.store(false, Ordering::Relaxed);
                        false
                    }
                };
                let most = slot.answering().len().max(aim);
                if !wanted || !pool.dial_beside(&key, &slot).await {
                    break;
                }
                slot.trim(most, pool.dialer.limits.pool_tunnels.max(aim));
            }
            slot.spreading.store(false, Ordering::SeqCst);
        });
    }

    fn slot(&self, key: &Key, credentials: &Credentials) -> Arc<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(key) {
            return slot.clone();
        }
        if slots.len() >= KEYS {
            // who holds one is about to have a tunnel in it
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.usable().is_empty());
        }
        let expect = Expect::Gateway { cluster: Some(key.cluster.clone()), role: key.role };
        let config = client_config(&self.dialer.bundle, credentials, expect, &[ALPN]);
        let slot = Arc::new(Slot::new(config, credentials.clone()));
        slots.insert(key.clone(), slot.clone());
        slot
    }

    /// Those of this lane.
    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots[lanes::here() % self.slots.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tunnels to one address of another cluster, of this lane.
    fn aim(&self) -> usize {
        let wanted = self.dialer.limits.pool_spread.min(self.dialer.limits.pool_tunnels);
        // two, so that each lane finds more than one gateway behind an address
        wanted.div_ceil(self.slots.len()).max(wanted.min(2))
    }
}
