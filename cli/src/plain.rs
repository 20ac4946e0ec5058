//! Answers without characters that command a terminal: what they say may come from a pod of somebody else's.

use serde_json::Value;

/// In all texts of an answer, and names of fields, each control character but a new line and a tab becomes U+FFFD.
pub(crate) fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain_text(text)),
        Value::Array(all) => all.into_iter().map(plain).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (plain_text(name), plain(value))).collect(),
        other => other,
    }
}

fn plain_text(text: String) -> String {
    let commands = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(commands) { text.replace(commands, "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::plain;
    use serde_json::json;

    #[test]
    fn nothing_commands_a_terminal() {
        let said =
            json!({"a\u{1b}": ["\u{1b}]0;title\u{7}x", 1, null, {"b": "\u{9b}31m\r\n\tæ 名"}], "c": true});
        let shown = json!({"a\u{fffd}": ["\u{fffd}]0;title\u{fffd}x", 1, null, {"b": "\u{fffd}31m\u{fffd}\n\tæ 名"}], "c": true});
        assert_eq!(plain(said), shown);
    }
}
