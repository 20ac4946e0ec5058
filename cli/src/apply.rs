//! `tombolo apply -f` and `tombolo diff -f`: the organization as files say.
//!
//! ```yaml
//! apiVersion: tombolo.io/v1
//! kind: GlobalNamespace      # or: Cluster
//! metadata: { name: acme }
//! spec: { domain: acme.example.com, rules: [...] }
//! ```
//! Nothing that is not in the files is removed. Every document is read, checked, and compared with what is there before the
//! first change is made.

use crate::{
    args::ApplyArgs,
    client::Client,
    output::{Mood, Output},
    problem::CliError,
};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use similar::TextDiff;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};
use tombolo_model::{DnsLabel, Domain};

/// What to do with the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Make it so.
    Apply,
    /// Show what would change.
    Diff,
}

/// The kinds a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A global namespace.
    GlobalNamespace,
    /// A cluster (its name, labels and place; it joins with a token all the same).
    Cluster,
}

/// One document of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// `tombolo.io/v1`.
    pub api_version: String,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub metadata: Metadata,
    /// Its fields, as the API has them.
    #[serde(default)]
    pub spec: Map<String, Value>,
}

/// The name of a document.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The name.
    pub name: DnsLabel,
}

/// What has to be done for one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is not there.
    Create(Value),
    /// It is there, and these fields differ.
    Update {
        /// The fields of the spec as they are.
        from: Map<String, Value>,
        /// The fields as they should be.
        to: Map<String, Value>,
    },
    /// It is as it should be.
    Nothing,
}

impl Kind {
    /// The fields of its spec.
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::GlobalNamespace => &["domain", "rules", "capture"],
            Self::Cluster => &["labels", "locality"],
        }
    }
}

/// Decides what to do for a document. Fields that the document does not name stay as they are.
#[must_use]
pub fn step(document: &Document, found: Option<&Value>) -> Step {
    // a removed cluster is made again, and joins again
    let found = found.filter(|found| found["state"] != "revoked");
    let Some(found) = found else {
        let mut body = document.spec.clone();
        body.insert("name".into(), json!(document.metadata.name));
        return Step::Create(Value::Object(body));
    };
    let from: Map<_, _> = document
        .spec
        .keys()
        .map(|key| (key.clone(), found.get(key).cloned().unwrap_or(Value::Null)))
        .collect();
    if from == document.spec { Step::Nothing } else { Step::Update { from, to: document.spec.clone() } }
}

/// Runs it.
///
/// # Errors
/// A file is wrong (nothing was changed then), or the controller said no. `diff` ends with an error where something differs.
pub async fn run(client: &Client, args: ApplyArgs, mode: Mode, out: &Output) -> Result<()> {
    let mut documents = Vec::new();
    for path in &args.files {
        documents.extend(read(path)?);
    }
    if documents.is_empty() {
        return Err(
            CliError::Usage("there is no document in what --file names; nothing was done".into()).into()
        );
    }
    once_each(&documents)?;
    // Clusters first: a global namespace's rules may name them.
    documents.sort_by_key(|d| d.kind == Kind::GlobalNamespace);
    let mut steps = Vec::new();
    for document in &documents {
        let list = client.in_org(match document.kind {
            Kind::GlobalNamespace => "/global-namespaces",
            Kind::Cluster => "/clusters",
        })?;
        let one = format!("{list}/{}", document.metadata.name);
        let found = client.find(&one).await?;
        let step = step(document, found.as_ref().map(|f| &f.body));
        steps.push((document, list, one, found, step));
    }
    let mut report = Vec::new();
    let mut differs = false;
    for (document, list, one, found, step) in steps {
        let what = format!("{:?} {}", document.kind, document.metadata.name);
        let word = match (&step, mode) {
            (Step::Nothing, _) => "unchanged",
            (Step::Create(_), _) => "created",
            (Step::Update { .. }, _) => "changed",
        };
        differs |= step != Step::Nothing;
        if mode == Mode::Diff {
            show(&what, &step, out);
        } else {
            let (found, etag) = found.map_or((Value::Null, None), |f| (f.body, f.etag));
            match (step, document.kind) {
                (Step::Nothing, _) => {}
                (Step::Create(body), _) => {
                    drop(client.create(&list, &body).await.with_context(|| what.clone())?)
                }
                (Step::Update { to, .. }, Kind::GlobalNamespace) => {
                    // it is replaced as a whole: what the file leaves out stays as it is
                    let mut body = to;
                    for field in document.kind.fields() {
                        if let Some(value) = found.get(*field) {
                            body.entry(*field).or_insert_with(|| value.clone());
                        }
                    }
                    client.put(&one, &Value::Object(body), etag).await.with_context(|| what.clone())?;
                }
                (Step::Update { to, .. }, Kind::Cluster) => {
                    client.patch(&one, &Value::Object(to), etag).await.with_context(|| what.clone())?;
                }
            }
            if out.for_people() {
                out.line(&out.paint(
                    if word == "unchanged" { Mood::Plain } else { Mood::Good },
                    &format!("{what} {word}"),
                ));
            }
        }
        report.push(json!({ "kind": document.kind, "name": document.metadata.name, "result": word }));
    }
    if !out.for_people() {
        out.value(&report)?;
    }
    if mode == Mode::Diff && differs {
        return Err(CliError::No(
            "the organization differs from the files; `tombolo apply` makes it so".into(),
        )
        .into());
    }
    Ok(())
}

fn show(what: &str, step: &Step, out: &Output) {
    let yaml = |value: &Map<String, Value>| serde_saphyr::to_string(value).unwrap_or_default();
    let (from, to) = match step {
        Step::Nothing => return,
        Step::Create(Value::Object(body)) => (String::new(), yaml(body)),
        Step::Create(other) => (String::new(), other.to_string()),
        Step::Update { from, to } => (yaml(from), yaml(to)),
    };
    if !out.for_people() {
        return;
    }
    let diff = TextDiff::from_lines(&from, &to);
    let text = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("{what} (now)"), &format!("{what} (file)"))
        .to_string();
    for line in text.lines() {
        let mood = match line.as_bytes().first() {
            Some(b'+') => Mood::Good,
            Some(b'-') => Mood::Bad,
            _ => Mood::Plain,
        };
        out.line(&out.paint(mood, line));
    }
}

fn read(path: &Path) -> Result<Vec<Document>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().take(4 << 20).read_to_string(&mut text).context("read standard input")?;
        return parse("-", &text);
    }
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return parse(&path.display().to_string(), &text);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("read {}", path.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .collect();
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        documents.extend(read(&file)?);
    }
    Ok(documents)
}

/// Reads the documents of one file.
///
/// # Errors
/// A document is wrong; the error names the file and the line.
pub fn parse(name: &str, text: &str) -> Result<Vec<Document>> {
    let documents: Vec<Document> =
        serde_saphyr::from_multiple(text).map_err(|why| CliError::Usage(format!("{name}: {why}")))?;
    documents
        .into_iter()
        .map(|document| check(document).map_err(|why| usage(format!("{name}: {why}"))))
        .collect()
}

fn usage(text: String) -> anyhow::Error {
    CliError::Usage(text).into()
}

/// The document in the form in which the controller shows it, or what is wrong with it.
fn check(mut document: Document) -> Result<Document, String> {
    let name = &document.metadata.name;
    if document.api_version != "tombolo.io/v1" {
        let wrong = &document.api_version;
        return Err(format!("{name} has apiVersion {wrong}; this program knows tombolo.io/v1"));
    }
    let known = document.kind.fields();
    if let Some(field) = document.spec.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(format!("{name}: spec.{field} is not known; known here: {}", known.join(", ")));
    }
    if let Some(domain) = document.spec.get_mut("domain") {
        let text = domain.as_str().ok_or_else(|| format!("{name}: spec.domain is not a text"))?;
        *domain =
            Domain::choose(text).map_err(|why| format!("{name}: spec.domain {why}"))?.to_string().into();
    }
    Ok(document)
}

/// Refuses files that say two things about one.
fn once_each(documents: &[Document]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for Document { kind, metadata, .. } in documents {
        if !seen.insert((format!("{kind:?}"), metadata.name.to_string())) {
            return Err(usage(format!("{kind:?} {} is in the files twice", metadata.name)));
        }
    }
    if seen.is_empty() {
        return Err(usage("the files hold no documents".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GNS: &str = "apiVersion: tombolo.io/v1\nkind: GlobalNamespace\nmetadata: {name: acme}\nspec:\n  domain: acme.example.com\n";

    #[test]
    fn decides_create_update_nothing() {
        let document = parse("x", GNS).unwrap().remove(0);
        assert_eq!(
            step(&document, None),
            Step::Create(json!({ "name": "acme", "domain": "acme.example.com" }))
        );
        let same = json!({ "name": "acme", "domain": "acme.example.com", "rules": [] });
        assert_eq!(step(&document, Some(&same)), Step::Nothing);
        let other = json!({ "name": "acme", "domain": "b.example.com" });
        assert!(matches!(step(&document, Some(&other)), Step::Update { .. }));
        // the controller shows domains in one form
        let document = parse("x", &GNS.replace("acme.example", "Acme.Example")).unwrap().remove(0);
        assert_eq!(step(&document, Some(&same)), Step::Nothing);
    }

    #[test]
    fn a_removed_cluster_is_made_again() {
        let text = "apiVersion: tombolo.io/v1\nkind: Cluster\nmetadata: {name: a}\n";
        let document = parse("x", text).unwrap().remove(0);
        let mut found = json!({ "name": "a", "state": "disconnected" });
        assert_eq!(step(&document, Some(&found)), Step::Nothing);
        found["state"] = json!("revoked");
        assert_eq!(step(&document, Some(&found)), Step::Create(json!({ "name": "a" })));
    }

    #[test]
    fn names_the_line_of_what_is_wrong() {
        let error = parse("f.yaml", &format!("{GNS}---\napiVersion: tombolo.io/v1\nkind: Nonsense\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("f.yaml") && error.contains("Nonsense") && error.contains("line"), "{error}");
        for (from, to, said) in [
            ("v1", "v9", "tombolo.io/v9"),
            ("domain:", "colour:", "spec.colour is not known; known here: domain, rules, capture"),
            ("acme.example.com", "my.cluster.local", "spec.domain"),
            ("acme.example.com", "7", "spec.domain is not a text"),
        ] {
            let error = parse("f.yaml", &GNS.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let twice = parse("x", &format!("{GNS}---\n{GNS}")).unwrap();
        assert!(once_each(&twice).unwrap_err().to_string().contains("twice"));
        assert!(once_each(&twice[1..]).is_ok() && once_each(&[]).is_err());
    }
}
