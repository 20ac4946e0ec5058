//! Problem details (RFC 9457): how every request over HTTP says why it failed.

use serde::{Deserialize, Serialize};

/// The body of an answer that is an error; `content-type: application/problem+json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemDetails {
    /// What kind of problem, as a URI; `about:blank` where the status says it all.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The kind in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// This case in words, and what to do.
    #[serde(default)]
    pub detail: String,
    /// Fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldProblem {
    /// Its path in the body, as `rules[0].cluster`.
    #[serde(default)]
    pub field: String,
    /// What is wrong.
    #[serde(default)]
    pub message: String,
    /// What to write instead.
    #[serde(default)]
    pub remedy: String,
}
