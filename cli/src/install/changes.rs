//! What an order changes of the one in force, field by field, for people. Pure.

use super::ways;
use serde_json::Value;
use std::collections::BTreeMap;

/// A line for each field that differs: what it is, what it was, what it is to be.
pub(super) fn changes(before: &Value, after: &Value) -> Vec<String> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    fields(before, "", &mut old);
    fields(after, "", &mut new);
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |at: &BTreeMap<String, String>, name: &String| {
        at.get(name).cloned().unwrap_or_else(|| "(nothing)".to_owned())
    };
    let lines = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    lines.map(|name| format!("{name}: {} → {}", shown(&old, name), shown(&new, name))).collect()
}

/// The fields of an order by their paths. A list is one.
fn fields(value: &Value, path: &str, all: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(value, &path, all);
            }
        }
        other => drop(all.insert(path.to_owned(), shown(other))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => {
            let one = |value: &Value| ways::written(value).unwrap_or_else(|| shown(value));
            list.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_that_differs_has_a_line() {
        let before = json!({
            "version": "1", "namespaces": { "exclude": ["a", "b"] }, "node": { "enabled": true },
            "gateways": { "ingress": { "exposure": [{ "type": "load_balancer", "annotations": { "x": "y" } }] } },
        });
        assert_eq!(changes(&before, &before), Vec::<String>::new());
        let mut after = before.clone();
        after["gateways"]["ingress"]["exposure"] =
            json!([{ "type": "node_port" }, { "type": "host_network" }]);
        after["namespaces"] = json!({ "exclude": [] });
        after["node"]["enabled"] = json!(false);
        assert_eq!(
            changes(&before, &after),
            [
                "gateways.ingress.exposure: load-balancer (x=y) → node-port, host-network",
                "namespaces.exclude: a, b → none",
                "node.enabled: true → false",
            ]
        );
        after["namespaces"] = json!({ "include": ["c"] });
        let lines = changes(&before, &after);
        assert_eq!(
            lines[1..3],
            ["namespaces.exclude: a, b → (nothing)", "namespaces.include: (nothing) → c"]
        );
    }
}
