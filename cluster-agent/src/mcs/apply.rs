//! Does what the plan says, and keeps doing it: the objects are watched, and what somebody else changed is mended.

use super::{
    MANAGER,
    objects::{SOURCE_CLUSTER, Schema},
    plan::{Action, Found, Known, foreign, plan},
};
use crate::{
    chosen::Chosen,
    engine::Source,
    expose::Exposed,
    install::is_removed,
    source::{McsVersion, kubernetes::MANAGED_BY},
};
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use k8s_openapi::{api::discovery::v1::EndpointSlice, jiff::Timestamp};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
    runtime::{
        WatchStreamExt,
        reflector::{Store, store::Writer},
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt::Debug, hash::Hash, sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tombolo_feed::State;
use tombolo_model::{Generation, inventory::ServiceKey, snapshot::ClusterResource};
use tombolo_runtime::{clock::Clock, telemetry::chain};
use tombolo_wire::message::Problem;

/// Requests at the same time.
const TOGETHER: usize = 8;
/// What changes within this time is worked out together.
const GAP: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// What the API server says of a field that its custom resources do not have.
const NO_FIELD: &str = "field not declared in schema";

/// Keeps the objects of the Multi-Cluster Services API.
#[derive(Clone)]
pub(crate) struct Multicluster {
    pub(crate) client: Client,
    /// The version that the cluster has, where it has one.
    pub(crate) version: watch::Receiver<Option<McsVersion>>,
    pub(crate) snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    pub(crate) view: watch::Receiver<Source>,
    pub(crate) exposed: watch::Receiver<Option<Arc<Exposed>>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What is wrong.
    pub(crate) problems: watch::Sender<Vec<Problem>>,
    /// How much of ours is still to be taken out, where all of it is; none where it is not, or nobody has looked yet.
    pub(crate) left: watch::Sender<Option<usize>>,
}

/// What is watched: what it knows, and what wakes.
struct Watched<K: Resource + Clone + 'static>
where
    K::DynamicType: Hash + Eq,
{
    store: Store<K>,
    events: BoxStream<'static, ()>,
}

impl<K> Watched<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Send + Sync,
{
    fn new(api: Api<K>, kind: K::DynamicType, config: watcher::Config) -> Self {
        let writer = Writer::<K>::new(kind);
        let store = writer.as_reader();
        let events =
            watcher(api, config).default_backoff().reflect(writer).ready_chunks(1024).map(drop).boxed();
        Self { store, events }
    }

    fn is_ready(&self) -> bool {
        self.store.wait_until_ready().now_or_never().is_some()
    }
}

impl Multicluster {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        // what another day's removal left says nothing of this one's
        self.leave(None);
        loop {
            let version = *self.version.borrow_and_update();
            let ended = match version {
                Some(version) => self.follow(version).await,
                None => self.absent().await,
            };
            if ended {
                return;
            }
        }
    }

    /// There is no such API, and so nothing of it. Returns whether the agent ends.
    async fn absent(&mut self) -> bool {
        loop {
            let was_read = self.view.borrow_and_update().is_some();
            let removed = is_removed(&self.snapshot.borrow_and_update().resources);
            self.leave((was_read && removed).then_some(0));
            tokio::select! {
                changed = self.version.changed() => return changed.is_err(),
                changed = self.snapshot.changed() => if changed.is_err() { return true },
                changed = self.view.changed() => if changed.is_err() { return true },
            }
        }
    }

    fn leave(&self, left: Option<usize>) {
        self.left.send_if_modified(|old| {
            let differs = *old != left;
            *old = left;
            differs
        });
    }

    /// Keeps the objects in this version, until there is another. Returns whether the agent ends.
    async fn follow(&mut self, version: McsVersion) -> bool {
        let mut schema = Schema { version, whole: true };
        let ours = format!("{}={}", MANAGED_BY.0, MANAGED_BY.1);
        let config = watcher::Config::default().timeout(60);
        let dynamic = |kind: &str, config| {
            let kind = version.resource(kind);
            Watched::<DynamicObject>::new(Api::all_with(self.client.clone(), &kind), kind, config)
        };
        let mut exports = dynamic("ServiceExport", config.clone());
        let mut imports = dynamic("ServiceImport", config.clone());
        let mut slices = Watched::<EndpointSlice>::new(
            Api::all(self.client.clone()),
            (),
            config.labels(&format!("{ours},{SOURCE_CLUSTER}")),
        );
        let mut failed = false;
        let mut chosen = Chosen::default();
        loop {
            let snapshot = Arc::clone(&self.snapshot.borrow_and_update());
            let view = self.view.borrow_and_update().clone();
            let exposed = self.exposed.borrow_and_update().clone();
            let read = exports.is_ready() && imports.is_ready() && slices.is_ready();
            if let (true, false, Some(view)) = (read && snapshot.generation != Generation::ZERO, failed, view)
            {
                let found = Found {
                    exports: exports.store.state(),
                    imports: imports.store.state(),
                    slices: slices.store.state(),
                };
                let now = Timestamp::try_from(self.clock.now()).unwrap_or_default();
                let now = format!("{now:.0}");
                let (resources, exposed) = (&snapshot.resources, exposed.as_deref());
                let view = chosen.of(view, resources);
                let actions = plan(Known { resources, view: &view, exposed, schema, now: &now }, &found);
                // what somebody else's finalizer holds is there, too
                self.leave(is_removed(resources).then_some(actions.len()));
                let results: Vec<Option<String>> = stream::iter(actions)
                    .map(|action| self.act(schema, action))
                    .buffer_unordered(TOGETHER)
                    .collect()
                    .await;
                let why = results.into_iter().flatten().next();
                if schema.whole && why.as_ref().is_some_and(|why| why.contains(NO_FIELD)) {
                    schema.whole = false;
                    continue;
                }
                failed = why.is_some();
                self.say(schema, why, &foreign(resources, &found));
                sleep(GAP).await;
            }
            tokio::select! {
                changed = self.version.changed() => return changed.is_err(),
                changed = self.snapshot.changed() => if changed.is_err() { return true },
                changed = self.view.changed() => if changed.is_err() { return true },
                // Nobody writes it where names are not exposed.
                Ok(()) = self.exposed.changed() => {}
                _ = exports.events.next() => {}
                _ = imports.events.next() => {}
                _ = slices.events.next() => {}
                () = sleep(AGAIN), if failed => failed = false,
            }
        }
    }

    fn say(&self, schema: Schema, why: Option<String>, foreign: &BTreeSet<ServiceKey>) {
        let mut problems = Vec::new();
        if let Some(first) = foreign.first() {
            let message = format!(
                "{} services of the cluster set have a ServiceImport that somebody else made, which is left as it is (the first is {first}): \
                 delete it, or label it {}={}",
                foreign.len(),
                MANAGED_BY.0,
                MANAGED_BY.1
            );
            problems.push(Problem { subject: "ServiceImports".to_owned(), message });
        }
        let subject = format!("API multicluster.x-k8s.io/{}", schema.version.as_str());
        if !schema.whole {
            let message = "its custom resources are older than v0.3.0: a ServiceImport has no ipFamilies, traffic policies \
                           and conditions; install newer ones"
                .to_owned();
            problems.push(Problem { subject: subject.clone(), message });
        }
        if let Some(why) = why {
            let message =
                format!("the objects of the cluster set can't be written: {why}; it is tried again");
            problems.push(Problem { subject, message });
        }
        self.problems.send_if_modified(|old| {
            let differs = *old != problems;
            *old = problems;
            differs
        });
    }

    /// Why it failed, where it did.
    async fn act(&self, schema: Schema, action: Action) -> Option<String> {
        let apply = PatchParams::apply(MANAGER).force();
        let result = match &action {
            Action::ApplyImport(object) => {
                let (api, name) = self.api(schema, "ServiceImport", object);
                api.patch(&name, &apply, &Patch::Apply(&**object)).await.map(drop)
            }
            Action::ReplaceImport(object) => {
                let (api, name) = self.api(schema, "ServiceImport", object);
                let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                api.replace(&name, &params, object).await.map(drop)
            }
            Action::ImportStatus(object) => {
                let (api, name) = self.api(schema, "ServiceImport", object);
                api.patch_status(&name, &apply, &Patch::Apply(&**object)).await.map(drop)
            }
            Action::ExportStatus(object) => {
                let (api, name) = self.api(schema, "ServiceExport", object);
                api.patch_status(&name, &apply, &Patch::Apply(&**object)).await.map(drop)
            }
            Action::ClearExport(object) => {
                let (api, name) = self.api(schema, "ServiceExport", object);
                let params =
                    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                api.patch_status(&name, &params, &Patch::Merge(&**object)).await.map(drop)
            }
            Action::DeleteImport(key) => {
                let (api, name) = self.api(schema, "ServiceImport", &schema.object("ServiceImport", key));
                api.delete(&name, &DeleteParams::default()).await.map(drop)
            }
            Action::ApplySlice(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &namespace);
                api.patch(&name, &apply, &Patch::Apply(&**slice)).await.map(drop)
            }
            Action::DeleteSlice(namespace, name) => {
                let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
                api.delete(name, &DeleteParams::default()).await.map(drop)
            }
        };
        match result {
            Ok(()) => None,
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => None,
            // The namespace is on its way out, which the watch will say too.
            Err(kube::Error::Api(status))
                if status.code == 403 && status.message.contains("being terminated") =>
            {
                None
            }
            Err(kube::Error::Api(status)) => Some(status.message.clone()),
            Err(error) => Some(chain(&error)),
        }
    }

    fn api(&self, schema: Schema, kind: &str, object: &DynamicObject) -> (Api<DynamicObject>, String) {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let resource = schema.version.resource(kind);
        (
            Api::namespaced_with(self.client.clone(), &namespace, &resource),
            object.metadata.name.clone().unwrap_or_default(),
        )
    }
}
