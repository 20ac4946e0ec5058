//! How fast addresses that a peer names are dialled for the first time. Each is dialled from inside this cluster's network, by the
//! word of another cluster, which may name others all the time. Pure: instants come in.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tombolo_model::ClusterName;

/// As many of one peer may be new at once: all that it may have, twice.
pub const AT_ONCE: u32 = 64;
/// Then one more each time that so much has passed.
pub const PACE: Duration = Duration::from_secs(15);
/// As many of one peer are remembered, and come back as they please.
const KNOWN: usize = 128;

/// The addresses of one peer.
#[derive(Debug)]
struct Named {
    known: VecDeque<String>,
    left: u32,
    since: Instant,
}

impl Named {
    fn refill(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.since);
        let more = u32::try_from(gone.as_nanos() / PACE.as_nanos()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(AT_ONCE);
        self.since += PACE * more.min(AT_ONCE);
        if self.left == AT_ONCE {
            self.since = now;
        }
    }
}

/// The addresses that peers named.
#[derive(Debug, Default)]
pub struct Newcomers(BTreeMap<ClusterName, Named>);

impl Newcomers {
    /// Whether an address that a peer names may be dialled now.
    pub fn admit(&mut self, cluster: &ClusterName, address: &str, now: Instant) -> bool {
        let fresh = || Named { known: VecDeque::new(), left: AT_ONCE, since: now };
        let named = self.0.entry(cluster.clone()).or_insert_with(fresh);
        if let Some(at) = named.known.iter().position(|known| known == address) {
            // What is in use is forgotten last.
            let used = named.known.remove(at);
            named.known.extend(used);
            return true;
        }
        named.refill(now);
        if named.left == 0 {
            return false;
        }
        named.left -= 1;
        if named.known.len() >= KNOWN {
            named.known.pop_front();
        }
        named.known.push_back(address.to_owned());
        true
    }

    /// Forgets peers that are no more, once they may name as many as ever.
    pub fn keep(&mut self, is_peer: impl Fn(&ClusterName) -> bool, now: Instant) {
        self.0.retain(|cluster, named| {
            named.refill(now);
            is_peer(cluster) || named.left < AT_ONCE
        });
    }
}

/// The same for all who dial. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pace(Arc<Mutex<Newcomers>>);

impl Pace {
    /// The addresses themselves.
    pub fn newcomers(&self) -> MutexGuard<'_, Newcomers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what a peer's name leads to may be dialled now: it counts as if the peer had named it.
    #[must_use]
    pub fn admit(&self, cluster: &ClusterName, found: SocketAddr) -> bool {
        let found = SocketAddr::new(found.ip().to_canonical(), found.port());
        self.newcomers().admit(cluster, &found.to_string(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_in_use_is_forgotten_last() {
        let (mut newcomers, mut now) = (Newcomers::default(), Instant::now());
        let scanner = cluster("scanner");
        for number in 0..KNOWN * 2 {
            now += PACE;
            assert!(newcomers.admit(&scanner, &format!("192.0.2.1:{number}"), now));
            assert!(newcomers.admit(&scanner, "gateway.example.com:15443", now));
        }
        let known = &newcomers.0[&scanner].known;
        assert_eq!(known.len(), KNOWN);
        assert!(known.contains(&"gateway.example.com:15443".to_owned()), "{known:?}");
    }

    fn cluster(name: &str) -> ClusterName {
        ClusterName::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_names_others_all_the_time_has_few_of_them_dialled() {
        let (mut newcomers, begin) = (Newcomers::default(), Instant::now());
        let (scanner, other) = (cluster("scanner"), cluster("other"));
        let mut port = 0;
        let mut named = |newcomers: &mut Newcomers, now: Instant| {
            port += 1;
            newcomers.admit(&scanner, &format!("10.0.0.1:{port}"), now)
        };
        let admitted = (0..1000).filter(|_| named(&mut newcomers, begin)).count();
        assert_eq!(admitted, AT_ONCE as usize);
        assert!(newcomers.admit(&scanner, "10.0.0.1:1", begin), "what is known may come back");
        assert!(newcomers.admit(&other, "192.0.2.1:1", begin), "others have their own");
        let hour = (0..3600).filter(|second| {
            let now = begin + Duration::from_secs(*second);
            (0..10).any(|_| named(&mut newcomers, now))
        });
        assert_eq!(hour.count(), 3600 / 15 - 1);
        // Leaving and coming back gives nothing.
        let now = begin + Duration::from_secs(3600);
        named(&mut newcomers, now);
        newcomers.keep(|_| false, now);
        assert_eq!(newcomers.0.keys().collect::<Vec<_>>(), [&scanner]);
        newcomers.keep(|_| false, now + PACE * AT_ONCE);
        assert!(newcomers.0.is_empty());
    }
}
