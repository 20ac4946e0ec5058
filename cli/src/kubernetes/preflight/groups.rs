//! The versions of APIs that agent and manifest use.

use super::{Asked, Finding, Verdict, finding, refused};
use serde_json::Value;

const NEEDED: [&str; 8] = [
    "admissionregistration.k8s.io/v1",
    "apps/v1",
    "authentication.k8s.io/v1",
    "autoscaling/v2",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
];

pub(super) async fn look(asked: &Asked<'_>) -> Finding {
    match asked.get("/apis").await {
        Ok(groups) => served(&groups),
        Err(error) => {
            finding("API versions", Verdict::Less, format!("they can't be read: {}", refused(&error)))
        }
    }
}

fn served(groups: &Value) -> Finding {
    let versions = groups["groups"].as_array().into_iter().flatten();
    let versions = versions.flat_map(|group| group["versions"].as_array().into_iter().flatten());
    let served: Vec<&str> = versions.filter_map(|version| version["groupVersion"].as_str()).collect();
    let missing: Vec<&str> = NEEDED.into_iter().filter(|one| !served.contains(one)).collect();
    if missing.is_empty() {
        return finding("API versions", Verdict::Good, "all that are used are served");
    }
    let said = format!(
        "{} not served; take them off the API server's --runtime-config, or upgrade the cluster",
        missing.join(", ")
    );
    finding("API versions", Verdict::Missing, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_are_needed() {
        let groups = |all: &[&str]| {
            let group = |version: &&str| json!({ "versions": [{ "groupVersion": version }] });
            json!({ "groups": all.iter().map(group).collect::<Vec<_>>() })
        };
        assert_eq!(served(&groups(&NEEDED)).verdict, Verdict::Good);
        let found = served(&groups(&NEEDED[1..]));
        assert!(found.verdict == Verdict::Missing && found.said.starts_with(NEEDED[0]), "{found:?}");
    }
}
