//! The API server's version.

use super::{Finding, Verdict, finding};

/// Pods with a proxy need sidecar containers that the kubelet knows as such.
const SIDECARS: u32 = 29;
/// The oldest API server that we are tested with.
const OLDEST: u32 = 27;

pub(super) fn look(major: &str, minor: &str, all: &str) -> Vec<Finding> {
    let minor: u32 = minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let new = |least: u32| major != "1" || minor >= least;
    let server = if new(OLDEST) {
        finding("API server", Verdict::Good, all)
    } else {
        let said = format!("{all} is too old; upgrade the cluster to 1.{OLDEST} or later");
        finding("API server", Verdict::Missing, said)
    };
    let sidecars = if new(SIDECARS) {
        finding("native sidecars", Verdict::Good, "there")
    } else {
        let said = format!(
            "{all} has none; capture mode sidecar needs 1.{SIDECARS}, gateway and node do not (install with --no-injector)"
        );
        finding("native sidecars", Verdict::Less, said)
    };
    vec![server, sidecars]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_has() {
        let verdicts = |major: &str, minor: &str| {
            look(major, minor, "v").iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts("1", "34"), [Verdict::Good, Verdict::Good]);
        assert_eq!(verdicts("1", "28+"), [Verdict::Good, Verdict::Less]);
        assert_eq!(verdicts("1", "20"), [Verdict::Missing, Verdict::Less]);
    }
}
