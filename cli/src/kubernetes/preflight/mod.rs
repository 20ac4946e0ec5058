//! Whether a cluster has what an agent needs, asked before anything is changed in it. Each file looks at one thing: what was read goes
//! into a function that says what is missing and how to get it.

mod admission;
mod controller;
mod dns;
mod groups;
mod images;
mod ingress;
mod mcs;
mod nodes;
mod pods;
mod quantity;
mod rights;
mod security;
mod version;
mod webhooks;

pub(crate) use ingress::Way;

use super::{NAMESPACE, apply::Document};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

/// As many objects of a kind are looked at; with more of them, some things are not said.
const MOST: usize = 5000;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, with less.
    Less,
    /// Without it, nothing works.
    Missing,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) verdict: Verdict,
    /// What is there, or what to do about it.
    pub(super) said: String,
}

fn finding(what: &'static str, verdict: Verdict, said: impl Into<String>) -> Finding {
    Finding { what, verdict, said: said.into() }
}

/// Looks. Stops where the API server does not answer.
pub(super) async fn look(client: &Client, documents: &[Document], ways: &[Way]) -> Vec<Finding> {
    let mut all = Vec::new();
    match client.apiserver_version().await {
        Ok(version) => all.extend(version::look(&version.major, &version.minor, &version.git_version)),
        Err(error) => {
            let said =
                format!("it does not answer ({error}); check --kubeconfig, --context and the way to it");
            return vec![finding("API server", Verdict::Missing, said)];
        }
    }
    let mut asked = Asked { client, trials: "default" };
    if matches!(asked.find(&format!("/api/v1/namespaces/{NAMESPACE}")).await, Ok(Some(_))) {
        asked.trials = NAMESPACE;
    }
    all.push(groups::look(&asked).await);
    all.extend(rights::look(&asked, documents).await);
    all.push(controller::look(documents));
    all.push(images::look(documents));
    let nodes = nodes::read(&asked).await;
    all.extend(nodes::look(&asked, &nodes).await);
    for way in ways {
        all.push(ingress::look(&asked, way, &nodes).await);
    }
    all.extend(dns::look(&asked).await);
    all.push(admission::look(&asked, documents).await);
    all.push(admission::external_ips(&asked).await);
    all.push(security::look(&asked).await);
    all.push(pods::priority(&asked).await);
    all.push(pods::sidecar(&asked).await);
    all.push(mcs::look(&asked).await);
    all.extend(webhooks::look(&asked).await);
    all
}

/// The API server, asked.
struct Asked<'a> {
    client: &'a Client,
    /// The namespace in which things are tried: the agent's own, once it is there.
    trials: &'static str,
}

impl Asked<'_> {
    async fn get(&self, path: &str) -> Result<Value, kube::Error> {
        let request = Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// None where there is none of it.
    async fn find(&self, path: &str) -> Result<Option<Value>, kube::Error> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of a list, or why they can't be looked at.
    async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut found =
            self.get(&format!("{path}{sign}limit={MOST}")).await.map_err(|error| refused(&error))?;
        Ok(match found["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// Tries to make a Service with this specification, of which nothing comes.
    async fn try_service(&self, spec: &Value) -> Result<Value, kube::Error> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "generateName": "tombolo-check-" }, "spec": spec,
        });
        self.post(&format!("/api/v1/namespaces/{}/services?dryRun=All", self.trials), &service).await
    }

    /// Tries to make a pod, of which nothing comes.
    async fn try_pod(&self, namespace: &str, pod: &Value) -> Result<(), kube::Error> {
        self.post(&format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), pod).await.map(drop)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, kube::Error> {
        self.send(Method::POST, path, "application/json", body).await
    }
}

/// What the API server says, or that it says nothing.
fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The first few of many, for people.
fn some(all: &[String]) -> String {
    const SHOWN: usize = 4;
    let first = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `namespace/name` of an object.
fn name(object: &Value) -> String {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}
