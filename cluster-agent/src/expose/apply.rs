//! Does what the plan says, and keeps doing it: the objects are watched, and what somebody else changed is mended.

use super::{
    Exposed, FILE,
    objects::{own, service_mended, stands_for, without_external_ips},
    plan::{Action, Found, Refused, Write, plan, refused_elsewhere},
    seen::{Seen, SeenService, SeenSlice},
};
use crate::{
    gateways::Hub,
    install::{COMPONENT, is_removed},
    lease::Standings,
    readiness,
    source::kubernetes::MANAGED_BY,
    state::DataDir,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tombolo_feed::State;
use tombolo_model::{
    Generation, GlobalName, NamespaceName,
    snapshot::{ClusterResource, Resources},
};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::message::Problem;

/// The one field manager.
const MANAGER: &str = "tombolo-agent";
/// Requests at the same time.
const TOGETHER: usize = 8;
/// How much longer than a plan took nothing more is planned: all names are looked at for each, and changes come in thousands.
const REST: u32 = 4;
/// At least so long before the rest of a long plan.
const LEAST: Duration = Duration::from_millis(100);
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long after external IPs were refused they are tried again: somebody may have allowed them.
const ALLOWED: Duration = Duration::from_secs(300);

/// Keeps names exposed.
pub(crate) struct Exposing {
    pub(crate) client: Client,
    pub(crate) namespace: NamespaceName,
    pub(crate) snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) data: DataDir,
    /// What is exposed. Begins with what was kept.
    pub(crate) exposed: watch::Sender<Option<Arc<Exposed>>>,
    /// What is wrong.
    pub(crate) problems: watch::Sender<Vec<Problem>>,
}

/// How an action ended.
enum Done {
    Well,
    Failed(String),
    /// It was done without the external IPs of this name, and why.
    Refused(GlobalName, String),
}

impl Done {
    fn failed(self) -> Option<String> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Well | Self::Refused(..) => None,
        }
    }

    fn refused(&self) -> Option<(GlobalName, String)> {
        match self {
            Self::Refused(name, why) => Some((name.clone(), why.clone())),
            Self::Well | Self::Failed(_) => None,
        }
    }
}

/// Until then; for ever where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What was exposed when the agent ended.
pub(crate) fn kept(data: &DataDir) -> Exposed {
    data.read_json(FILE)
        .inspect_err(|error| tracing::warn!(error = %error, "what was exposed can't be read; it is read from the cluster"))
        .ok()
        .flatten()
        .unwrap_or_default()
}

impl Exposing {
    /// Runs for as long as it is polled.
    ///
    /// A replica that does not write reads what the one that does has made.
    pub(crate) async fn run(mut self, mut standings: Standings) {
        // what an installation is made of says which part of it it is, and is not ours to take out
        let ours = format!("{}={},!{COMPONENT}", MANAGED_BY.0, MANAGED_BY.1);
        let config = watcher::Config::default().labels(&ours).timeout(60);
        let (mut services, mut service_events) = (Seen::default(), self.watched::<Service>(&config));
        let (mut slices, mut slice_events) = (Seen::default(), self.watched::<EndpointSlice>(&config));
        let mut set = self.hub.watch_set();
        let mut refused = Refused::new();
        // Deadlines, not pauses: what happens meanwhile puts none of them off.
        let (mut failed_until, mut refused_until): (Option<Instant>, Option<Instant>) = (None, None);
        let mut rest = Duration::ZERO;
        loop {
            // What came meanwhile is taken in before anything is planned, or what was just made counts as missing.
            let rested = Instant::now() + rest;
            loop {
                tokio::select! {
                    biased;
                    Some(events) = service_events.next(), if Instant::now() < rested + LONGEST => services.take_all(events, SeenService::of),
                    Some(events) = slice_events.next(), if Instant::now() < rested + LONGEST => slices.take_all(events, SeenSlice::of),
                    () = sleep_until(rested) => break,
                }
            }
            let snapshot = Arc::clone(&self.snapshot.borrow_and_update());
            set.borrow_and_update();
            let began = Instant::now();
            rest = Duration::ZERO;
            if services.is_read
                && slices.is_read
                && snapshot.generation != Generation::ZERO
                && failed_until.is_none()
            {
                let found = Found { services: &services.all, slices: &slices.all };
                let before = self.exposed.borrow().clone().unwrap_or_default();
                // an order to take everything out is one to expose nothing
                let none = Resources::new();
                let resources = if is_removed(&snapshot.resources) { &none } else { &*snapshot.resources };
                let writes = standings.own().writes();
                let elsewhere = if writes { Refused::new() } else { refused_elsewhere(found) };
                let refusals = if writes { &refused } else { &elsewhere };
                let mut plan =
                    plan(resources, &self.hub.gateways(), &self.namespace, &before, found, refusals);
                if !writes {
                    plan.leave_to_others(&before);
                }
                self.publish(plan.exposed);
                rest = (began.elapsed() * REST).min(LONGEST);
                let (mut problems, more) = (plan.problems, plan.more);
                let results: Vec<Done> = stream::iter(plan.actions)
                    .map(|action| self.act(action))
                    .buffer_unordered(TOGETHER)
                    .collect()
                    .await;
                let known = refused.len();
                refused.extend(results.iter().filter_map(Done::refused));
                if refused.len() > known {
                    refused_until = Some(Instant::now() + ALLOWED);
                    // What is told and resolved is different now.
                    continue;
                }
                if let Some(why) = results.into_iter().find_map(Done::failed) {
                    failed_until = Some(Instant::now() + AGAIN);
                    let subject = format!("namespace {}", self.namespace);
                    let message =
                        format!("the Services of imported names can't be written: {why}; it is tried again");
                    problems.push(Problem { subject, message });
                }
                self.problems.send_if_modified(|old| {
                    let differs = *old != problems;
                    *old = problems;
                    differs
                });
                if more && failed_until.is_none() {
                    // What was made is told by the watch, and not made again.
                    rest = rest.max(LEAST);
                    continue;
                }
            }
            let mut seen = snapshot;
            // no plan has to do with readiness
            let more = |now: &Arc<State<ClusterResource>>| {
                let before = std::mem::replace(&mut seen, Arc::clone(now));
                !readiness::at_most(&before, now)
            };
            tokio::select! {
                changed = self.snapshot.wait_for(more) => if changed.is_err() { return },
                changed = set.changed() => if changed.is_err() { return },
                () = standings.changed() => {}
                Some(events) = service_events.next() => services.take_all(events, SeenService::of),
                Some(events) = slice_events.next() => slices.take_all(events, SeenSlice::of),
                () = at(failed_until) => failed_until = None,
                () = at(refused_until) => {
                    refused_until = None;
                    refused.clear();
                }
            }
        }
    }

    /// A watch of ours.
    fn watched<K>(
        &self,
        config: &watcher::Config,
    ) -> impl futures::Stream<Item = Vec<Event<K>>> + Unpin + use<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace.as_str());
        let complain = |error: &watcher::Error| {
            tracing::warn!(error = %chain(error), kind = std::any::type_name::<K>(), "our own objects can't be watched; it is tried again");
        };
        let events = watcher(api, config.clone()).default_backoff().inspect_err(complain);
        let events = events.filter_map(async |event| event.ok());
        events.ready_chunks(1024).boxed()
    }

    fn publish(&self, exposed: Exposed) {
        let changed = self.exposed.send_if_modified(|old| {
            let differs = old.as_deref() != Some(&exposed);
            if differs {
                *old = Some(Arc::new(exposed));
            }
            differs
        });
        if changed && let Err(error) = self.data.write_json(FILE, &*self.exposed.borrow()) {
            tracing::warn!(error = %error, "what is exposed could not be kept");
        }
    }

    async fn act(&self, action: Action) -> Done {
        let params = DeleteParams::default();
        let result = match &action {
            Action::WriteService(service, how) => self.write(service, how).await,
            Action::ApplySlice(slice) => self.apply(&**slice).await.map(|_| Done::Well),
            Action::DeleteService(name) => {
                self.api::<Service>().delete(name, &params).await.map(|_| Done::Well)
            }
            Action::DeleteSlice(name) => {
                self.api::<EndpointSlice>().delete(name, &params).await.map(|_| Done::Well)
            }
        };
        match result {
            Ok(done) => done,
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Done::Well,
            Err(kube::Error::Api(status)) => self
                .without(&action, &status.message)
                .await
                .unwrap_or_else(|| Done::Failed(status.message.clone())),
            Err(error) => Done::Failed(chain(&error)),
        }
    }

    async fn write(&self, service: &Service, how: &Write) -> Result<Done, kube::Error> {
        match how {
            Write::Make(slices) => {
                let made = self.apply(service).await?;
                Ok(self.lead(&made, slices).await)
            }
            Write::Apply => self.apply(service).await.map(|_| Done::Well),
            Write::Replace => self.replace(service).await.map(|()| Done::Well),
        }
    }

    /// A Service that was refused is written without its external IPs. Where that is taken, it were those.
    async fn without(&self, action: &Action, why: &str) -> Option<Done> {
        let Action::WriteService(service, how) = action else { return None };
        let plain = without_external_ips(service)?;
        // what can't be made behind it is missed at the next look
        self.write(&plain, how).await.ok()?;
        Some(Done::Refused(stands_for(&service.metadata)?, why.to_owned()))
    }

    /// Makes what is behind a Service that was made: in the same pass, for the name resolves, and a cluster whose Service leads nowhere refuses
    /// its callers.
    async fn lead(&self, made: &Service, slices: &[EndpointSlice]) -> Done {
        let (Some(name), Some(uid)) = (&made.metadata.name, &made.metadata.uid) else { return Done::Well };
        for slice in slices {
            let mut slice = slice.clone();
            own(&mut slice, name, uid);
            match self.apply(&slice).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Done::Failed(chain(&error)),
            }
        }
        Done::Well
    }

    async fn replace(&self, service: &Service) -> Result<(), kube::Error> {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let api = self.api::<Service>();
        let mended = service_mended(service, &api.get(name).await?);
        api.replace(name, &params, &mended).await.map(drop)
    }

    /// Gives what there is then.
    async fn apply<K>(&self, object: &K) -> Result<K, kube::Error>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.meta().name.as_deref().unwrap_or_default();
        let params = PatchParams::apply(MANAGER).force();
        self.api::<K>().patch(name, &params, &Patch::Apply(object)).await
    }

    fn api<K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace.as_str())
    }
}
