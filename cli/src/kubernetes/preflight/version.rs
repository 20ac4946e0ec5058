//! The API server's version.

use super::{Finding, Verdict, finding};

/// Pods with a proxy need sidecar containers that the kubelet knows as such.
const SIDECARS: u32 = 29;
/// The agent's rights are held to what it needs by admission policies.
const POLICIES: u32 = 30;
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
    let policies = if new(POLICIES) {
        finding("admission policies", Verdict::Good, "there")
    } else {
        let said = format!(
            "{all} has none (1.{POLICIES} and later do): nothing but its own program holds the agent to what it needs of its rights"
        );
        finding("admission policies", Verdict::Less, said)
    };
    vec![server, sidecars, policies]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_has() {
        let verdicts = |major: &str, minor: &str| {
            look(major, minor, "v").iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        use Verdict::{Good, Less, Missing};
        assert_eq!(verdicts("1", "34"), [Good, Good, Good]);
        assert_eq!(verdicts("1", "29"), [Good, Good, Less]);
        assert_eq!(verdicts("1", "28+"), [Good, Less, Less]);
        assert_eq!(verdicts("1", "20"), [Missing, Less, Less]);
    }
}
