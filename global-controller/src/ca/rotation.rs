//! How a root takes another one's place, step by step, each taken when nobody can be hurt by it:
//!
//! 1. *told*: clusters believe the new root beside the old one. It signs nothing until all have said that they do.
//! 2. *signing*: it signs. Agents see that their intermediate is of another root, and ask for a new one.
//! 3. *overlap*: all clusters sign with intermediates of it. The old root stays as long as certificates under it may live.
//!
//! Then the old root goes. A cluster that is away holds the step, for it would be cut off: it comes back, or is removed.
//! Decisions only; the caller stores them.

use chrono::{DateTime, TimeDelta, Utc};
use tombolo_model::{ClusterName, Generation};
use uuid::Uuid;

/// A root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootState {
    pub(crate) id: Uuid,
    /// Whether it signs.
    pub(crate) signing: bool,
    /// The generation that told of it.
    pub(crate) since: Generation,
}

/// A cluster that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterState {
    pub(crate) name: ClusterName,
    /// The last generation that it applied.
    pub(crate) applied: Generation,
    /// The root above what its agent signs with, and since when it does; none before it said so.
    pub(crate) signs_under: Option<(Uuid, DateTime<Utc>)>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This root signs from now on.
    Sign(Uuid),
    /// This root goes.
    Retire(Uuid),
}

/// How far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// These have not said yet that they believe the new root.
    Told(Vec<ClusterName>),
    /// These sign under another root still.
    Signing(Vec<ClusterName>),
    /// Certificates under the old root may live until then.
    Overlap(DateTime<Utc>),
}

/// How far the rotation is, and what is to be done where it need not wait; `None` where there is one root.
pub(crate) fn progress(
    roots: &[RootState],
    clusters: &[ClusterState],
    (overlap, now): (TimeDelta, DateTime<Utc>),
) -> Option<(Phase, Option<Step>)> {
    let newest = roots.iter().max_by_key(|root| (root.since, root.id))?;
    let old = roots.iter().find(|root| root.id != newest.id)?;
    if !newest.signing {
        let waits = names(clusters, |cluster| cluster.applied < newest.since);
        let step = waits.is_empty().then_some(Step::Sign(newest.id));
        return Some((Phase::Told(waits), step));
    }
    let under = |cluster: &ClusterState| cluster.signs_under.filter(|(root, _)| *root == newest.id);
    let waits = names(clusters, |cluster| under(cluster).is_none());
    if !waits.is_empty() {
        return Some((Phase::Signing(waits), None));
    }
    let last = clusters.iter().filter_map(under).map(|(_, since)| since).max();
    let until = last.map_or(now, |since| since + overlap);
    Some((Phase::Overlap(until), (until <= now).then_some(Step::Retire(old.id))))
}

fn names(clusters: &[ClusterState], which: impl Fn(&ClusterState) -> bool) -> Vec<ClusterName> {
    clusters.iter().filter(|cluster| which(cluster)).map(|cluster| cluster.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Uuid = Uuid::from_u128(1);
    const NEW: Uuid = Uuid::from_u128(2);
    const OVERLAP: TimeDelta = TimeDelta::hours(25);

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn roots(new_signs: bool) -> [RootState; 2] {
        [
            RootState { id: NEW, signing: new_signs, since: Generation::new(7) },
            RootState { id: OLD, signing: !new_signs, since: Generation::new(1) },
        ]
    }

    fn cluster(name: &str, applied: u64, signs_under: Option<(Uuid, i64)>) -> ClusterState {
        let signs_under = signs_under.map(|(root, since)| (root, at(since)));
        ClusterState { name: name.parse().unwrap(), applied: Generation::new(applied), signs_under }
    }

    fn waits(names: &[&str]) -> Vec<ClusterName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn one_root_is_no_rotation() {
        let one = [RootState { id: OLD, signing: true, since: Generation::new(1) }];
        assert_eq!(progress(&one, &[cluster("c1", 9, None)], (OVERLAP, at(0))), None);
        assert_eq!(progress(&[], &[], (OVERLAP, at(0))), None);
    }

    #[test]
    fn it_signs_once_all_believe_it() {
        let clusters = [cluster("c1", 7, Some((OLD, 0))), cluster("c2", 6, Some((OLD, 0)))];
        let expected = (Phase::Told(waits(&["c2"])), None);
        assert_eq!(progress(&roots(false), &clusters, (OVERLAP, at(1))), Some(expected));
        let expected = (Phase::Told(Vec::new()), Some(Step::Sign(NEW)));
        assert_eq!(progress(&roots(false), &clusters[..1], (OVERLAP, at(1))), Some(expected.clone()));
        assert_eq!(progress(&roots(false), &[], (OVERLAP, at(1))), Some(expected));
    }

    #[test]
    fn the_old_one_goes_once_nobody_has_a_certificate_under_it() {
        let said =
            [cluster("c1", 9, Some((NEW, 2))), cluster("c2", 9, Some((OLD, 0))), cluster("c3", 9, None)];
        let expected = (Phase::Signing(waits(&["c2", "c3"])), None);
        assert_eq!(progress(&roots(true), &said, (OVERLAP, at(100))), Some(expected));
        let all = [cluster("c1", 9, Some((NEW, 2))), cluster("c2", 9, Some((NEW, 4)))];
        let before = (Phase::Overlap(at(29)), None);
        assert_eq!(progress(&roots(true), &all, (OVERLAP, at(28))), Some(before));
        let after = (Phase::Overlap(at(29)), Some(Step::Retire(OLD)));
        assert_eq!(progress(&roots(true), &all, (OVERLAP, at(29))), Some(after));
        let nobody = (Phase::Overlap(at(5)), Some(Step::Retire(OLD)));
        assert_eq!(progress(&roots(true), &[], (OVERLAP, at(5))), Some(nobody));
    }
}
