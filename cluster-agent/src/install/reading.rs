//! What is watched for an installation.

use super::{
    address::Node,
    object::{COMPONENT, Key, Kind, Objects},
    objects::{AGENT, INGRESS},
    plan::{Dns, Found},
    write::{COREDNS, SYSTEM},
};
use crate::source::kubernetes::MANAGED_BY;
use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use kube::{
    Api, Client, ResourceExt as _,
    core::{ApiResource, DynamicObject, TypeMeta},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher::{self, watcher},
    },
};
use serde_json::Value;
use std::collections::BTreeMap;
use tombolo_model::{NamespaceName, install::InstallOrder};
use tombolo_runtime::telemetry::chain;

/// What a watch told: of what, and whether all is well or what is wrong with it. Nothing, where it only begins.
pub(super) type Told = (&'static str, Option<Result<(), String>>);
/// What can't be read, and why.
pub(super) type Troubles = BTreeMap<&'static str, String>;
/// What the watches are of, for people, beside our own kinds of objects.
const DNS_CONFIG: &str = "the ConfigMap of the cluster's DNS";
const DNS_PODS: &str = "the Deployment of the cluster's DNS";
const ITSELF: &str = "the agent's Deployment";
const ANSWERS: &str = "the Service tombolo-dns";
const NODES: &str = "Nodes";
const PODS: &str = "the ingress gateways' Pods";

/// What the watches know.
pub(super) struct Reading {
    objects: BTreeMap<Kind, Store<DynamicObject>>,
    agent: Store<DynamicObject>,
    answers: Store<DynamicObject>,
    config: Store<DynamicObject>,
    deployment: Store<DynamicObject>,
    nodes: Store<DynamicObject>,
    pods: Store<DynamicObject>,
}

impl Reading {
    /// Begins to watch, in the agent's own namespace and elsewhere.
    pub(super) fn read(client: &Client, own: &NamespaceName) -> (Self, SelectAll<BoxStream<'static, Told>>) {
        let mut events = SelectAll::new();
        let ours = format!("{}={},{COMPONENT} in (egress,ingress,node)", MANAGED_BY.0, MANAGED_BY.1);
        let (own, system) = (own.as_str(), SYSTEM);
        let mut watched =
            |what: &'static str, resource: &ApiResource, namespace: Option<&str>, config: watcher::Config| {
                let api = match namespace {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
                    None => Api::all_with(client.clone(), resource),
                };
                let writer = Writer::<DynamicObject>::new(resource.clone());
                let store = writer.as_reader();
                let types =
                    TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
                let watched = watcher(api, config.timeout(60))
                    .default_backoff()
                    .modify(move |object: &mut DynamicObject| typed(object, &types));
                let told = reflector::reflector(writer, watched);
                events.push(told.ready_chunks(256).map(move |all| (what, heard(&all))).boxed());
                store
            };
        let core = |kind: &str, plural: &str| ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let labelled = |labels: &str| watcher::Config::default().labels(labels);
        let (deployment, service) = (Kind::Deployment.resource(), Kind::Service.resource());
        let reading = Self {
            objects: Kind::ALL
                .map(|kind| (kind, watched(kind.called(), &kind.resource(), Some(own), labelled(&ours))))
                .into(),
            agent: watched(ITSELF, &deployment, Some(own), named(AGENT)),
            answers: watched(ANSWERS, &service, Some(own), named("tombolo-dns")),
            config: watched(DNS_CONFIG, &core("ConfigMap", "configmaps"), Some(system), named(COREDNS)),
            deployment: watched(DNS_PODS, &deployment, Some(system), named(COREDNS)),
            nodes: watched(NODES, &core("Node", "nodes"), None, watcher::Config::default()),
            pods: watched(
                PODS,
                &core("Pod", "pods"),
                Some(own),
                labelled(&format!("app.kubernetes.io/name={INGRESS}")),
            ),
        };
        (reading, events)
    }

    /// Whether all of it was read once, but for what holds up nothing else: the cluster's DNS, and what is spare. That is to
    /// be taken out with all else, though.
    pub(super) fn is_complete(&self, troubles: &Troubles, order: Option<&InstallOrder>) -> bool {
        let removes = matches!(order, Some(InstallOrder::Removed { .. }));
        let kinds = self.objects.iter().all(|(kind, store)| {
            is_read(store) || (kind.is_spare() && !removes && troubles.contains_key(kind.called()))
        });
        let own = [&self.agent, &self.answers, &self.nodes, &self.pods];
        let dns = [(DNS_CONFIG, &self.config), (DNS_PODS, &self.deployment)];
        kinds
            && own.into_iter().all(is_read)
            && dns.into_iter().all(|(what, store)| is_read(store) || troubles.contains_key(what))
    }

    pub(super) fn found(&self) -> Found {
        let values = |store: &Store<DynamicObject>| store.state().into_iter().filter_map(|one| value(&one));
        let one = |store: &Store<DynamicObject>| values(store).next();
        let mut objects = Objects::new();
        for (kind, store) in &self.objects {
            // what is being deleted already is not there to be mended, and not there to be deleted again
            let living = store.state().into_iter().filter(|one| one.metadata.deletion_timestamp.is_none());
            objects.extend(living.filter_map(|one| Some((Key::new(*kind, &one.name_any()), value(&one)?))));
        }
        let answers = one(&self.answers);
        let hosts = values(&self.pods).filter_map(|pod| {
            let ready = pod["status"]["conditions"]
                .as_array()?
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            // one that ends, or is still in a network of its own, takes nothing at its node's address
            let there = pod["spec"]["hostNetwork"] == true && pod["metadata"]["deletionTimestamp"].is_null();
            (ready && there).then(|| pod["spec"]["nodeName"].as_str().map(str::to_owned))?
        });
        let unread = self.objects.iter().filter(|(_, store)| !is_read(store)).map(|(kind, _)| *kind);
        Found {
            objects,
            unread: unread.collect(),
            agent: one(&self.agent),
            dns: Dns { config: one(&self.config), deployment: one(&self.deployment) },
            answers_at: answers.and_then(|service| service["spec"]["clusterIP"].as_str()?.parse().ok()),
            nodes: values(&self.nodes).filter_map(|node| Node::read(&node)).collect(),
            hosts: hosts.collect(),
            ..Found::default()
        }
    }
}

fn is_read(store: &Store<DynamicObject>) -> bool {
    store.wait_until_ready().now_or_never().is_some()
}

/// What a watch told at last. That it begins anew says nothing: it does so after each failure.
fn heard(events: &[Result<watcher::Event<DynamicObject>, watcher::Error>]) -> Option<Result<(), String>> {
    events.iter().rev().find_map(|event| match event {
        Ok(watcher::Event::Init) => None,
        Ok(_) => Some(Ok(())),
        Err(error) => Some(Err(chain(error))),
    })
}

/// In a list the API server says only once of what kind all are. Objects without it would differ from what is wanted for as long as nothing else
/// happens to them: they would be written over and over, and never count as done.
fn typed(object: &mut DynamicObject, types: &TypeMeta) {
    object.types.get_or_insert_with(|| types.clone());
}

fn value(object: &DynamicObject) -> Option<Value> {
    serde_json::to_value(object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::object::is_as;
    use kube::core::ObjectList;
    use serde_json::json;

    #[test]
    fn what_was_listed_is_as_what_was_told_one_by_one() {
        let mut wanted =
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" } });
        let item = json!({ "metadata": { "name": "a" } });
        let list =
            json!({ "apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [item] });
        let list: ObjectList<DynamicObject> = serde_json::from_value(list).unwrap();
        let types = TypeMeta { api_version: "apps/v1".to_owned(), kind: "Deployment".to_owned() };
        for mut object in list.items {
            assert!(!is_as(&wanted, &value(&object).unwrap()), "as the API server lists it");
            typed(&mut object, &types);
            assert!(is_as(&wanted, &value(&object).unwrap()));
            wanted["kind"] = json!("Service");
            typed(&mut object, &TypeMeta { api_version: "v1".to_owned(), kind: "Service".to_owned() });
            assert!(!is_as(&wanted, &value(&object).unwrap()), "what was said stays");
        }
    }
}
