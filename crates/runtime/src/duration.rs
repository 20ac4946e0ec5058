//! Durations as people write them: `250ms`, `10s`, `1h30m`, `24h`. A number without a unit is refused.

use std::time::Duration;
use thiserror::Error;

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("is empty; write a duration as 250ms, 10s or 1h30m")]
    Empty,
    /// A number without a unit.
    #[error("has a number without a unit; write ms, s, m, h or d after it")]
    Unit,
    /// A unit that does not exist.
    #[error("has the unit {0:?}; ms, s, m, h and d are known")]
    UnknownUnit(String),
    /// No number where one should be.
    #[error("has no number before {0:?}")]
    Number(String),
    /// Too long to count.
    #[error("is too long")]
    TooLong,
}

/// Reads a duration.
///
/// # Errors
/// A [`DurationError`] that says what to write.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError::Unit)?;
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::Number(after.chars().take(16).collect()));
        }
        let (unit, next) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            other => return Err(DurationError::UnknownUnit(other.chars().take(16).collect())),
        };
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or(DurationError::TooLong)?;
        rest = next;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse`] reads it again, to the millisecond.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut left = duration.as_millis();
    let mut text = String::new();
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= ms {
            text.push_str(&format!("{}{unit}", left / ms));
            left %= ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, ms) in
            [("250ms", 250), ("10s", 10_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(format(Duration::from_millis(ms)), text);
        }
        assert_eq!(parse("24h"), parse("1d"));
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, why) in [
            ("", DurationError::Empty),
            ("10", DurationError::Unit),
            ("1h30", DurationError::Unit),
            ("10 s", DurationError::UnknownUnit(" s".into())),
            ("s", DurationError::Number("s".into())),
            ("-1s", DurationError::Number("-1s".into())),
            ("99999999999999999999s", DurationError::TooLong),
            ("18446744073709551615h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
