//! Numbers, for people.

use std::fmt::Write as _;

/// Rows in columns: the first one to the left, the others to the right.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            let _ = if at == 0 { write!(line, "{cell}{pad}") } else { write!(line, "  {pad}{cell}") };
        }
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text
}

/// How a value went, from nothing to its most, in so many signs.
#[must_use]
pub fn spark(values: &[u64], signs: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let count = signs.min(values.len());
    let of = |at: usize| {
        let part = &values[at * values.len() / count..(at + 1) * values.len() / count];
        let value = part.iter().copied().max().unwrap_or_default();
        STEPS[usize::try_from(value * 7 / most).unwrap_or(7)]
    };
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["what", "times"], ["kill", "7"], ["hang it", "12"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "  what     times\n  kill         7\n  hang it     12\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn a_line_shows_how_it_went() {
        assert_eq!(spark(&[0, 10, 20, 30, 40, 50, 60, 70], 8), "▁▂▃▄▅▆▇█");
        assert_eq!(spark(&[100; 50], 5), "█████", "what is flat looks flat");
        assert_eq!(spark(&[99, 100], 5), "▇█");
        assert_eq!(spark(&[0, 0, 7, 0], 2), "▁█", "peaks are seen");
        assert_eq!(spark(&[], 5), "");
    }
}
