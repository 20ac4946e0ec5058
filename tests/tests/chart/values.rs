//! The values: `values.yaml`, `values.schema.json` and the table of the README are one list, each value does something, and what is
//! not a value is refused by name. The schema's examples are what is tried.

use crate::{
    CHARTS,
    helm::{Chart, helm, identity, merge, nested, read, write},
    objects,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A value: its path, what the schema says, what stands above it in `values.yaml`, and what it is unless given.
struct Known {
    path: String,
    schema: Value,
    comment: String,
    default: Value,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The values of a schema: what has no values of ours in it.
fn leaves(schema: &Value, path: &str, all: &mut Vec<(String, Value)>) {
    for (key, schema) in schema["properties"].as_object().expect("properties") {
        let path = join(path, key);
        match schema.get("properties") {
            // what helm itself hands to charts below others
            None if path == "global" => {}
            None => all.push((path, schema.clone())),
            Some(_) => leaves(schema, &path, all),
        }
    }
}

/// What stands right above each key of `values.yaml`.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut all, mut above, mut way) = (BTreeMap::new(), Vec::new(), Vec::<(usize, String)>::new());
    for line in text.lines() {
        let inside = line.trim_start();
        if let Some(comment) = inside.strip_prefix('#') {
            above.push(comment.trim().to_owned());
            continue;
        }
        if let Some((key, _)) = inside.split_once(':') {
            let depth = line.len() - inside.len();
            way.retain(|(other, _)| *other < depth);
            way.push((depth, key.to_owned()));
            let path: Vec<&str> = way.iter().map(|(_, key)| key.as_str()).collect();
            all.insert(path.join("."), above.join(" "));
        }
        above.clear();
    }
    all
}

fn schema(chart: &Chart) -> Value {
    serde_json::from_str(&read(&chart.file("values.schema.json"))).expect("a schema")
}

fn known(chart: &Chart) -> Vec<Known> {
    let text = read(&chart.file("values.yaml"));
    let defaults: Value = serde_saphyr::from_str(&text).expect("values");
    let comments = comments(&text);
    let mut all = Vec::new();
    leaves(&schema(chart), "", &mut all);
    let find = |path: &str| defaults.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
    let known = |(path, schema): (String, Value)| {
        let default = find(&path).unwrap_or_else(|| panic!("{}: {path} is not in values.yaml", chart.name));
        Known { comment: comments.get(&path).cloned().unwrap_or_default(), path, schema, default }
    };
    let known: Vec<Known> = all.into_iter().map(known).collect();
    // and nothing else is there
    let mut rebuilt = Value::Object(Map::new());
    for one in &known {
        merge(&mut rebuilt, &nested(&one.path, one.default.clone()));
    }
    assert_eq!(rebuilt, defaults, "{}: values.yaml has values that the schema does not know", chart.name);
    known
}

/// What is tried with a value: the least that it needs, and its example.
fn example(chart: &Chart, one: &Known) -> (Value, Value) {
    let beside = match (chart.beside)(&one.path) {
        Value::Null => json!({}),
        beside => beside,
    };
    let example = &one.schema["examples"][0];
    assert!(!example.is_null(), "{}: {} has no example", chart.name, one.path);
    let mut with = beside.clone();
    merge(&mut with, &nested(&one.path, example.clone()));
    (beside, with)
}

#[test]
fn lint_has_no_complaint() {
    for chart in CHARTS {
        helm(&["lint", "--strict", &chart.folder()]).unwrap_or_else(|said| panic!("{said}"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        for one in known(chart) {
            let mut values = (chart.least)();
            merge(&mut values, &example(chart, &one).1);
            std::fs::write(file.path(), values.to_string()).expect("written");
            let path = file.path().display().to_string();
            let said = helm(&[
                "lint",
                "--strict",
                "--values",
                &path,
                "--namespace",
                chart.namespace,
                &chart.folder(),
            ]);
            said.unwrap_or_else(|said| panic!("{}: {said}", one.path));
        }
    }
}

#[test]
fn the_readme_has_the_same_values() {
    for chart in CHARTS {
        let row = |one: Known| {
            assert!(
                one.comment.ends_with('.'),
                "{}: {} has no sentence in values.yaml",
                chart.name,
                one.path
            );
            format!("| `{}` | `{}` | {} |\n", one.path, one.default, one.comment.replace('|', "\\|"))
        };
        let rows: String = known(chart).into_iter().map(row).collect();
        let table = format!("| value | unless given | |\n|---|---|---|\n{rows}");
        let (path, from) = (chart.file("README.md"), "| value | unless given |");
        let text = read(&path);
        let start = text.find(from).unwrap_or_else(|| panic!("{path} has no table of values"));
        let end = text[start..].find("\n\n").map_or(text.len(), |end| start + end + 1);
        if std::env::var("TOMBOLO_GOLDEN").is_ok_and(|golden| golden == "write") {
            write(&path, &[&text[..start], &table, &text[end..]].concat());
        } else {
            let stale = "it is not that of values.yaml; TOMBOLO_GOLDEN=write make test-chart writes it";
            assert_eq!(text[start..end], table, "{path}: {stale}");
        }
    }
}

#[test]
fn each_value_renders_and_changes_something() {
    for chart in CHARTS {
        for one in known(chart) {
            let name = format!("{}: {}", chart.name, one.path);
            let (without, with) = example(chart, &one);
            let plain = chart.render(&without).unwrap_or_else(|said| panic!("{name}: {said}"));
            let changed = chart.render(&with).unwrap_or_else(|said| panic!("{name}: {said}"));
            assert!(plain != changed, "{name}: {with} changes nothing");
            for object in plain.iter().chain(&changed) {
                objects::check(object)
                    .unwrap_or_else(|wrong| panic!("{name}: {}: {wrong}", identity(object)));
            }
        }
    }
}

/// The schema knows each value's type, so that another one is refused, by the value's name.
#[test]
fn wrong_values_are_refused_by_name() {
    for chart in CHARTS {
        for one in known(chart) {
            let wrong = match one.schema["type"].as_str() {
                Some("string") if one.schema.get("pattern").is_some() => json!("no such\nthing"),
                Some("string" | "integer" | "boolean" | "array") => json!({ "wrong": [] }),
                Some("object") => json!(["wrong"]),
                other => panic!("{}: {} is of type {other:?}", chart.name, one.path),
            };
            let (mut values, _) = example(chart, &one);
            merge(&mut values, &nested(&one.path, Value::Null));
            merge(&mut values, &nested(&one.path, wrong));
            let refusal = chart.render(&values).expect_err(&format!("{}: {}", chart.name, one.path));
            assert!(
                refusal.contains(&format!("'/{}'", one.path.replace('.', "/"))),
                "{}: {refusal}",
                one.path
            );
        }
    }
}

#[test]
fn what_is_no_value_is_refused_by_name() {
    fn groups(schema: &Value, path: &str, all: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(schema["additionalProperties"], false, "{path:?} takes anything");
            if !path.ends_with("[]") {
                all.push(path.to_owned());
            }
            for (key, schema) in properties {
                groups(schema, &join(path, key), all);
            }
        }
        if schema["items"].is_object() {
            groups(&schema["items"], &format!("{path}[]"), all);
        }
    }
    for chart in CHARTS {
        let mut all = Vec::new();
        groups(&schema(chart), "", &mut all);
        for group in all {
            let values = nested(&join(&group, "noSuchValue"), json!(1));
            let refusal = chart.render(&values).expect_err(&format!("{}: {group}", chart.name));
            assert!(refusal.contains("noSuchValue"), "{group}: {refusal}");
        }
    }
}
