//! A file of YAML documents, taken apart so that one bad document does not spoil its neighbours.

use super::{Object, convert};
use serde::Deserialize;

/// A document that can't be used: where, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// Its line in the file, from 1.
    pub(crate) line: usize,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

/// A document of a file: the line it begins at, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// The first line with content, from 1.
    pub(crate) line: usize,
    /// The line of the file at which `text` begins, from 1.
    start: usize,
    text: &'a str,
}

/// Takes a file apart at its `---` lines, as kubectl does. Documents without content are left out.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut begin, mut start, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_separator(line) {
            documents.extend(document(&text[begin..offset], start));
            begin = offset + line.len();
            start = number + 1;
        }
        offset += line.len();
    }
    documents.extend(document(&text[begin..], start));
    documents
}

fn is_separator(line: &str) -> bool {
    let line = line.trim_end();
    line == "---" || line.strip_prefix("--- ").is_some_and(|rest| rest.trim_start().starts_with('#'))
}

/// The document that begins at line `start`; none where it has no content.
fn document(text: &str, start: usize) -> Option<Document<'_>> {
    let has_content = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
    };
    let skip = text.lines().position(has_content)?;
    Some(Document { line: start + skip, start, text })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

impl Document<'_> {
    /// Reads the object in it.
    pub(crate) fn read(&self) -> Result<Object, Fault> {
        let header: Header = self.yaml()?;
        let (Some(version), Some(kind)) = (header.api_version, header.kind) else {
            return Err(self.fault("apiVersion or kind is missing; each document is one Kubernetes object"));
        };
        let object = match (version.as_str(), kind.as_str()) {
            ("v1", "Namespace") => convert::namespace(self.yaml()?).map(Object::Namespace),
            ("v1", "Service") => convert::service(self.yaml()?).map(Object::Service),
            ("v1", "ServiceAccount") => convert::account(self.yaml()?).map(Object::Account),
            ("discovery.k8s.io/v1", "EndpointSlice") => convert::slice(self.yaml()?).map(Object::Slice),
            _ => Err(format!(
                "{version} {kind} is not read here; the agent reads v1 Namespace, v1 Service, v1 ServiceAccount \
                 and discovery.k8s.io/v1 EndpointSlice"
            )),
        };
        object.map_err(|message| self.fault(&message))
    }

    fn fault(&self, message: &str) -> Fault {
        Fault { line: self.line, message: message.to_owned() }
    }

    fn yaml<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_saphyr::from_str(self.text).map_err(|error| {
            let line = error
                .location()
                .and_then(|at| usize::try_from(at.line()).ok())
                .filter(|line| *line > 0)
                .map_or(self.line, |line| self.start + line - 1);
            // One line, without the excerpt that the parser would draw, and without its own idea of the line.
            let text = error.without_snippet().to_string();
            let message = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Fault { line, message: without_place(&message).to_owned() }
        })
    }
}

/// Cuts ` at line 3, column 1` off the end: the parser counts within the document, we within the file.
fn without_place(message: &str) -> &str {
    let Some((text, place)) = message.rsplit_once(" at line ") else { return message };
    let rest = place.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix(", column ").unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { text } else { message }
}
