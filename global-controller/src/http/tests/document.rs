//! The OpenAPI document is the one that is committed.

use crate::http::document;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn the_committed_document_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("TOMBOLO_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, document()).unwrap();
        return;
    }
    assert!(committed == document(), "docs/openapi.json is stale: run `make api`, and commit what changed");
}

#[test]
fn the_document_is_complete() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = BTreeSet::new();
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        let found = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(found.is_some(), "{reference} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}: id twice");
            assert!(operation["summary"].is_string(), "{place}: no summary");
            assert!(operation["responses"]["default"].is_object(), "{place}: no problem");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(!parameter["description"].as_str().unwrap().is_empty(), "{place}: {parameter}");
            }
        }
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}
