//! The words of a Corefile. `CoreDNS` has them read by the lexer of Caddy 1 (`caddyfile/lexer.go` in `coredns/caddy`); who reads others
//! finds other server blocks than it does.

/// The words of a Corefile, and whether each is the first of its line; as `CoreDNS` reads them, in its odd cases too. A comment begins at a `#`
/// outside of quotes, in a word as well. One that begins in a word ends with that: `a#b c` is `a` and `c`.
pub(super) fn words(text: &str) -> Vec<(bool, String)> {
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars();
    let (mut all, mut word) = (Vec::new(), String::new());
    let (mut first, mut comment) = (true, false);
    while let Some(c) = chars.next() {
        match c {
            // not even the end of a word
            '\r' => {}
            _ if c.is_whitespace() => {
                if !word.is_empty() {
                    all.push((first, std::mem::take(&mut word)));
                    (first, comment) = (false, false);
                }
                if c == '\n' {
                    (first, comment) = (true, false);
                }
            }
            _ if comment => {}
            '#' => comment = true,
            '"' if word.is_empty() => {
                all.extend(quoted(&mut chars).map(|word| (first, word)));
                first = false;
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        all.push((first, word));
    }
    all
}

/// What follows the first quote, up to the second. A backslash stands for itself but for `\"`. Without a second, all that is left, if anything is.
fn quoted(chars: &mut std::str::Chars<'_>) -> Option<String> {
    let mut word = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(word),
            '\\' => match chars.next() {
                Some('"') => word.push('"'),
                Some(other) => word.extend(['\\', other]),
                None => {}
            },
            _ => word.push(c),
        }
    }
    (!word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_are_those_that_coredns_reads() {
        // the first of each line are marked
        for (text, expected) in [
            ("a b\n\tc", vec!["> a", "b", "> c"]),
            ("a\r\nb\rc\n", vec!["> a", "> bc"]),
            ("\u{feff}a", vec!["> a"]),
            // comments
            ("# a \"b\nc", vec!["> c"]),
            ("a #b c\nd", vec!["> a", "> d"]),
            ("a#b\nc", vec!["> a", "> c"]),
            ("a#b c\nd", vec!["> a", "c", "> d"]),
            ("a#b #c d\ne", vec!["> a", "> e"]),
            ("\"a\"#b c\nd", vec!["> a", "> d"]),
            // quotes
            ("a \"b # c\" d", vec!["> a", "b # c", "d"]),
            ("a \"\" b", vec!["> a", "", "b"]),
            ("\"a\"b\"c\" d", vec!["> a", "b\"c\"", "d"]),
            ("a \"b\nc\" d\ne", vec!["> a", "b\nc", "d", "> e"]),
            ("a \"b\n", vec!["> a", "b\n"]),
            ("a \"", vec!["> a"]),
            // backslashes
            ("a \"{b} \\\"{c}\\\"\"\nd", vec!["> a", "{b} \"{c}\"", "> d"]),
            ("a \"b \\\"\" c", vec!["> a", "b \"", "c"]),
            ("a \"b\\.c\\\\\" d", vec!["> a", "b\\.c\\\\", "d"]),
            ("a b\\\"c d", vec!["> a", "b\\\"c", "d"]),
            ("a \"b\\", vec!["> a", "b"]),
        ] {
            let read = super::words(text).into_iter();
            let read: Vec<String> =
                read.map(|(first, word)| if first { format!("> {word}") } else { word }).collect();
            assert_eq!(read, expected, "{text:?}");
        }
    }
}
