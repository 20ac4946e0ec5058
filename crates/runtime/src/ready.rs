//! The ready file: how whoever started a program learns that it is up, and where it listens.

use serde_json::Value;
use std::{fs, io, path::Path};

/// Writes `{"pid":…, …}` at once whole: to a file beside it, then renamed, so that a reader never sees half of it. `pid` is added to
/// `fields` where it is not there; `fields` is an object.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::InvalidInput`] where `fields` is no object.
pub fn write(path: &Path, fields: &Value) -> io::Result<()> {
    let mut fields = fields
        .as_object()
        .cloned()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the ready file holds an object"))?;
    fields.entry("pid").or_insert_with(|| std::process::id().into());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = Path::new(&name);
    fs::write(beside, format!("{}\n", Value::Object(fields)))?;
    fs::rename(beside, path).inspect_err(|_| {
        let _ = fs::remove_file(beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        write(&path, &serde_json::json!({ "api": "127.0.0.1:1" })).unwrap();
        let back: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(back, serde_json::json!({ "api": "127.0.0.1:1", "pid": std::process::id() }));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&path, &serde_json::json!(1)).is_err());
    }
}
