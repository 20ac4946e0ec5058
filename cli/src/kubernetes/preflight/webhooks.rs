//! Webhooks of others that are asked about the agent's objects: they may change or refuse them, and where one does not answer, nothing can
//! be made.

use super::{super::NAMESPACE, Asked, Finding, Verdict, finding, some, text};
use serde_json::{Value, json};

const WHAT: &str = "webhooks";
/// What the agent makes, with the API group of each.
const OURS: [(&str, &str); 10] = [
    ("", "pods"),
    ("", "services"),
    ("", "configmaps"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
    ("apps", "replicasets"),
    ("discovery.k8s.io", "endpointslices"),
    ("policy", "poddisruptionbudgets"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("coordination.k8s.io", "leases"),
];

/// A webhook that is asked about something of ours.
struct Webhook {
    name: String,
    /// What is refused while it does not answer.
    fails: bool,
    /// Whether it is asked about all of the kind, as far as can be seen: no selector or condition of its own has a say.
    surely: bool,
    /// The Service that is asked, where it is one.
    service: Option<(String, String)>,
}

pub(super) async fn look(asked: &Asked<'_>) -> Vec<Finding> {
    let labels = match asked.find(&format!("/api/v1/namespaces/{NAMESPACE}")).await {
        Ok(Some(namespace)) => namespace["metadata"]["labels"].clone(),
        _ => json!({ "kubernetes.io/metadata.name": NAMESPACE, "app.kubernetes.io/managed-by": "tombolo" }),
    };
    let mut all = Vec::new();
    for kind in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        match asked.list(&format!("/apis/admissionregistration.k8s.io/v1/{kind}")).await {
            Ok(found) => all.extend(asked_about_us(&found, &labels)),
            Err(why) => return vec![finding(WHAT, Verdict::Less, format!("they can't be looked at: {why}"))],
        }
    }
    let mut silent = Vec::new();
    for webhook in all.iter().filter(|webhook| webhook.fails) {
        if let Some((namespace, service)) = &webhook.service {
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}"
            );
            if asked.list(&path).await.is_ok_and(|slices| !is_served(&slices)) {
                silent.push(webhook);
            }
        }
    }
    vec![said(&all, &silent)]
}

fn said(all: &[Webhook], silent: &[&Webhook]) -> Finding {
    if !silent.is_empty() {
        let names: Vec<String> = silent.iter().map(|webhook| webhook.name.clone()).collect();
        let surely = silent.iter().any(|webhook| webhook.surely);
        let (verdict, what) = if surely {
            (Verdict::Missing, "must be asked about the agent's objects")
        } else {
            (
                Verdict::Less,
                "may have to be asked about some of the agent's objects (it has a selector or conditions)",
            )
        };
        let said = format!(
            "{} {what} and has nobody who answers: what it must be asked about can't be made; see to it, or leave namespace {NAMESPACE} \
             out of it",
            some(&names)
        );
        return finding(WHAT, verdict, said);
    }
    if all.is_empty() {
        return finding(WHAT, Verdict::Good, "none of others is asked about the agent's objects");
    }
    let names: Vec<String> = all.iter().map(|webhook| webhook.name.clone()).collect();
    let said = format!(
        "{} asked about the agent's objects, and may change or refuse them; where one does, leave namespace {NAMESPACE} out of it",
        some(&names)
    );
    finding(WHAT, Verdict::Less, said)
}

fn is_served(slices: &[Value]) -> bool {
    let mut endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    endpoints.any(|endpoint| endpoint["conditions"]["ready"] != false)
}

fn asked_about_us(configurations: &[Value], labels: &Value) -> Vec<Webhook> {
    let mut all = Vec::new();
    for configuration in configurations {
        let own = text(configuration, "/metadata/name");
        if own == "tombolo" {
            continue;
        }
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let mut rules = webhook["rules"].as_array().into_iter().flatten();
            if !rules.any(is_of_ours) || !selects(&webhook["namespaceSelector"], labels) {
                continue;
            }
            let service = &webhook["clientConfig"]["service"];
            let place = (text(service, "/namespace").to_owned(), text(service, "/name").to_owned());
            all.push(Webhook {
                name: format!("{own} ({})", text(webhook, "/name")),
                fails: webhook["failurePolicy"] != "Ignore",
                surely: is_empty(&webhook["objectSelector"]) && is_empty(&webhook["matchConditions"]),
                service: service.is_object().then_some(place),
            });
        }
    }
    all
}

/// No condition is in it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

fn has(list: &Value, wanted: &str) -> bool {
    list.as_array().into_iter().flatten().any(|one| one == wanted || one == "*" || one == "*/*")
}

/// Whether it is about something that the agent makes or changes.
fn is_of_ours(rule: &Value) -> bool {
    let written = has(&rule["operations"], "CREATE") || has(&rule["operations"], "UPDATE");
    let of = |(group, resource): &(&str, &str)| {
        has(&rule["apiGroups"], group) && has(&rule["resources"], resource)
    };
    written && rule["scope"] != "Cluster" && OURS.iter().any(of)
}

/// Whether a selector of labels takes these.
fn selects(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.into_iter().all(|(key, value)| labels[key.as_str()] == *value)
        && expressions.all(|one| {
            let found = &labels[text(one, "/key")];
            let listed = one["values"].as_array().into_iter().flatten().any(|value| value == found);
            match text(one, "/operator") {
                "In" => !found.is_null() && listed,
                "NotIn" => found.is_null() || !listed,
                "Exists" => !found.is_null(),
                "DoesNotExist" => found.is_null(),
                // whatever it is, it may take them
                _ => true,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Value {
        json!({ "kubernetes.io/metadata.name": NAMESPACE, "team": "a" })
    }

    fn configuration(selector: Value, rule: Value) -> Value {
        json!({ "metadata": { "name": "policy" }, "webhooks": [{
            "name": "v.policy.example.com", "failurePolicy": "Fail", "namespaceSelector": selector, "rules": [rule],
            "clientConfig": { "service": { "namespace": "policy", "name": "server" } },
        }] })
    }

    fn rule(group: &str, resource: &str) -> Value {
        json!({ "apiGroups": [group], "resources": [resource], "operations": ["CREATE"], "scope": "*" })
    }

    #[test]
    fn who_is_asked_about_our_objects() {
        let count =
            |selector: Value, rule: Value| asked_about_us(&[configuration(selector, rule)], &labels()).len();
        assert_eq!(count(json!({}), rule("", "pods")), 1);
        assert_eq!(count(json!(null), rule("*", "*")), 1);
        assert_eq!(count(json!({}), rule("apps", "statefulsets")), 0);
        assert_eq!(count(json!({}), rule("", "deployments")), 0, "of another group");
        let mut deleted = rule("", "pods");
        deleted["operations"] = json!(["DELETE"]);
        assert_eq!(count(json!({}), deleted), 0);
        let expression = |operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": operator, "values": values }] });
        assert_eq!(count(expression("NotIn", &[NAMESPACE]), rule("", "pods")), 0);
        assert_eq!(count(expression("NotIn", &["kube-system"]), rule("", "pods")), 1);
        assert_eq!(count(expression("In", &["shop"]), rule("", "pods")), 0);
        assert_eq!(count(expression("Exists", &[]), rule("", "pods")), 1);
        assert_eq!(count(json!({ "matchLabels": { "team": "b" } }), rule("", "pods")), 0);
        let mut own = configuration(json!({}), rule("", "pods"));
        own["metadata"]["name"] = json!("tombolo");
        assert!(asked_about_us(&[own], &labels()).is_empty());
    }

    #[test]
    fn one_that_must_be_asked_and_is_not_there() {
        let all = asked_about_us(&[configuration(json!({}), rule("", "pods"))], &labels());
        assert!(all[0].fails && all[0].service == Some(("policy".to_owned(), "server".to_owned())));
        assert_eq!(said(&all, &[]).verdict, Verdict::Less);
        assert_eq!(said(&all, &[&all[0]]).verdict, Verdict::Missing);
        for (field, value) in [
            ("objectSelector", json!({ "matchLabels": { "policy": "on" } })),
            ("matchConditions", json!([{ "name": "some", "expression": "true" }])),
        ] {
            let mut one = configuration(json!({}), rule("", "pods"));
            one["webhooks"][0][field] = value;
            let some = asked_about_us(&[one], &labels());
            assert_eq!(said(&some, &[&some[0]]).verdict, Verdict::Less, "{field}");
        }
        assert_eq!(said(&[], &[]).verdict, Verdict::Good);
        assert!(!is_served(&[]));
        assert!(!is_served(&[json!({ "endpoints": [{ "conditions": { "ready": false } }] })]));
        assert!(is_served(&[json!({ "endpoints": [{ "conditions": {} }] })]));
    }
}
