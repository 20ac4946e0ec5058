//! Answers without characters that command a terminal: what they say may come from a pod of somebody else's.

use serde_json::Value;

/// In all texts of an answer, and names of fields, each control character but a new line and a tab becomes U+FFFD; so does what turns the
/// direction of writing, which shows another text than there is.
pub(crate) fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain_text(text)),
        Value::Array(all) => all.into_iter().map(plain).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (plain_text(name), plain(value))).collect(),
        other => other,
    }
}

/// The same of one text.
pub(crate) fn plain_text(text: String) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let commands = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || turns(c);
    if text.contains(commands) { text.replace(commands, "\u{fffd}") } else { text }
}

/// A text of somebody else's in a line of ours.
pub(crate) fn one_line(text: String) -> String {
    plain_text(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::{one_line, plain};
    use serde_json::json;

    #[test]
    fn nothing_commands_a_terminal() {
        let said =
            json!({"a\u{1b}": ["\u{1b}]0;title\u{7}x", 1, null, {"b": "\u{9b}31m\r\n\tæ 名"}], "c": true});
        let shown = json!({"a\u{fffd}": ["\u{fffd}]0;title\u{fffd}x", 1, null, {"b": "\u{fffd}31m\u{fffd}\n\tæ 名"}], "c": true});
        assert_eq!(plain(said), shown);
        let turned = json!("safe\u{202e}lave\u{2066}\u{200f}");
        assert_eq!(plain(turned), json!("safe\u{fffd}lave\u{fffd}\u{fffd}"));
    }

    #[test]
    fn a_text_makes_no_lines_of_its_own() {
        assert_eq!(one_line("a\nproblem: b\r\n\tc".to_owned()), "a problem: b\u{fffd}  c");
    }
}
