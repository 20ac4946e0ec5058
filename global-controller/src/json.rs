//! JSON as it comes.

use crate::app::error::{Kind, Refusal};

/// Refuses what can't be stored.
///
/// # Errors
/// [`Kind::InvalidField`].
pub(crate) fn check_text(json: &[u8]) -> Result<(), Refusal> {
    if !has_nul(json) {
        return Ok(());
    }
    let detail = "A text in the body has the character U+0000, which can't be stored.";
    Err(Refusal::new(Kind::InvalidField, detail).field("body", "has the character U+0000", "leave it out"))
}

/// Whether a text in it has the character U+0000, which PostgreSQL can't store.
fn has_nul(json: &[u8]) -> bool {
    const ESCAPED: &[u8] = b"\\u0000";
    let is_escape = |at: &usize| {
        let before = json[..*at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before % 2 == 0
    };
    let found = json.windows(ESCAPED.len()).enumerate().filter(|(_, part)| *part == ESCAPED);
    found.map(|(at, _)| at).any(|at| is_escape(&at))
}

#[cfg(test)]
mod tests {
    use super::has_nul;

    #[test]
    fn finds_what_an_escape_means() {
        for (json, has) in [
            (r#"{"a":"b"}"#, false),
            (r#"{"a":"\u0000"}"#, true),
            (r#"{"a":"x\\u0000"}"#, false),
            (r#"{"a":"x\\\u0000"}"#, true),
            (r#"{"a":"\u00001"}"#, true),
            (r#"{"a":"u0000"}"#, false),
        ] {
            assert_eq!(has_nul(json.as_bytes()), has, "{json}");
        }
    }
}
