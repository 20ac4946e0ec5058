//! The API server's question about a pod, and the answer: `AdmissionReview` in and out. Pure.

use super::{
    Settings,
    patch::{Left, patch},
    pod::Pod,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use tombolo_model::{NamespaceName, intent::Labels};

/// What became of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It gets a proxy.
    Injected,
    /// It stays as it is.
    Left(Left),
    /// It is none of ours: another kind, or another mode.
    Passed,
    /// Nothing is known yet that a proxy could be told.
    NotReady,
}

impl Outcome {
    /// For metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Left(left) => left.reason(),
            Self::Passed => "passed",
            Self::NotReady => "not_ready",
        }
    }
}

/// What is known of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Labels,
    /// Whether its pods are to have proxies.
    pub wanted: bool,
}

#[derive(Deserialize)]
struct Question<'a> {
    #[serde(rename = "apiVersion", borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    request: Request<'a>,
}

/// All but the object, which may be any.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    kind: Kind<'a>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

/// The object, once it is known to be a pod that somebody wants to know about.
fn pod(body: &[u8]) -> Result<Pod, Left> {
    #[derive(Deserialize)]
    struct Question {
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        object: Pod,
    }
    let question: Question =
        serde_json::from_slice(body).map_err(|error| Left::Unreadable(error.to_string()))?;
    Ok(question.request.object)
}

/// Answers a question. The pod is always let in: what is wrong with it is its owner's to read, as a warning. `namespace` gives what is
/// known of one; of one that was made a moment ago nothing is, and the API server that asks has read its label.
///
/// # Errors
/// Why the question makes no sense.
pub fn review(
    body: &[u8],
    namespace: impl FnOnce(&NamespaceName) -> Option<Namespace>,
    settings: Option<&Settings>,
) -> Result<(Value, Outcome), serde_json::Error> {
    let Question { api_version, request } = serde_json::from_slice(body)?;
    let mut response = json!({"uid": request.uid, "allowed": true});
    let outcome = match decide(body, &request, namespace, settings) {
        Ok(operations) => {
            let text = Value::Array(operations).to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64_STANDARD.encode(text).into();
            Outcome::Injected
        }
        Err(outcome) => outcome,
    };
    let warning = match &outcome {
        Outcome::Left(left) if left.is_warning() => Some(format!("tombolo: {left}")),
        Outcome::NotReady => Some(
            "tombolo: no proxy is added: the agent has heard nothing from its controller yet; make the pod again later"
                .to_owned(),
        ),
        _ => None,
    };
    if let Some(warning) = warning {
        response["warnings"] = json!([warning]);
    }
    Ok((json!({"apiVersion": api_version, "kind": "AdmissionReview", "response": response}), outcome))
}

fn decide(
    body: &[u8],
    request: &Request<'_>,
    namespace: impl FnOnce(&NamespaceName) -> Option<Namespace>,
    settings: Option<&Settings>,
) -> Result<Vec<Value>, Outcome> {
    if !(request.kind.group.is_empty() && request.kind.kind == "Pod") {
        return Err(Outcome::Passed);
    }
    let name = NamespaceName::parse(&request.namespace).map_err(|_| Outcome::Passed)?;
    let namespace = namespace(&name).unwrap_or(Namespace { labels: Labels::new(), wanted: true });
    if !namespace.wanted {
        return Err(Outcome::Passed);
    }
    let settings = settings.ok_or(Outcome::NotReady)?;
    let pod = pod(body).map_err(Outcome::Left)?;
    patch(&pod, &namespace.labels, settings).map_err(Outcome::Left)
}
