//! What is asked for: the order in force, with what was given laid over it. The API takes an order as a whole, so what the options do not
//! name is sent as it was read. Pure.

use super::ways::{ways, with_annotations};
use crate::args::OrderArgs;
use anyhow::Result;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// How many gateways there are where nobody says it, as the API has it.
const REPLICAS: u64 = 2;
const MOST: u64 = 6;

/// An order as it is asked for, of one as it is shown.
pub(super) fn spec(install: &Value) -> Value {
    let mut spec = install.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|name, _| !["cluster", "revision", "before"].contains(&name.as_str()));
    }
    spec
}

/// This laid over what is in force; over the defaults, where nothing is.
///
/// # Errors
/// A way that is not understood; annotations that nobody would read.
pub(super) fn laid(in_force: Option<&Value>, given: &OrderArgs) -> Result<Value> {
    let mut body = in_force.map_or_else(|| json!({}), spec);
    let choices = [
        ("dns", "corefile", given.dns, given.no_dns),
        ("injector", "enabled", given.injector, given.no_injector),
        ("node", "enabled", given.node, given.no_node),
    ];
    for (part, field, yes, no) in choices {
        if yes || no {
            body[part][field] = json!(yes);
        }
    }
    if let Some(policy) = given.webhook_failure {
        body["injector"]["failure_policy"] = json!(policy.as_str());
    }
    if !given.include_namespace.is_empty() {
        body["namespaces"] = json!({ "include": given.include_namespace });
    } else if given.all_namespaces || !given.exclude_namespace.is_empty() {
        body["namespaces"] = json!({ "exclude": given.exclude_namespace });
    }
    if let Some(mode) = given.capture {
        body["default_mode"] = json!(mode);
    }
    for (name, value) in [("version", &given.image_version), ("registry", &given.registry)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    for (role, count) in [("egress", given.egress_replicas), ("ingress", given.ingress_replicas)] {
        if let Some(count) = count.map(u64::from) {
            let before = |field: &str, default| body["gateways"][role][field].as_u64().unwrap_or(default);
            let (min, max) = (before("min", REPLICAS), before("max", MOST));
            let gateways = &mut body["gateways"][role];
            gateways["replicas"] = json!(count);
            gateways["min"] = json!(count.min(min));
            gateways["max"] = json!(count.max(max));
        }
    }
    if !given.never_dial.is_empty() {
        // as the controller shows them, so that the same ones are no change
        let networks: BTreeSet<IpNet> = given.never_dial.iter().map(IpNet::trunc).collect();
        body["gateways"]["egress"]["never_dial"] = json!(networks);
    } else if given.no_never_dial
        && let Some(egress) = body.pointer_mut("/gateways/egress").and_then(Value::as_object_mut)
    {
        egress.remove("never_dial");
    }
    if !given.ingress.is_empty() || !given.ingress_annotation.is_empty() {
        let before = body["gateways"]["ingress"]["exposure"].as_array().cloned();
        let all = match (before, given.ingress.as_slice()) {
            (Some(before), []) => with_annotations(before, &given.ingress_annotation)?,
            (None, []) => ways(&["load-balancer".to_owned()], &given.ingress_annotation, &[])?,
            (before, these) => ways(these, &given.ingress_annotation, &before.unwrap_or_default())?,
        };
        body["gateways"]["ingress"]["exposure"] = json!(all);
    }
    Ok(body)
}

/// Whether the cluster's DNS is to forward names.
pub(super) fn forwards(body: &Value) -> bool {
    body["dns"]["corefile"] != json!(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::WebhookFailure;
    use tombolo_model::intent::CaptureMode;

    /// As the controller shows it.
    fn in_force() -> Value {
        json!({
            "cluster": "east", "revision": 7, "version": "1", "registry": "r", "before": { "version": "0" },
            "namespaces": { "exclude": ["secret"] },
            "gateways": {
                "egress": { "replicas": 3, "min": 3, "max": 20 },
                "ingress": { "replicas": 2, "min": 2, "max": 6, "exposure": [
                    { "type": "load_balancer", "annotations": { "a": "b" } }] },
            },
            "dns": { "corefile": false }, "injector": { "enabled": true, "failure_policy": "fail" },
            "node": { "enabled": true }, "default_mode": "node", "later": { "x": 1 },
        })
    }

    #[test]
    fn what_is_not_named_stays() {
        let given = OrderArgs { ingress: vec!["node-port".to_owned()], ..OrderArgs::default() };
        let mut wanted = spec(&in_force());
        wanted["gateways"]["ingress"]["exposure"] = json!([{ "type": "node_port" }]);
        assert_eq!(laid(Some(&in_force()), &given).unwrap(), wanted, "also what this program does not know");
        assert_eq!(laid(Some(&in_force()), &OrderArgs::default()).unwrap(), spec(&in_force()));
        assert_eq!(laid(None, &OrderArgs::default()).unwrap(), json!({}), "the controller has the defaults");
    }

    #[test]
    fn what_is_named_changes() {
        let given = OrderArgs {
            include_namespace: vec!["shop".parse().unwrap()],
            ingress_annotation: vec![("c".to_owned(), "d".to_owned())],
            egress_replicas: Some(2),
            dns: true,
            no_node: true,
            webhook_failure: Some(WebhookFailure::Ignore),
            capture: Some(CaptureMode::Gateway),
            registry: Some("s".to_owned()),
            image_version: Some("2".to_owned()),
            ..OrderArgs::default()
        };
        let body = laid(Some(&in_force()), &given).unwrap();
        assert_eq!(body["namespaces"], json!({ "include": ["shop"] }));
        let ways = json!([{ "type": "load_balancer", "annotations": { "c": "d" } }]);
        assert_eq!(body["gateways"]["ingress"]["exposure"], ways);
        assert_eq!(body["gateways"]["egress"], json!({ "replicas": 2, "min": 2, "max": 20 }));
        assert!(forwards(&body) && !forwards(&in_force()) && forwards(&json!({})));
        assert_eq!(body["injector"], json!({ "enabled": true, "failure_policy": "ignore" }));
        assert_eq!((&body["node"]["enabled"], &body["default_mode"]), (&json!(false), &json!("gateway")));
        assert_eq!((&body["registry"], &body["version"]), (&json!("s"), &json!("2")));
        let all = OrderArgs { all_namespaces: true, ..OrderArgs::default() };
        assert_eq!(laid(Some(&in_force()), &all).unwrap()["namespaces"], json!({ "exclude": [] }));
    }

    #[test]
    fn ranges_are_given_and_taken_back() {
        let never_dial = ["fd00::1/64", "10.0.0.0/8"].map(|net| net.parse().unwrap()).into();
        let given = OrderArgs { never_dial, ..OrderArgs::default() };
        let ranges = json!(["10.0.0.0/8", "fd00::/64"]);
        assert_eq!(
            laid(None, &given).unwrap(),
            json!({ "gateways": { "egress": { "never_dial": ranges } } })
        );
        let mut before = in_force();
        before["gateways"]["egress"]["never_dial"] = json!(["192.0.2.0/24"]);
        let body = laid(Some(&before), &given).unwrap();
        assert_eq!(
            body["gateways"]["egress"],
            json!({ "replicas": 3, "min": 3, "max": 20, "never_dial": ranges })
        );
        assert_eq!(laid(Some(&before), &OrderArgs::default()).unwrap(), spec(&before), "they stay");
        let back = OrderArgs { no_never_dial: true, ..OrderArgs::default() };
        assert_eq!(laid(Some(&before), &back).unwrap(), spec(&in_force()));
        assert_eq!(laid(None, &back).unwrap(), json!({}));
    }

    #[test]
    fn what_is_given_where_nothing_is() {
        let given = OrderArgs { egress_replicas: Some(8), no_injector: true, ..OrderArgs::default() };
        let wanted = json!({ "gateways": { "egress": { "replicas": 8, "min": 2, "max": 8 } }, "injector": { "enabled": false } });
        assert_eq!(laid(None, &given).unwrap(), wanted);
        let note = vec![("a".to_owned(), "b".to_owned())];
        let given = OrderArgs { ingress_annotation: note, ..OrderArgs::default() };
        let way = json!([{ "type": "load_balancer", "annotations": { "a": "b" } }]);
        assert_eq!(laid(None, &given).unwrap()["gateways"]["ingress"]["exposure"], way);
    }

    #[test]
    fn what_was_read_is_asked_for_again() {
        let read = json!({ "cluster": "c", "revision": 7, "version": "1", "before": {}, "dns": { "corefile": true } });
        assert_eq!(spec(&read), json!({ "version": "1", "dns": { "corefile": true } }));
    }
}
