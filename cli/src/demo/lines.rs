//! The lines of the closing table that a user may paste. The checks run the same text.

use super::{
    layout::{CATALOG, Layout, ORGANIZATION},
    steps::Demo,
};
use anyhow::Result;

/// A line to paste.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The program that it is about.
    pub(crate) program: &'static str,
    /// What a shell takes.
    pub(crate) text: String,
}

/// All of them.
///
/// # Errors
/// This program's own path is not known.
pub(crate) fn lines(demo: &Demo, layout: &Layout) -> Result<[Line; 3]> {
    let (server, name) = (layout.dns(1), CATALOG.trim_end_matches(":8082"));
    let dig = format!("dig @{} -p {} {name} +short", server.ip(), server.port());
    let tombolo = quoted(&std::env::current_exe()?.display().to_string());
    let explain = format!(
        "{tombolo} --server {} --ca-fingerprint {} \\\n    --organization {ORGANIZATION} --token-file {} explain --from cluster-1/default/shopping {CATALOG}",
        demo.context.server,
        demo.context.ca_fingerprint,
        quoted(&layout.path("token").display().to_string()),
    );
    let curl = format!("curl -sS --noproxy '*' --resolve {CATALOG}:$({dig}) http://{CATALOG}/products");
    Ok([
        Line { program: "dig", text: dig },
        Line { program: "curl", text: curl },
        Line { program: "tombolo", text: explain },
    ])
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_where_they_must_be() {
        assert_eq!(quoted("/a/b-c.1"), "/a/b-c.1");
        assert_eq!(quoted("/my files/it's"), r"'/my files/it'\''s'");
    }
}
