//! A file of YAML documents, taken apart so that one bad document does not spoil its neighbours.

use super::{Object, ObjectKind, convert, unknown::Tree};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What a document says.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Its objects, each with its line.
    pub(crate) objects: Vec<(usize, Object)>,
    /// What can't be used: an object may be missing for it.
    pub(crate) faults: Vec<Fault>,
    /// What is passed over: kinds and fields that are not for us.
    pub(crate) notes: Vec<Fault>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_saphyr::Spanned<Value>>,
}

impl Document<'_> {
    /// Reads the object in it, or the objects of a `v1 List`.
    pub(crate) fn read(&self) -> Content {
        let mut content = Content::default();
        if let Err(fault) = self.read_into(&mut content) {
            content.faults.push(fault);
        }
        content
    }

    fn read_into(&self, content: &mut Content) -> Result<(), Fault> {
        let header: Header = self.yaml()?;
        if (header.api_version.as_deref(), header.kind.as_deref()) == (Some("v1"), Some("List")) {
            return self.list(content);
        }
        let read = match kind(&header).map_err(|message| self.fault(&message))? {
            Some(kind) => self.object(kind)?,
            None => {
                content.notes.push(self.fault(&not_read(&header)));
                return Ok(());
            }
        };
        let (object, understood) = read;
        content.objects.push((self.line, object.map_err(|message| self.fault(&message))?));
        // Where no tree can be made of it, the fields are not checked; the object is read all the same.
        if let Ok(tree) = self.yaml::<Tree>() {
            self.note(content, "", &tree, &understood);
        }
        Ok(())
    }

    fn object(&self, kind: ObjectKind) -> Result<(Result<Object, String>, Value), Fault> {
        Ok(match kind {
            ObjectKind::Namespace => made(self.yaml()?, convert::namespace, Object::Namespace),
            ObjectKind::Service => made(self.yaml()?, convert::service, Object::Service),
            ObjectKind::ServiceAccount => made(self.yaml()?, convert::account, Object::Account),
            ObjectKind::EndpointSlice => made(self.yaml()?, convert::slice, Object::Slice),
            ObjectKind::Pod | ObjectKind::Node | ObjectKind::ServiceExport => return Err(self.fault(RUNNING)),
        })
    }

    /// As `kubectl get -o yaml` writes several objects.
    fn list(&self, content: &mut Content) -> Result<(), Fault> {
        let list: List = self.yaml()?;
        let tree = self.yaml::<Tree>().ok();
        let trees = tree.as_ref().and_then(|tree| tree.field("items"));
        for (i, item) in list.items.into_iter().enumerate() {
            let line = self.line_of(usize::try_from(item.referenced.line()).unwrap_or_default());
            let fault = |message: String| Fault { line, message: format!("items[{i}]: {message}") };
            let header: Header = match serde_json::from_value(item.value.clone()) {
                Ok(header) => header,
                Err(error) => {
                    content.faults.push(fault(error.to_string()));
                    continue;
                }
            };
            match kind(&header) {
                Err(message) => content.faults.push(fault(message)),
                Ok(None) => content.notes.push(fault(not_read(&header))),
                Ok(Some(kind)) => {
                    let read = entry(kind, item.value).and_then(|(object, json)| Ok((object?, json)));
                    match read {
                        Err(message) => content.faults.push(fault(message)),
                        Ok((object, understood)) => {
                            content.objects.push((line, object));
                            if let Some(tree) = trees.and_then(|trees| trees.entry(i)) {
                                self.note(content, &format!("items[{i}]."), tree, &understood);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, content: &mut Content, before: &str, tree: &Tree, understood: &Value) {
        content.notes.extend(tree.unknown(understood).into_iter().map(|(line, path)| Fault {
            line: self.line_of(line),
            message: format!(
                "{before}{path}: is no field of this object and is passed over; check its spelling"
            ),
        }));
    }

    /// The line of the file; the parser counts within the document, from 1.
    fn line_of(&self, line: usize) -> usize {
        if line == 0 { self.line } else { self.start + line - 1 }
    }

    fn fault(&self, message: &str) -> Fault {
        Fault { line: self.line, message: message.to_owned() }
    }

    fn yaml<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_saphyr::from_str(self.text).map_err(|error| {
            let line = error
                .location()
                .and_then(|at| usize::try_from(at.line()).ok())
                .map_or(self.line, |line| self.line_of(line));
            // One line, without the excerpt that the parser would draw, and without its own idea of the line.
            let text = error.without_snippet().to_string();
            let message = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Fault { line, message: without_place(&message).to_owned() }
        })
    }
}

/// Which kind it is; none where it is not for us.
fn kind(header: &Header) -> Result<Option<ObjectKind>, String> {
    let (Some(version), Some(kind)) = (&header.api_version, &header.kind) else {
        return Err("apiVersion or kind is missing; each document is one Kubernetes object".to_owned());
    };
    Ok(match (version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => Some(ObjectKind::Namespace),
        ("v1", "Service") => Some(ObjectKind::Service),
        ("v1", "ServiceAccount") => Some(ObjectKind::ServiceAccount),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(ObjectKind::EndpointSlice),
        _ => None,
    })
}

fn not_read(header: &Header) -> String {
    format!(
        "{} {} is not read here; the agent reads v1 Namespace, v1 Service, v1 ServiceAccount, \
         discovery.k8s.io/v1 EndpointSlice, and a v1 List of these",
        header.api_version.as_deref().unwrap_or_default(),
        header.kind.as_deref().unwrap_or_default()
    )
}

/// What `kind` gives no manifest.
const RUNNING: &str = "is what an API server knows of what runs, and no manifest";

/// An object, and what was understood of it.
fn made<T: Serialize, O>(
    read: T,
    convert: impl Fn(T) -> Result<O, String>,
    object: impl Fn(O) -> Object,
) -> (Result<Object, String>, Value) {
    // Kubernetes' types are plain data, which JSON can say; without, no field is reported.
    let understood = serde_json::to_value(&read).unwrap_or_default();
    (convert(read).map(object), understood)
}

/// An entry of a list.
fn entry(kind: ObjectKind, value: Value) -> Result<(Result<Object, String>, Value), String> {
    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }
    Ok(match kind {
        ObjectKind::Namespace => made(typed(value)?, convert::namespace, Object::Namespace),
        ObjectKind::Service => made(typed(value)?, convert::service, Object::Service),
        ObjectKind::ServiceAccount => made(typed(value)?, convert::account, Object::Account),
        ObjectKind::EndpointSlice => made(typed(value)?, convert::slice, Object::Slice),
        ObjectKind::Pod | ObjectKind::Node | ObjectKind::ServiceExport => return Err(RUNNING.to_owned()),
    })
}

/// Cuts ` at line 3, column 1` off the end: the parser counts within the document, we within the file.
fn without_place(message: &str) -> &str {
    let Some((text, place)) = message.rsplit_once(" at line ") else { return message };
    let rest = place.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix(", column ").unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { text } else { message }
}
