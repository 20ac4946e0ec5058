//! Whether a cluster stands where it said it does when it joined. What is preferred as near depends on it.

use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{AccountName, Locality};
use tombolo_wire::message::Problem;

/// What is wrong, as far as the nodes tell.
#[must_use]
pub fn check(said: &Locality, nodes: &BTreeMap<AccountName, Locality>) -> Option<Problem> {
    let regions: BTreeSet<&str> = nodes.values().filter_map(|node| node.region.as_deref()).collect();
    let first = regions.first()?;
    let found = regions.iter().copied().collect::<Vec<_>>().join(", ");
    let message = match said.region.as_deref() {
        Some(region) if regions.contains(region) => return None,
        Some(region) => {
            format!(
                "the cluster joined as of {region}, and its nodes stand in {found}; run `tombolo-agent join` again with \
                 --region {first}"
            )
        }
        None => {
            format!(
                "the cluster joined without a region, so nothing is near to it, and its nodes stand in {found}; run \
                 `tombolo-agent join` again with --region {first}"
            )
        }
    };
    Some(Problem { subject: "region".to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_nodes_stand() {
        let at = |region: Option<&str>| Locality { region: region.map(str::to_owned), zone: None };
        let nodes: BTreeMap<AccountName, Locality> = [("a", Some("eu")), ("b", None), ("c", Some("us"))]
            .map(|(name, region)| (name.parse().unwrap(), at(region)))
            .into();
        let wrong = |said: Option<&str>| check(&at(said), &nodes).map(|problem| problem.message);
        assert_eq!(wrong(Some("eu")), None);
        assert_eq!(wrong(Some("us")), None);
        assert!(wrong(Some("ap")).unwrap().contains("joined as of ap, and its nodes stand in eu, us"));
        assert!(wrong(None).unwrap().contains("--region eu"));
        assert_eq!(check(&at(None), &BTreeMap::new()), None);
    }
}
