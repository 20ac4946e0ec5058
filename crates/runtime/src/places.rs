//! Places for connections, shared out by who comes: so many in all, so many for each. Where all are taken, somebody who has fewer than
//! others gets the oldest place of whoever has most: nobody keeps others away by holding connections open.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
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
    /// Whoever asks has as many as one may have.
    Each,
    /// All are taken, and nobody has more than whoever asks.
    All,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// By who has them, oldest first.
    of: HashMap<K, BTreeMap<u64, CancellationToken>>,
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

    /// Takes a place for `who`. Where all are taken, the oldest of whoever has most is taken away from him, if he has more than
    /// `who` would have; see [`Place::lost`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(&self, who: &K) -> Result<Place<K>, Full> {
        let mut taken = self.lock();
        let taken = &mut *taken;
        let has = taken.of.get(who).map_or(0, BTreeMap::len);
        if has >= self.shares.each {
            return Err(Full::Each);
        }
        if taken.all >= self.shares.all {
            let most = taken.of.values_mut().max_by_key(|places| places.len());
            let most = most.filter(|places| places.len() > has + 1).ok_or(Full::All)?;
            if let Some((_, oldest)) = most.pop_first() {
                oldest.cancel();
                taken.all -= 1;
            }
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.all += 1;
        taken.of.entry(who.clone()).or_default().insert(number, lost.clone());
        Ok(Place { places: self.clone(), who: who.clone(), number, lost })
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
    lost: CancellationToken,
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Waits until somebody who has fewer got this place: what holds it is to end at once.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
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
        place.lost.is_cancelled()
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
        assert_eq!(places.take(&"a").unwrap_err(), Full::Each);
        let other = places.take(&"b").unwrap();
        drop(held);
        assert_eq!(places.taken(), 1);
        assert!(places.take(&"a").is_ok());
        drop(other);
        assert!(places.lock().of.is_empty() && places.taken() == 0);
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
        // two, two and one: who has two takes nothing from who has two
        assert_eq!(places.take(&"probe").unwrap_err(), Full::All);
        assert_eq!(places.take(&"one").unwrap_err(), Full::All);
        assert!(!is_lost(&one) && !is_lost(&probe) && !is_lost(&second));
        assert_eq!(places.taken(), 5);
        drop(hog);
        assert_eq!(places.taken(), 3, "what was taken away is not given back twice");
    }
}
