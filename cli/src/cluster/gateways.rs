//! A cluster's gateways, for people.

use crate::{
    org::text,
    output::{Mood, cell},
};
use serde_json::Value;
use std::collections::BTreeMap;

fn all(status: &Value) -> impl Iterator<Item = &Value> {
    status["gateways"].as_array().into_iter().flatten()
}

/// How many there are; and where there are proxies of nodes that say how they capture, how many of them do so by which way.
pub(super) fn count(status: &Value) -> (Mood, String) {
    let mut ways = BTreeMap::new();
    for capture in all(status).map(|gateway| &gateway["status"]["capture"]).filter(|said| said.is_object()) {
        *ways.entry(text(capture, "way")).or_insert(0) += 1;
    }
    let ways = ways.iter().map(|(way, nodes)| format!("{nodes} by {way}")).collect::<Vec<_>>().join(", ");
    match all(status).count() {
        0 => (Mood::Warn, "0".to_owned()),
        count if ways.is_empty() => cell(count.to_string()),
        count => cell(format!("{count} (nodes: {ways})")),
    }
}

/// A row of a table.
type Row = Vec<(Mood, String)>;

/// A table of them; nothing where there is none.
pub(super) fn table(status: &Value) -> Option<(Vec<&'static str>, Vec<Row>)> {
    let captures = all(status).any(|gateway| gateway["status"]["capture"].is_object());
    let mut head = vec!["gateway", "role", "version", "generation", "connections"];
    if captures {
        head.push("captures by");
    }
    let row = |gateway: &Value| {
        let said = &gateway["status"];
        let mut row = vec![
            cell(text(gateway, "instance")),
            cell(text(gateway, "role")),
            cell(text(gateway, "software")),
            cell(text(said, "generation")),
            cell(text(said, "connections")),
        ];
        if captures {
            let (way, why) = (text(&said["capture"], "way"), text(&said["capture"], "why"));
            row.push(cell(if why.is_empty() { way } else { format!("{way}: {why}") }));
        }
        row
    };
    let rows: Vec<_> = all(status).map(row).collect();
    (!rows.is_empty()).then_some((head, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_nodes_capture_is_told_where_they_say_it() {
        let gateway = |role: &str, capture: Value| json!({ "instance": role, "role": role, "status": { "capture": capture } });
        let words = |gateways: &[Value]| count(&json!({ "gateways": gateways })).1;
        let last = |gateways: &[Value]| {
            let (head, rows) = table(&json!({ "gateways": gateways })).unwrap();
            assert!(rows.iter().all(|row| row.len() == head.len()));
            let last = |mut row: Vec<(Mood, String)>| row.pop().unwrap().1;
            (head.last().copied().unwrap(), rows.into_iter().map(last).collect::<Vec<_>>())
        };
        // an older one says nothing
        let (egress, old) = (gateway("egress", Value::Null), json!({ "role": "node", "status": {} }));
        assert_eq!(words(&[egress.clone(), old.clone()]), "2");
        assert_eq!(last(&[egress.clone(), old.clone()]).0, "connections");
        let lookup = gateway("node", json!({ "way": "lookup" }));
        let redirect = gateway("node", json!({ "way": "redirect", "why": "bpf(2) is not permitted" }));
        let some = [egress, lookup.clone(), redirect, lookup, old];
        assert_eq!(words(&some), "5 (nodes: 2 by lookup, 1 by redirect)");
        let told = ["", "lookup", "redirect: bpf(2) is not permitted", "lookup", ""].map(str::to_owned);
        assert_eq!(last(&some), ("captures by", told.to_vec()));
        assert_eq!((count(&json!({})), table(&json!({})).is_none()), ((Mood::Warn, "0".to_owned()), true));
    }
}
