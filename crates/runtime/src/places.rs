//! Places for connections, shared out by who comes: so many in all, so many for each. Whoever has as many as one may have loses his oldest
//! idle one for another: behind one address there may be a node with all its pods, or a whole network, and one of them may hold on to all it
//! gets. Where all are taken, somebody who has fewer than others gets the oldest idle place of whoever has most.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Where a client is, as far as it is counted: its IPv4 address, or its IPv6 network, of which it may have every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// Of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Self(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into())
            }
            other => Self(other),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(v6) if !v6.is_loopback() => write!(f, "{v6}/64"),
            other => other.fmt(f),
        }
    }
}

/// How often a place is looked for, while there is none.
const AGAIN: Duration = Duration::from_millis(20);

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// In all.
    pub all: usize,
    /// Of these, for each.
    pub each: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Whoever asks has as many as one may have, none of them idle.
    Each,
    /// All are taken, and nobody who has more than whoever asks has an idle one.
    All,
}

/// A place that is taken: how to take it away, and how much is under way in it.
#[derive(Clone, Debug, Default)]
struct Slot {
    lost: CancellationToken,
    busy: Arc<AtomicUsize>,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }
}

/// Takes the oldest idle one away.
fn evict(slots: &mut BTreeMap<u64, Slot>) -> bool {
    let oldest = slots.iter().find(|(_, slot)| slot.is_idle()).map(|(number, _)| *number);
    let taken = oldest.and_then(|number| slots.remove(&number));
    taken.inspect(|slot| slot.lost.cancel()).is_some()
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// By who has them, oldest first.
    of: HashMap<K, BTreeMap<u64, Slot>>,
    next: u64,
}

/// The places. Clones share them.
#[derive(Debug)]
pub struct Places<K: Clone + Eq + Hash = Source> {
    shares: Shares,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Clone + Eq + Hash> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { shares: self.shares, taken: Arc::clone(&self.taken) }
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// All free.
    #[must_use]
    pub fn new(shares: Shares) -> Self {
        Self { shares, taken: Arc::new(Mutex::new(Taken { all: 0, of: HashMap::new(), next: 0 })) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for `who`, perhaps away from himself or from somebody who has more; see [`Place::lost`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(&self, who: &K) -> Result<Place<K>, Full> {
        let mut taken = self.lock();
        let taken = &mut *taken;
        let has = taken.of.get(who).map_or(0, BTreeMap::len);
        if has >= self.shares.each {
            let evicted = taken.of.get_mut(who).is_some_and(evict);
            if !evicted {
                return Err(Full::Each);
            }
            taken.all -= 1;
        } else if taken.all >= self.shares.all {
            let more = taken.of.values_mut().filter(|slots| slots.len() > has + 1);
            let most = more.filter(|slots| slots.values().any(Slot::is_idle)).max_by_key(|slots| slots.len());
            if !most.is_some_and(evict) && !taken.of.get_mut(who).is_some_and(evict) {
                return Err(Full::All);
            }
            taken.all -= 1;
        }
        let (number, slot) = (taken.next, Slot::default());
        taken.next += 1;
        taken.all += 1;
        taken.of.entry(who.clone()).or_default().insert(number, slot.clone());
        Ok(Place { places: self.clone(), who: who.clone(), number, slot })
    }

    /// The same, within this time.
    ///
    /// # Errors
    /// [`Full`].
    pub async fn take_within(&self, who: &K, patience: Duration) -> Result<Place<K>, Full> {
        let again = async {
            loop {
                if let Ok(place) = self.take(who) {
                    return place;
                }
                sleep(AGAIN).await;
            }
        };
        match timeout(patience, again).await {
            Ok(place) => Ok(place),
            Err(_) => self.take(who),
        }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.lock().all
    }
}

/// A place; dropped, it is free.
#[derive(Debug)]
pub struct Place<K: Clone + Eq + Hash = Source> {
    places: Places<K>,
    who: K,
    number: u64,
    slot: Slot,
}

/// Something is under way in a place: until this is dropped, nobody takes it away.
#[derive(Debug)]
pub struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Waits until somebody who has fewer got this place: what holds it is to end at once.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.slot.lost.clone().cancelled_owned()
    }

    /// Something begins in it.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.slot.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.slot.busy))
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        let Some(places) = taken.of.get_mut(&self.who) else { return };
        let held = places.remove(&self.number).is_some();
        // what counts nothing takes no memory
        if places.is_empty() {
            taken.of.remove(&self.who);
        }
        if held {
            taken.all -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &Place<&'static str>) -> bool {
        place.slot.lost.is_cancelled()
    }

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_client_has_its_whole_network() {
        assert_eq!(source("2001:db8:1:2:3::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source("2001:db8:1:2:3::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(
            (source("192.0.2.1").to_string(), source("::1").to_string()),
            ("192.0.2.1".into(), "::1".into())
        );
    }

    #[test]
    fn each_has_its_share_and_gives_it_back() {
        let places = Places::new(Shares { all: 8, each: 2 });
        let held = [places.take(&"a").unwrap(), places.take(&"a").unwrap()];
        let other = places.take(&"b").unwrap();
        drop(held);
        assert_eq!(places.taken(), 1);
        drop(other);
        assert!(places.lock().of.is_empty() && places.taken() == 0);
    }

    /// A kubelet's probe comes from the address of its node, or from the network of a hog.
    #[test]
    fn one_who_holds_on_to_all_of_a_share_keeps_no_neighbour_away() {
        let places = Places::new(Shares { all: 8, each: 2 });
        let hog = [places.take(&"node").unwrap(), places.take(&"node").unwrap()];
        let probe = places.take(&"node").unwrap();
        assert!(is_lost(&hog[0]) && !is_lost(&hog[1]) && !is_lost(&probe), "the oldest goes");
        assert_eq!(places.taken(), 2);
        // what something is under way in stays
        let under_way = (hog[1].busy(), probe.busy());
        assert_eq!(places.take(&"node").unwrap_err(), Full::Each);
        drop(under_way);
        assert!(places.take(&"node").is_ok() && is_lost(&hog[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for() {
        let places = Places::new(Shares { all: 1, each: 1 });
        let first = places.take(&"a").unwrap();
        let busy = first.busy();
        let none = places.take_within(&"b", Duration::from_secs(1)).await;
        assert_eq!(none.unwrap_err(), Full::All);
        let (second, ()) = tokio::join!(places.take_within(&"b", Duration::from_secs(1)), async {
            sleep(Duration::from_millis(500)).await;
            drop((busy, first));
        });
        assert!(second.is_ok());
    }

    #[test]
    fn whoever_has_most_gives_to_whoever_has_less() {
        let places = Places::new(Shares { all: 5, each: 4 });
        let hog: Vec<_> = (0..4).map(|_| places.take(&"hog").unwrap()).collect();
        let one = places.take(&"one").unwrap();
        let probe = places.take(&"probe").unwrap();
        assert_eq!(hog.iter().map(is_lost).collect::<Vec<_>>(), [true, false, false, false], "the oldest");
        let second = places.take(&"probe").unwrap();
        assert_eq!(hog.iter().filter(|place| is_lost(place)).count(), 2);
        // two, two and one: who has two takes nothing from who has two, but his own oldest
        let third = places.take(&"probe").unwrap();
        assert!(is_lost(&probe) && !is_lost(&one) && hog.iter().filter(|place| is_lost(place)).count() == 2);
        let under_way = [one.busy(), second.busy(), third.busy()];
        assert_eq!(places.take(&"one").unwrap_err(), Full::All);
        drop(under_way);
        assert_eq!(places.taken(), 5);
        drop(hog);
        assert_eq!(places.taken(), 3, "what was taken away is not given back twice");
    }
}
