//! The watches: one stream of all that the API server tells.

use super::{
    convert::{self, Read},
    known::{Told, What},
    mcs,
};
use crate::source::ObjectKind;
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll, select_all},
};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        utils::{Backoff, ResetTimerBackoff},
        watcher::{self, Event, watcher},
    },
};
use rand::{SeedableRng, rngs::StdRng};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tombolo_model::NamespaceName;
use tombolo_runtime::telemetry::chain;

/// How long a watch lasts before it is asked for anew, in seconds. A connection that died without a word is noticed
/// five seconds later.
const WATCH_S: u32 = 60;
/// Objects of a list that are asked for together: a page is whole in memory, twice, and a pod is some kilobytes.
const PAGE: u32 = 200;
/// The waits after a failure.
const LEAST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(5);
/// How long a watch must go well until the next failure counts as the first.
const WELL: Duration = Duration::from_secs(60);
/// How often the server is asked whether it answers, and how long it may take.
const ASK: Duration = Duration::from_secs(5);

/// All that the API server tells, outside of these namespaces. Of the agent's own, the pods: its gateways are there.
pub(super) fn all(
    client: &Client,
    excluded: &BTreeSet<NamespaceName>,
    own: &NamespaceName,
    with_exports: bool,
    vips: &Arc<[IpNet]>,
) -> SelectAll<BoxStream<'static, Told>> {
    let terms = |field: &str, but: Option<&NamespaceName>| -> Vec<String> {
        excluded.iter().filter(|name| Some(*name) != but).map(|name| format!("{field}!={name}")).collect()
    };
    let everywhere = watcher::Config::default().timeout(WATCH_S).page_size(PAGE);
    let outside = |field: &str| everywhere.clone().fields(&terms(field, None).join(","));
    let inside = outside("metadata.namespace");
    let mut living = terms("metadata.namespace", Some(own));
    living.extend(["Succeeded", "Failed"].map(|phase| format!("status.phase!={phase}")));
    let living = living.join(",");
    let exports = with_exports.then(|| mcs::exports(client.clone(), inside.clone()));
    let mut all = select_all([
        watched::<PartialObjectMeta<Namespace>>(
            client,
            ObjectKind::Namespace,
            outside("metadata.name"),
            convert::namespace,
        ),
        watched::<Service>(client, ObjectKind::Service, inside.clone(), {
            let vips = Arc::clone(vips);
            move |service| convert::service(service, &vips)
        }),
        watched::<EndpointSlice>(client, ObjectKind::EndpointSlice, inside.clone(), convert::slice),
        watched::<PartialObjectMeta<ServiceAccount>>(
            client,
            ObjectKind::ServiceAccount,
            inside.clone(),
            convert::account,
        ),
        watched::<Pod>(client, ObjectKind::Pod, inside.fields(&living), convert::pod),
        watched::<PartialObjectMeta<Node>>(client, ObjectKind::Node, everywhere, convert::node),
        answers(client.clone()),
    ]);
    all.extend(exports);
    all
}

fn watched<K>(
    client: &Client,
    kind: ObjectKind,
    config: watcher::Config,
    read: impl Fn(K) -> Read + Send + 'static,
) -> BoxStream<'static, Told>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    followed(Api::<K>::all(client.clone()), kind, config, read)
}

/// All that is told of the objects of an API.
pub(super) fn followed<K>(
    api: Api<K>,
    kind: ObjectKind,
    config: watcher::Config,
    read: impl Fn(K) -> Read + Send + 'static,
) -> BoxStream<'static, Told>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let what = move |event| match event {
        Ok(Event::Init) => What::Begin,
        Ok(Event::InitApply(object) | Event::Apply(object)) => What::Has(Box::new(read(object))),
        Ok(Event::Delete(object)) => What::Gone(Box::new(read(object))),
        Ok(Event::InitDone) => What::Complete,
        Err(error) => failure(&error),
    };
    let waits = ResetTimerBackoff::new(Waits::default(), WELL);
    watcher(api, config).backoff(waits).map(move |event| Told { kind: Some(kind), what: what(event) }).boxed()
}

/// What a failure means: whether the server refuses something, or is not there.
fn failure(error: &watcher::Error) -> What {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let status = match error {
        WatchError(status) => status,
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status,
        InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source) => {
            return What::Silent(chain(source));
        }
        NoResourceVersion => return What::Refused { code: 0, message: error.to_string() },
    };
    What::Refused { code: status.code, message: status.message.clone() }
}

/// Whether the server answers at all: a quiet watch does not say.
fn answers(client: Client) -> BoxStream<'static, Told> {
    let ask = move |wait: Duration| {
        let client = client.clone();
        async move {
            sleep(wait).await;
            let what = match timeout(ASK, client.apiserver_version()).await {
                Ok(Ok(_)) => What::Answers,
                // It answers, if only to refuse this question.
                Ok(Err(kube::Error::Api(status))) if status.code < 500 => What::Answers,
                Ok(Err(error)) => What::Silent(chain(&error)),
                Err(_) => What::Silent(format!("no answer within {} s", ASK.as_secs())),
            };
            Some((Told { kind: None, what }, ASK))
        }
    };
    stream::unfold(Duration::ZERO, ask).boxed()
}

/// The waits between attempts, as kube wants them.
struct Waits {
    waits: tombolo_feed::Backoff,
    rng: StdRng,
}

impl Default for Waits {
    fn default() -> Self {
        Self { waits: tombolo_feed::Backoff::new(LEAST, MOST), rng: StdRng::from_os_rng() }
    }
}

impl Iterator for Waits {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(self.waits.next(&mut self.rng))
    }
}

impl Backoff for Waits {
    fn reset(&mut self) {
        self.waits.reset();
    }
}
