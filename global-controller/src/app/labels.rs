//! Labels of clusters and namespaces, by the rules of Kubernetes.

use super::error::Checks;
use tombolo_model::{AccountName, intent::Labels};

/// The most labels of a thing.
const MOST: usize = 64;

/// Notes what is wrong with labels.
pub(crate) fn check(checks: &mut Checks, field: &str, labels: &Labels) {
    if labels.len() > MOST {
        checks.wrong(field, format!("has {} labels", labels.len()), format!("use at most {MOST}"));
    }
    for (key, value) in labels.iter().take(MOST) {
        let (prefix, name) = key.split_once('/').map_or((None, key.as_str()), |(p, n)| (Some(p), n));
        if !is_value(name) || name.is_empty() || prefix.is_some_and(|p| AccountName::parse(p).is_err()) {
            checks.wrong(
                format!("{field}.{}", shown(key)),
                "is not a label's key",
                "use letters, digits, '-', '_', '.', 63 at most, after a DNS name and '/' if you like: example.com/team",
            );
        }
        if !is_value(value) {
            checks.wrong(
                format!("{field}.{}", shown(key)),
                "has a value that no label has",
                "use at most 63 letters, digits, '-', '_', '.', beginning and ending with a letter or digit",
            );
        }
    }
}

fn shown(key: &str) -> String {
    key.chars().take(80).collect()
}

fn is_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_kubernetes() {
        let wrong = |key: &str, value: &str| {
            let mut checks = Checks::default();
            check(&mut checks, "labels", &Labels::from([(key.to_owned(), value.to_owned())]));
            checks.done().is_err()
        };
        assert!(!wrong("env", "prod") && !wrong("example.com/team", "") && !wrong("a.b_c-d", "1.0"));
        for (key, value) in
            [("", "x"), ("-a", "x"), ("a b", "x"), ("/a", "x"), ("a/", "x"), ("a", "-"), ("a", "x y")]
        {
            assert!(wrong(key, value), "{key}={value}");
        }
        assert!(wrong(&"k".repeat(64), "x") && wrong("k", &"v".repeat(64)));
    }
}
