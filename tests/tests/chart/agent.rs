//! The agent's chart makes the objects of `deploy/kubernetes/agent.yaml`, which the controller serves.

use crate::helm::{Chart, documents, identity, one, read};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Command};

pub(crate) const AGENT: Chart =
    Chart { name: "tombolo-agent", release: "tombolo", namespace: "tombolo-system", least, beside };

/// The places of the manifest's template, with what the chart is given in `least`.
const PLACES: [(&str, &str); 8] = [
    ("controller", "https://controller.example.com:8443"),
    ("ca_fingerprint", "sha256:0000000000000000000000000000000000000000000000000000000000000000"),
    ("organization", "acme"),
    ("cluster", "east"),
    ("registry", "localhost"),
    ("version", env!("CARGO_PKG_VERSION")),
    ("vips_v4", "240.0.0.0/4"),
    ("vips_v6", "fd74:6f6d:6265:6c6f::/64"),
];

fn place(name: &str) -> &'static str {
    PLACES.iter().find(|(place, _)| *place == name).expect("a place").1
}

fn least() -> Value {
    json!({
        "controller": { "url": place("controller"), "caFingerprint": place("ca_fingerprint") },
        "cluster": place("cluster"),
    })
}

fn beside(path: &str) -> Value {
    match path {
        "createNamespace" => json!({ "organization": "acme" }),
        "organization" => json!({ "organization": "acme", "createNamespace": true }),
        _ => Value::Null,
    }
}

pub(crate) fn by_identity(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let count = objects.len();
    let all: BTreeMap<_, _> = objects.into_iter().map(|object| (identity(&object), object)).collect();
    assert_eq!(all.len(), count, "an object is there twice");
    all
}

/// The manifest as the controller serves it for the same answers.
fn manifest() -> BTreeMap<String, Value> {
    let template = read("deploy/kubernetes/agent.yaml");
    let text =
        PLACES.iter().fold(template, |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
    assert!(
        !text.contains("{{"),
        "the manifest has a place that is not in PLACES: give the chart a value for it"
    );
    by_identity(documents(&text))
}

#[track_caller]
pub(crate) fn same(chart: &BTreeMap<String, Value>, manifest: &BTreeMap<String, Value>) {
    let names = |all: &BTreeMap<String, Value>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(chart), names(manifest), "the chart and the manifest have other objects");
    for (name, object) in manifest {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON");
        let (ours, theirs) = (pretty(&chart[name]), pretty(object));
        let other = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        assert!(
            &chart[name] == object,
            "{name}: the chart and the manifest in deploy/kubernetes are no longer the same, first at {other:?}\n\
             chart: {ours}\nmanifest: {theirs}"
        );
    }
}

/// Whoever may write the webhook may answer for pods: who wants no proxies in pods need not give that.
#[test]
fn without_the_injector_the_agent_has_no_webhook() {
    let mut objects = by_identity(AGENT.render(&json!({ "injector": false })).expect("rendered"));
    let mut all = by_identity(AGENT.render(&json!({})).expect("rendered"));
    let webhook = |objects: &mut BTreeMap<String, Value>| {
        objects.retain(|name, _| !name.starts_with("ValidatingAdmissionPolicy"));
        let text = serde_json::to_string(objects).expect("JSON");
        ["mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "--webhook-listen"]
            .map(|part| text.contains(part))
    };
    assert_eq!((webhook(&mut objects), webhook(&mut all)), ([false; 3], [true; 3]));
    assert_eq!(objects.len() + 1, all.len(), "all else is there");
}

#[test]
fn the_chart_is_the_manifest() {
    let mut manifest = manifest();
    let all = json!({ "createNamespace": true, "organization": "acme" });
    same(&by_identity(AGENT.render(&all).expect("rendered")), &manifest);
    // the release's namespace is helm's to make
    manifest.remove("Namespace (v1) /tombolo-system").expect("the manifest's namespace");
    same(&by_identity(AGENT.render(&json!({})).expect("rendered")), &manifest);
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let empty = Chart { least: || json!({}), namespace: "default", ..AGENT };
    let refusal = empty.render(&json!({})).expect_err("nothing is given");
    for name in ["controller.url", "controller.caFingerprint", "cluster:", "--namespace tombolo-system"] {
        assert!(refusal.contains(name), "{name}: {refusal}");
    }
    let refusal = empty.render(&json!({ "createNamespace": true })).expect_err("an organization is missing");
    assert!(refusal.contains("organization:") && !refusal.contains("--namespace"), "{refusal}");
    let elsewhere = Chart { namespace: "default", ..AGENT };
    let values = json!({ "createNamespace": true, "organization": "acme" });
    assert_eq!(
        one(&elsewhere.render(&values).expect("rendered"), "Deployment")["metadata"]["namespace"],
        "tombolo-system"
    );
}

#[test]
fn the_notes_say_what_is_left_to_do() {
    let notes = AGENT.notes(&json!({ "join": { "existingSecret": "our-token" } }));
    for part in [
        "create secret generic our-token --from-file=token=/dev/stdin",
        "tombolo cluster install east",
        "tombolo cluster uninstall east",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    commands_are_whole(&notes);
}

/// What is indented is for a shell.
#[track_caller]
pub(crate) fn commands_are_whole(notes: &str) {
    let commands: Vec<&str> = notes.lines().filter(|line| line.starts_with("     ")).collect();
    assert!(!commands.is_empty(), "{notes}");
    let said = Command::new("bash").args(["-n", "-c", &commands.join("\n")]).output().expect("bash runs");
    assert!(said.status.success(), "{}\n{notes}", String::from_utf8_lossy(&said.stderr));
}
