//! Clusters that refused a name lately: they come last for that name, and for no other. Pure.

use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use tombolo_model::{ClusterName, GlobalName};

/// How long the first refusal counts.
const FIRST: Duration = Duration::from_millis(500);
/// How long one counts at most, after several in a row.
const LONGEST: Duration = Duration::from_secs(10);
/// More entries than this and the expired ones are thrown out; then the whole.
const BOUND: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Refusal {
    until: Instant,
    row: u32,
}

/// The refusals that count.
#[derive(Debug, Default)]
pub struct Refusals(HashMap<(ClusterName, GlobalName), Refusal>);

impl Refusals {
    /// A cluster refused a name.
    pub fn add(&mut self, cluster: &ClusterName, name: &GlobalName, now: Instant) {
        if self.0.len() >= BOUND {
            self.0.retain(|_, refusal| refusal.until > now);
            if self.0.len() >= BOUND {
                self.0.clear();
            }
        }
        let entry = self.0.entry((cluster.clone(), name.clone())).or_insert(Refusal { until: now, row: 0 });
        // Several connections refused in one moment are one refusal.
        if entry.until <= now {
            entry.until = now + FIRST.saturating_mul(1 << entry.row.min(6)).min(LONGEST);
            entry.row += 1;
        }
    }

    /// A cluster served a name.
    pub fn clear(&mut self, cluster: &ClusterName, name: &GlobalName) {
        if !self.0.is_empty() {
            self.0.remove(&(cluster.clone(), name.clone()));
        }
    }

    /// Whether a cluster refused a name lately.
    #[must_use]
    pub fn contains(&self, cluster: &ClusterName, name: &GlobalName, now: Instant) -> bool {
        !self.0.is_empty()
            && self.0.get(&(cluster.clone(), name.clone())).is_some_and(|refusal| refusal.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_for_one_name_and_a_while() {
        let (c1, c2) = (ClusterName::parse("c1").unwrap(), ClusterName::parse("c2").unwrap());
        let (a, b) = (GlobalName::parse("a.acme.com").unwrap(), GlobalName::parse("b.acme.com").unwrap());
        let mut refusals = Refusals::default();
        let now = Instant::now();
        refusals.add(&c1, &a, now);
        refusals.add(&c1, &a, now);
        assert!(refusals.contains(&c1, &a, now));
        assert!(!refusals.contains(&c1, &b, now) && !refusals.contains(&c2, &a, now));
        let later = now + FIRST;
        assert!(!refusals.contains(&c1, &a, later), "the second in the same moment does not prolong it");
        refusals.add(&c1, &a, later);
        assert!(refusals.contains(&c1, &a, later + FIRST), "twice as long the second time");
        let mut end = later;
        for _ in 0..20 {
            end += Duration::from_secs(20);
            refusals.add(&c1, &a, end);
        }
        assert!(!refusals.contains(&c1, &a, end + LONGEST), "bounded");
        refusals.add(&c1, &a, end + LONGEST);
        refusals.clear(&c1, &a);
        assert!(!refusals.contains(&c1, &a, end + LONGEST));
    }
}
