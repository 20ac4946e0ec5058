//! The OpenAPI 3.1 document. It is generated from the handlers; what is the same for many of them is added here.

use super::{
    problem::{PROBLEM_JSON, Problem, ProblemField},
    router::operations,
};
use crate::app::{error::Kind, page::Page};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::OpenApi as _;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tombolo",
        description = "Names across clusters. Everything of a tenant lies under its organization; another tenant's \
                       things do not exist. Errors are problem details (RFC 9457): match on `type`. Lists come in \
                       pages: give `next_cursor` as `cursor`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem, ProblemField))
)]
struct Head;

/// The document without its operations.
pub(super) fn head() -> utoipa::openapi::OpenApi {
    Head::openapi()
}

/// The document as it is served: made once, and one copy for all who read it. Anybody may ask.
pub(crate) fn shared() -> Bytes {
    static SHARED: LazyLock<Bytes> = LazyLock::new(|| document().into());
    SHARED.clone()
}

/// The document, as JSON text with a newline at its end.
pub(crate) fn document() -> String {
    let mut document = serde_json::to_value(operations().into_openapi()).unwrap_or_default();
    finish(&mut document);
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// Parts of paths.
const PARTS: [(&str, &str); 7] = [
    ("org", "The organization's name."),
    ("cluster", "The cluster's name."),
    ("gns", "The global namespace's name."),
    ("token", "The token's name."),
    ("id", "The id."),
    ("name", "The full name, as `catalog.acme.example.com`."),
    ("certificate", "The certificate's serial number."),
];

fn finish(document: &mut Value) {
    document["servers"] = json!([{ "url": "/api/v1" }]);
    document["security"] = json!([{ "token": [] }]);
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http", "scheme": "bearer", "bearerFormat": "tmb_…",
            "description": "An API token: of an organization, or the installation's owner's."
        }
    });
    let kinds: Vec<String> = Kind::ALL.iter().map(|kind| format!("/problems/{}", kind.parts().1)).collect();
    document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] = json!(kinds);
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            add_parameters(path, method, operation);
            let responses = &mut operation["responses"];
            responses["default"] = json!({
                "description": "A problem.",
                "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } }
            });
        }
    }
}

fn add_parameters(path: &str, method: &str, operation: &mut Value) {
    let header = |name: &str, required: bool, description: &str| {
        json!({ "name": name, "in": "header", "required": required, "description": description,
                "schema": { "type": "string" } })
    };
    let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut found: Vec<Value> = parts
        .map(|part| {
            let description = PARTS.iter().find(|(name, _)| *name == part).map_or("", |(_, text)| text);
            json!({ "name": part, "in": "path", "required": true, "description": description,
                    "schema": { "type": "string" } })
        })
        .collect();
    let versioned = path.ends_with("{cluster}") || path.ends_with("{gns}") || path.ends_with("/install");
    match method {
        "post" => found.push(header(
            "Idempotency-Key",
            false,
            "The same key with the same request within a day gets the same answer, and nothing is done twice.",
        )),
        "put" | "patch" | "delete" if versioned => found.push(header(
            "If-Match",
            true,
            "The ETag of what was read; `*` for whatever is there.",
        )),
        "get" if !path.ends_with("/events") => {
            found.push(header(
                "If-None-Match",
                false,
                "ETags of what is known already: where one is what would be answered, the answer is 304.",
            ));
            operation["responses"]["304"] = json!({ "description": "It is what If-None-Match names." });
        }
        _ => {}
    }
    if method == "get" && !path.ends_with("/events") {
        operation["responses"]["200"]["headers"] = json!({
            "ETag": { "description": "For If-None-Match, and If-Match where there is a version.", "schema": { "type": "string" } }
        });
    } else if versioned && method != "delete" {
        operation["responses"]["200"]["headers"] = json!({
            "ETag": { "description": "The version, for If-Match.", "schema": { "type": "string" } }
        });
    }
    if lists(operation) {
        found.push(json!({
            "name": "limit", "in": "query", "required": false, "description": "Entries of the page.",
            "schema": { "type": "integer", "minimum": 1, "maximum": Page::MAX, "default": Page::DEFAULT }
        }));
        found.push(json!({
            "name": "cursor", "in": "query", "required": false,
            "description": "`next_cursor` of the page before.", "schema": { "type": "string" }
        }));
    }
    let Some(operation) = operation.as_object_mut() else { return };
    let declared = operation.remove("parameters").and_then(|value| match value {
        Value::Array(list) => Some(list),
        _ => None,
    });
    found.extend(declared.unwrap_or_default());
    if !found.is_empty() {
        operation.insert("parameters".to_owned(), Value::Array(found));
    }
}

/// Whether the operation answers with a page of a list.
fn lists(operation: &Value) -> bool {
    let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    schema["$ref"].as_str().is_some_and(|name| name.contains("/List_"))
}
