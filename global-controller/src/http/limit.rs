//! How many requests a token may make: a bucket per token that fills at a steady rate. The memory is bounded: a full
//! bucket is the same as none, so those are forgotten first.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quota {
    /// At once, after a pause.
    pub(crate) burst: u32,
    /// In the long run, per second.
    pub(crate) per_second: f64,
}

/// What to tell the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the request may go on.
    pub(crate) allowed: bool,
    /// How many more could be made at once.
    pub(crate) remaining: u32,
    /// Seconds until the bucket is full again, rounded up.
    pub(crate) reset_s: u64,
    /// Seconds until one more may be made, rounded up.
    pub(crate) retry_after_s: u64,
}

/// The whole requests in a bucket; a level is never below zero or above the burst, which is a `u32`.
fn whole(level: f64) -> u32 {
    Duration::from_secs_f64(level.max(0.0)).as_secs().try_into().unwrap_or(u32::MAX)
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: SystemTime,
}

/// Buckets by key.
#[derive(Debug)]
pub(crate) struct Limiter<K> {
    quota: Quota,
    most: usize,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// At most `most` buckets are kept.
    pub(crate) fn new(quota: Quota, most: usize) -> Self {
        Self { quota, most, buckets: Mutex::new(HashMap::new()) }
    }

    /// What each key may do.
    pub(crate) fn quota(&self) -> Quota {
        self.quota
    }

    /// Takes one request out of the key's bucket.
    pub(crate) fn take(&self, key: &K, now: SystemTime) -> Verdict {
        let full = f64::from(self.quota.burst);
        let level_at = |bucket: &Bucket| {
            // a clock that was set back fills nothing, and empties nothing
            let passed = now.duration_since(bucket.at).unwrap_or(Duration::ZERO).as_secs_f64();
            (bucket.level + passed * self.quota.per_second).min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut level = buckets.get(key).map_or(full, level_at);
        let allowed = level >= 1.0;
        if allowed {
            level -= 1.0;
        }
        if buckets.len() >= self.most && !buckets.contains_key(key) {
            buckets.retain(|_, bucket| level_at(bucket) < full);
            if buckets.len() >= self.most {
                // all of them busy: forget the one that is fullest, which gives its token the least
                let fullest = buckets.iter().max_by(|a, b| level_at(a.1).total_cmp(&level_at(b.1)));
                if let Some(key) = fullest.map(|(key, _)| key.clone()) {
                    buckets.remove(&key);
                }
            }
        }
        buckets.insert(key.clone(), Bucket { level, at: now });
        let seconds = |missing: f64| Duration::from_secs_f64((missing / self.quota.per_second).max(0.0));
        let ceil = |d: Duration| d.as_secs() + u64::from(d.subsec_nanos() > 0);
        Verdict {
            allowed,
            remaining: whole(level),
            reset_s: ceil(seconds(full - level)),
            retry_after_s: ceil(seconds(1.0 - level)).max(1),
        }
    }

    /// Puts back what [`Limiter::take`] took: the request turned out to be one that does not count.
    pub(crate) fn give_back(&self, key: &K) {
        let full = f64::from(self.quota.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.level = (bucket.level + 1.0).min(full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { burst: 3, per_second: 2.0 };

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let limiter = Limiter::new(QUOTA, 10);
        let remaining: Vec<u32> = (0..3).map(|_| limiter.take(&1, at(0)).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = limiter.take(&1, at(0));
        assert_eq!((refused.allowed, refused.retry_after_s, refused.reset_s), (false, 1, 2));
        assert!(limiter.take(&1, at(500)).allowed);
        assert!(!limiter.take(&1, at(500)).allowed);
        assert!(limiter.take(&2, at(0)).allowed, "another token has a bucket of its own");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let limiter = Limiter::new(QUOTA, 10);
        for _ in 0..3 {
            limiter.take(&1, at(5000));
        }
        assert!(!limiter.take(&1, at(0)).allowed);
    }

    #[test]
    fn what_does_not_count_is_given_back() {
        let limiter = Limiter::new(QUOTA, 10);
        for _ in 0..100 {
            assert!(limiter.take(&1, at(0)).allowed);
            limiter.give_back(&1);
        }
        limiter.give_back(&1);
        assert_eq!(limiter.take(&1, at(0)).remaining, 2, "never more than full");
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::new(QUOTA, 10);
        for key in 0..1000 {
            limiter.take(&key, at(0));
            assert!(limiter.buckets.lock().unwrap().len() <= 10);
        }
    }
}
