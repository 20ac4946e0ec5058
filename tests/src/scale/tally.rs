//! Counts as programs print them.

use std::collections::BTreeMap;

/// The sum of a metric over its label sets that have this text in them (all, where it is empty), in the text format of Prometheus.
#[must_use]
pub fn counted(page: &str, metric: &str, label: &str) -> f64 {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(metric)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let of_it = labels.is_empty() || labels.starts_with('{');
            (of_it && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        })
        .sum()
}

/// Rows of two columns, as psql prints them unaligned: a name and a count.
#[must_use]
pub fn rows(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.rsplit_once('|'))
        .filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?)))
        .collect()
}

/// By how much each count rose, where it did.
#[must_use]
pub fn changed(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(name, now)| (name.clone(), now.saturating_sub(before.get(name).copied().unwrap_or_default())))
        .filter(|(_, more)| *more > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels() {
        let page = "# TYPE a_lines counter\na_lines_total{kind=\"delta\"} 7\na_lines_total{kind=\"current\"} 5\n\
                    a_lines_total_more 100\na_bytes_total 9\n# EOF\n";
        assert_eq!(counted(page, "a_lines_total", ""), 12.0);
        assert_eq!(counted(page, "a_lines_total", "delta"), 7.0);
        assert_eq!(counted(page, "a_bytes_total", ""), 9.0);
        assert_eq!(counted(page, "nothing", ""), 0.0);
    }

    #[test]
    fn what_rose_is_told() {
        let (before, after) = (rows("clusters|3\nfeeds|1\n"), rows("clusters|3\nfeeds|4\nreplicas|2\n\n"));
        assert_eq!(changed(&before, &after), rows("feeds|3\nreplicas|2"));
    }
}
