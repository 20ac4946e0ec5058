//! What the agent may do is what docs/kubernetes.md says. (The chart has the manifest's rules: `make test-chart` compares them.)

use crate::root;
use serde_json::Value;
use std::{collections::BTreeSet, fs};
use tombolo_tests::rights::{Right, allowed, documented};

/// The rules of all roles of the manifest.
fn manifest() -> BTreeSet<Right> {
    let text = fs::read_to_string(root().join("deploy/kubernetes/agent.yaml")).unwrap();
    let mut rights = BTreeSet::new();
    let mut roles = 0;
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        let kind = object["kind"].as_str().unwrap();
        if kind != "Role" && kind != "ClusterRole" {
            continue;
        }
        roles += 1;
        assert!(object["rules"].is_array() && object.get("aggregationRule").is_none(), "{object}");
        let whole =
            object["rules"].as_array().unwrap().iter().all(|rule| rule.get("nonResourceURLs").is_none());
        assert!(whole, "a rule is not about objects: {object}");
        let namespace = object["metadata"]["namespace"].as_str();
        assert_eq!(namespace.is_some(), kind == "Role");
        rights.extend(allowed(&object["rules"], namespace));
    }
    assert_eq!(roles, 3);
    rights
}

#[test]
fn the_table_of_rights_is_the_manifest() {
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let (documented, given) = (documented(&page), manifest());
    assert!(documented.len() > 50, "{documented:?}");
    let extra: Vec<&Right> = given.difference(&documented).collect();
    assert!(extra.is_empty(), "the manifest gives what docs/kubernetes.md does not have: {extra:#?}");
    let missing: Vec<&Right> = documented.difference(&given).collect();
    assert!(missing.is_empty(), "docs/kubernetes.md has what the manifest does not give: {missing:#?}");
}

#[test]
fn no_secret_can_be_read_and_nothing_is_given_by_a_star() {
    for right in manifest() {
        for part in [&right.group, &right.resource, &right.verb] {
            assert!(!part.contains('*'), "{right:?}");
        }
        if right.resource.starts_with("secrets") {
            assert_eq!(
                (right.verb.as_str(), right.name.as_deref()),
                ("patch", Some("tombolo-state")),
                "{right:?}"
            );
        }
        assert!(!["escalate", "bind", "impersonate"].contains(&right.verb.as_str()), "{right:?}");
        assert!(
            !right.resource.starts_with("role") && !right.resource.starts_with("clusterrole"),
            "{right:?}"
        );
    }
}
