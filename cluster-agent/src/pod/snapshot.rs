//! The last good snapshot, for a pod that starts while the controller is away and finds an empty disk: in ConfigMaps of
//! the agent's namespace, compressed, in parts that fit. Nothing in it is secret.
//!
//! Of two sets the older one is written over, so that there is a whole one at any time. The replica that writes keeps what
//! changed every 5 s at most where it is small, once a minute where it is large, but a change of the trust bundle at once: a pod must not begin by trusting a cluster
//! that was removed before the controller went.

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tombolo_feed::{State, Status};
use tombolo_model::{
    Generation, NamespaceName,
    snapshot::{ClusterResource, ResourceKey},
};
use tombolo_runtime::telemetry::chain;

use crate::{source::kubernetes::MANAGED_BY, state::DataDir};

const MANAGER: &str = "tombolo-agent";
const KEPT: (&str, &str) = ("tombolo.io/kept", "snapshot");
const SET: &str = "tombolo.io/set";
const PARTS: &str = "tombolo.io/parts";
const PART: &str = "tombolo.io/part";
const GENERATION: &str = "tombolo.io/generation";
const KEY: &str = "part.gz";
/// A ConfigMap takes a mebibyte with all that is in it.
const LARGEST: usize = 700 << 10;
/// More than a snapshot of 100,000 names; what unpacks to more is none of ours.
const UNPACKED: u64 = 512 << 20;
/// How often it is written at most, where it is of `LARGEST` or more; a smaller one oftener, for it costs less.
const SELDOM: Duration = Duration::from_secs(60);
/// The same of the smallest.
const SOONEST: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a pod that starts waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing is written after so many bytes.
fn pause(bytes: usize) -> Duration {
    SELDOM.mul_f64(bytes as f64 / LARGEST as f64).clamp(SOONEST, SELDOM)
}

/// The two sets.
const SETS: [&str; 2] = ["a", "b"];

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ConfigMaps of a set.
fn split(content: &[u8], generation: Generation, set: &str, part: usize) -> std::io::Result<Vec<ConfigMap>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(content)?;
    let packed = packed.finish()?;
    let (of, parts) = (sum(&packed), packed.len().div_ceil(part));
    let map = |(number, bytes): (usize, &[u8])| ConfigMap {
        metadata: ObjectMeta {
            name: Some(format!("tombolo-snapshot-{set}-{number}")),
            labels: Some([MANAGED_BY, KEPT].map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some(BTreeMap::from([
                (SET.to_owned(), of.clone()),
                (PARTS.to_owned(), parts.to_string()),
                (PART.to_owned(), number.to_string()),
                (GENERATION.to_owned(), generation.get().to_string()),
            ])),
            ..ObjectMeta::default()
        },
        binary_data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(bytes.to_vec()))])),
        ..ConfigMap::default()
    };
    Ok(packed.chunks(part).enumerate().map(map).collect())
}

fn note<'a>(map: &'a ConfigMap, key: &str) -> Option<&'a str> {
    map.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn generation_of(map: &ConfigMap) -> u64 {
    note(map, GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The newest set that is whole, and its content.
fn assemble(mut maps: Vec<ConfigMap>) -> Option<(Generation, Vec<u8>)> {
    maps.sort_by_key(|map| std::cmp::Reverse(generation_of(map)));
    let mut sets: Vec<&str> = maps.iter().filter_map(|map| note(map, SET)).collect();
    sets.dedup();
    sets.into_iter().find_map(|set| {
        let mut parts: Vec<(usize, &ConfigMap)> = maps
            .iter()
            .filter(|map| note(map, SET) == Some(set))
            .filter_map(|map| Some((note(map, PART)?.parse().ok()?, map)))
            .collect();
        parts.sort_by_key(|(number, _)| *number);
        let packed: Vec<u8> = parts
            .iter()
            .filter_map(|(_, map)| map.binary_data.as_ref()?.get(KEY))
            .flat_map(|bytes| bytes.0.iter().copied())
            .collect();
        // Each part in its place, none missing.
        if sum(&packed) != set {
            return None;
        }
        let mut content = Vec::new();
        GzDecoder::new(packed.as_slice()).take(UNPACKED).read_to_end(&mut content).ok()?;
        Some((Generation::new(generation_of(parts.first()?.1)), content))
    })
}

async fn list(api: &Api<ConfigMap>) -> Result<Vec<ConfigMap>, kube::Error> {
    let params = ListParams::default().labels(&format!("{}={}", KEPT.0, KEPT.1));
    api.list(&params).await.map(|list| list.items)
}

/// Puts the kept snapshot into the file of a pod that has none. Goes on without where it can't be had.
pub(crate) async fn restore(client: &Client, namespace: &NamespaceName, data: &DataDir, file: &str) {
    if data.file(file).exists() {
        return;
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace.as_str());
    let found = match timeout(PATIENCE, list(&api)).await {
        Ok(Ok(maps)) => assemble(maps),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the snapshot that was kept in the cluster can't be read");
            None
        }
        Err(_) => None,
    };
    let Some((generation, content)) = found else { return };
    match data.write(file, &content) {
        Ok(()) => {
            tracing::info!(
                snapshot.generation = generation.get(),
                "the snapshot that was kept in the cluster is used"
            );
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "the snapshot of the cluster could not be written")
        }
    }
}

/// Keeps the snapshot of the replica that writes.
#[derive(Clone)]
pub(crate) struct Keeping {
    pub(crate) client: Client,
    pub(crate) namespace: NamespaceName,
    /// Where the feed keeps it on this pod's disk.
    pub(crate) file: PathBuf,
    pub(crate) states: watch::Receiver<Arc<State<ClusterResource>>>,
    pub(crate) status: watch::Receiver<Status>,
}

impl Keeping {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace.as_str());
        let mut kept: Option<(Generation, Option<ClusterResource>)> = None;
        let mut next = Instant::now();
        loop {
            let status = self.status.borrow_and_update().kept;
            let state = Arc::clone(&self.states.borrow_and_update());
            let bundle = state.resources.get(&ResourceKey::new("bundle", "")).cloned();
            let on_disk = state.generation != Generation::ZERO && status >= state.generation;
            let differs = kept.as_ref().is_none_or(|(generation, _)| *generation != state.generation);
            let urgent = kept.as_ref().is_some_and(|(_, old)| *old != bundle);
            if on_disk && differs && (urgent || next <= Instant::now()) {
                match self.keep(&api, state.generation).await {
                    Ok(bytes) => {
                        kept = Some((state.generation, bundle));
                        next = Instant::now() + pause(bytes);
                    }
                    Err(error) => {
                        tracing::warn!(
                            error,
                            "the snapshot could not be kept in the cluster; it is tried again"
                        );
                        next = Instant::now() + AGAIN;
                        sleep_until(next).await;
                    }
                }
                continue;
            }
            let due = async {
                if on_disk && differs {
                    sleep_until(next).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return },
                changed = self.status.changed() => if changed.is_err() { return },
                () = due => {}
            }
        }
    }

    /// Returns of how many bytes it is.
    async fn keep(&self, api: &Api<ConfigMap>, generation: Generation) -> Result<usize, String> {
        let there = list(api).await.map_err(|error| chain(&error))?;
        // Over the set that is not the newest whole one.
        let newest = assemble(there.clone());
        if newest.as_ref().is_some_and(|(kept, _)| *kept == generation) {
            // Another replica kept it.
            return Ok(0);
        }
        let is_of = |map: &ConfigMap, set: &str| {
            map.metadata
                .name
                .as_deref()
                .is_some_and(|name| name.starts_with(&format!("tombolo-snapshot-{set}-")))
        };
        let newest = newest.and_then(|(kept, _)| {
            let of = there.iter().find(|map| generation_of(map) == kept.get())?;
            SETS.into_iter().find(|set| is_of(of, set))
        });
        let set = if newest == Some(SETS[0]) { SETS[1] } else { SETS[0] };
        let file = self.file.clone();
        let maps =
            tokio::task::spawn_blocking(move || split(&std::fs::read(file)?, generation, set, LARGEST))
                .await
                .map_err(|error| chain(&error))?
                .map_err(|error| chain(&error))?;
        let params = PatchParams::apply(MANAGER).force();
        for map in &maps {
            let name = map.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &params, &Patch::Apply(map)).await.map_err(|error| chain(&error))?;
        }
        let names: Vec<_> = maps.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
        for old in there.iter().filter(|map| is_of(map, set)).filter_map(|map| map.metadata.name.as_deref()) {
            if !names.contains(&old) {
                let _ = api.delete(old, &DeleteParams::default()).await;
            }
        }
        tracing::debug!(snapshot.generation = generation.get(), parts = maps.len(), "the snapshot is kept");
        let parts = maps.iter().filter_map(|map| map.binary_data.as_ref()?.get(KEY));
        Ok(parts.map(|part| part.0.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(generation: u64) -> Vec<u8> {
        (0..5000u64).flat_map(|n| (n * n * generation).to_be_bytes()).collect()
    }

    fn set(generation: u64, name: &str) -> Vec<ConfigMap> {
        split(&content(generation), Generation::new(generation), name, 4096).unwrap()
    }

    fn found(maps: Vec<ConfigMap>) -> Option<u64> {
        let (generation, found) = assemble(maps)?;
        assert_eq!(found, content(generation.get()));
        Some(generation.get())
    }

    #[test]
    fn the_newest_whole_set_is_taken() {
        let (old, new) = (set(7, "a"), set(9, "b"));
        assert!(old.len() > 2 && new.len() > 2);
        let both: Vec<_> = new.iter().chain(&old).cloned().collect();
        assert_eq!(found(both.clone()), Some(9));
        assert_eq!(found(both.into_iter().rev().collect()), Some(9));
        // A part that was not written yet, one of a set before, one that is damaged.
        let cut: Vec<_> = old.iter().chain(&new[1..]).cloned().collect();
        assert_eq!(found(cut), Some(7));
        let mixed: Vec<_> = old.iter().chain(&new[..1]).chain(&set(3, "b")[1..]).cloned().collect();
        assert_eq!(found(mixed), Some(7));
        let mut damaged = new.clone();
        damaged[0].binary_data = None;
        assert_eq!(found(damaged), None);
        assert_eq!(found(Vec::new()), None);
        assert_eq!(found(vec![ConfigMap::default()]), None);
    }
}
