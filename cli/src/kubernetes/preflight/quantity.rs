//! Quantities of Kubernetes: `250m`, `64Mi`, `2`.

/// A quantity in thousandths. None where it is not one.
pub(super) fn milli(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() && !part.is_empty() { 0 } else { whole.parse().ok()? };
    let part = format!("{part:0<9}");
    let nano = whole.checked_mul(1_000_000_000)?.checked_add(part.get(..9)?.parse::<i128>().ok()?)?;
    // of the unit, in thousandths: so many times, and so many parts
    let (times, parts): (i128, i128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        exponent => {
            let power =
                exponent.strip_prefix(['e', 'E'])?.parse::<u32>().ok().filter(|power| *power <= 18)?;
            (10i128.pow(power + 3), 1)
        }
    };
    Some(nano.checked_mul(times)? / parts / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_write_them() {
        for (text, thousandths) in [
            ("2", 2_000),
            ("250m", 250),
            ("0.1", 100),
            (".5", 500),
            ("1.5Gi", 1_000 * (3 << 29)),
            ("64Mi", 1_000 * (64 << 20)),
            ("128974848", 128_974_848_000),
            ("129e6", 129_000_000_000),
            ("12k", 12_000_000),
            ("1500000u", 1_500),
            ("0", 0),
        ] {
            assert_eq!(milli(text), Some(thousandths), "{text}");
        }
        for wrong in ["", "m", "-1", "1x", "1e99", "1.2.3", "99999999999999999999999999999999999999999"] {
            assert_eq!(milli(wrong), None, "{wrong}");
        }
    }
}
