//! The real helm, and what it makes of a chart.

use serde_json::{Map, Value};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a checkout")
}

/// A file of the checkout.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(checkout().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Writes a file of the checkout.
pub(crate) fn write(path: &str, text: &str) {
    fs::write(checkout().join(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Runs helm: what it printed, or what it complained of.
pub(crate) fn helm(args: &[&str]) -> Result<String, String> {
    let program = std::env::var_os("TOMBOLO_HELM")
        .map_or_else(|| checkout().join(".run/kubernetes/bin/helm"), PathBuf::from);
    assert!(program.exists(), "no {}: run `make test-chart`, which builds it", program.display());
    let home = tempfile::tempdir().expect("a folder");
    let said = Command::new(program)
        .args(args)
        // nothing of the user's
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_CACHE_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env("KUBECONFIG", "/dev/null")
        .output()
        .expect("helm runs");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    if said.status.success() { Ok(out.into_owned()) } else { Err(format!("{out}{err}")) }
}

/// A chart, and the least that makes it render.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) name: &'static str,
    /// What the release is called.
    pub(crate) release: &'static str,
    /// Where it is installed.
    pub(crate) namespace: &'static str,
    /// What must be given.
    pub(crate) least: fn() -> Value,
    /// What a value needs beside it to have a meaning.
    pub(crate) beside: fn(&str) -> Value,
}

impl Chart {
    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("deploy/chart/{}/{name}", self.name)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> String {
        checkout().join("deploy/chart").join(self.name).display().to_string()
    }

    /// The objects that it makes of these values, put over the least.
    pub(crate) fn render(&self, values: &Value) -> Result<Vec<Value>, String> {
        self.render_from(&self.folder(), values)
    }

    fn render_from(&self, folder: &str, values: &Value) -> Result<Vec<Value>, String> {
        let mut all = (self.least)();
        merge(&mut all, values);
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), all.to_string()).expect("written");
        let path = file.path().display().to_string();
        let said =
            helm(&["template", self.release, folder, "--namespace", self.namespace, "--values", &path])?;
        Ok(documents(&said))
    }

    /// What it says to who installed it.
    pub(crate) fn notes(&self, values: &Value) -> String {
        // helm prints them only for a cluster, so a copy of the chart has them in an object
        let copy = tempfile::tempdir().expect("a folder");
        copy_folder(Path::new(&self.folder()), copy.path());
        let template = r#"{{ dict "notes" (include (print .Template.BasePath "/NOTES.txt") .) | toYaml }}"#;
        fs::write(copy.path().join("templates/notes.yaml"), template).expect("written");
        let objects = self.render_from(&copy.path().display().to_string(), values).expect("notes");
        let notes = objects.iter().find_map(|object| object["notes"].as_str());
        notes.expect("notes").to_owned()
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// The documents of a YAML file that have something in them.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Puts values over values, as helm does.
pub(crate) fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from.clone(),
    }
}

/// `a.b` with a value in it.
pub(crate) fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, key| Value::Object(Map::from_iter([(key.to_owned(), inner)])))
}

/// Objects by kind, namespace and name.
pub(crate) fn identity(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, version) = (text(&object["kind"]), text(&object["apiVersion"]));
    format!("{kind} ({version}) {}/{}", text(&meta["namespace"]), text(&meta["name"]))
}

/// The one object of a kind.
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    one
}
