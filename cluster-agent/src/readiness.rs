//! Changes of the controller's snapshot that are of readiness alone. They are the commonest by far: an endpoint that comes or goes anywhere
//! changes how many are ready behind its names, and nothing to who only answers or carries the names. Pure.

use std::sync::Arc;
use tombolo_feed::State;
use tombolo_model::snapshot::{ClusterResource, NameSpec};

/// Whether a snapshot is the next one and differs in nothing but how many endpoints of names are ready. A name of the cluster set also has to
/// be ready before and after, or neither: KEP-1645 has some of them resolve only while they are.
fn alone(before: &State<ClusterResource>, now: &State<ClusterResource>) -> bool {
    let same = |key| match (before.resources.get(key), now.resources.get(key)) {
        (Some(ClusterResource::Name(before)), Some(ClusterResource::Name(now))) => {
            (!now.domain.is_cluster_set() || is_ready(before) == is_ready(now))
                && unready(before) == unready(now)
        }
        (before, now) => before == now,
    };
    now.previous == before.generation
        && now.generation != before.generation
        && now.changes.removed.is_empty()
        && now.changes.upserted.iter().all(same)
}

/// Whether there is nothing else between two snapshots: they are the same one, or [`alone`] says so.
pub(crate) fn at_most(before: &Arc<State<ClusterResource>>, now: &Arc<State<ClusterResource>>) -> bool {
    Arc::ptr_eq(before, now) || alone(before, now)
}

/// Whether anything is ready behind a name.
pub(crate) fn is_ready(name: &NameSpec) -> bool {
    name.targets.iter().any(|target| target.ready > 0)
}

/// The name, as if nothing were ready.
fn unready(name: &NameSpec) -> NameSpec {
    let mut name = name.clone();
    for target in &mut name.targets {
        target.ready = 0;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tombolo_model::{
        Generation,
        snapshot::{Resource as _, ResourceKey, Resources},
    };
    use tombolo_wire::session::Changes;

    fn name(domain: &str, ready: u32, cluster: &str) -> ClusterResource {
        let target = json!({ "cluster": cluster, "proximity": "cluster", "services": ["shop/web"], "ports": [80], "ready": ready,
                             "end_to_end": "none", "accounts": [] });
        let name = json!({ "type": "name", "name": format!("web.{domain}"), "domain": domain, "kind": "service",
                           "vip": { "v4": "240.0.0.1", "v6": "fd00::1" }, "ports": [{ "port": 80, "protocol": "TCP" }],
                           "targets": [target] });
        serde_json::from_value(name).unwrap()
    }

    fn state(
        generation: u64,
        resources: &[ClusterResource],
        changed: &[ResourceKey],
    ) -> State<ClusterResource> {
        let resources: Resources<ClusterResource> =
            resources.iter().map(|resource| (resource.key(), resource.clone())).collect();
        let (there, gone): (Vec<_>, Vec<_>) =
            changed.iter().cloned().partition(|key| resources.contains_key(key));
        let changes = Changes { upserted: there.into_iter().collect(), removed: gone.into_iter().collect() };
        let previous = Generation::new(generation - 1);
        State { generation: Generation::new(generation), resources: Arc::new(resources), previous, changes }
    }

    #[test]
    fn how_many_are_ready_is_all_that_may_differ() {
        let (ours, set) = ("acme.example.com", "clusterset.local");
        let is_alone = |before: ClusterResource, now: ClusterResource| {
            let key = [now.key()];
            alone(&state(1, &[before], &[]), &state(2, &[now], &key))
        };
        assert!(is_alone(name(ours, 1, "east"), name(ours, 0, "east")));
        assert!(is_alone(name(ours, 1, "east"), name(ours, 1, "east")));
        assert!(!is_alone(name(ours, 1, "east"), name(ours, 1, "west")), "it is served elsewhere");
        assert!(is_alone(name(set, 1, "east"), name(set, 2, "east")));
        assert!(!is_alone(name(set, 1, "east"), name(set, 0, "east")), "it may not resolve any more");
    }

    #[test]
    fn what_is_not_the_next_step_or_another_thing_is_more() {
        let (one, other) = (name("acme.example.com", 1, "east"), name("acme.example.com", 0, "east"));
        let key = [one.key()];
        let before = state(1, std::slice::from_ref(&one), &[]);
        let after = |generation| state(generation, std::slice::from_ref(&other), &key);
        assert!(alone(&before, &after(2)));
        assert!(!alone(&before, &after(3)), "a step was missed");
        assert!(!alone(&before, &before), "not a step");
        assert!(!alone(&before, &state(2, &[], &key)), "the name is gone");
        assert!(!alone(&state(1, &[], &[]), &after(2)), "the name is new");
    }
}
