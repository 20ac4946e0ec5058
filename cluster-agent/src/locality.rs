//! Where a cluster stands, as its nodes tell. What is preferred as near depends on it.

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::ListParams};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    AccountName, Locality,
    snapshot::{ClusterResource, ResourceKey, Resources, SelfSpec},
};
use tombolo_wire::message::Problem;

/// The labels of a node that say where it stands.
const REGION: &str = "topology.kubernetes.io/region";
/// See [`REGION`].
const ZONE: &str = "topology.kubernetes.io/zone";

/// Nodes that are asked; where a cluster has more, these say enough.
const NODES: u32 = 500;

/// The nodes of a cluster, by name.
pub type Nodes = BTreeMap<AccountName, Locality>;

/// Where a node stands, as its labels say.
pub(crate) fn of(node: &ObjectMeta) -> Locality {
    let label = |name| node.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    Locality { region: label(REGION), zone: label(ZONE) }
}

/// Where the cluster stands. An API server that does not answer, or says no, leaves it open.
pub(crate) async fn of_nodes(client: &Client) -> Locality {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.list_metadata(&ListParams::default().limit(NODES)).await {
        Ok(found) => stands(found.iter().map(|node| of(&node.metadata))),
        Err(error) => {
            tracing::info!(%error, "the nodes could not be asked where they stand");
            Locality::default()
        }
    }
}

/// The region of most nodes, and their zone where all of those are in one.
fn stands(nodes: impl IntoIterator<Item = Locality>) -> Locality {
    let mut regions: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for node in nodes {
        if let Some(region) = node.region {
            regions.entry(region).or_default().push(node.zone);
        }
    }
    let most =
        regions.into_iter().max_by(|(a, these), (b, those)| these.len().cmp(&those.len()).then(b.cmp(a)));
    let Some((region, zones)) = most else { return Locality::default() };
    let mut zones: BTreeSet<Option<String>> = zones.into_iter().collect();
    let zone = if zones.len() == 1 { zones.pop_first().flatten() } else { None };
    Locality { region: Some(region), zone }
}

/// What is wrong with where the controller says that the cluster stands, as far as the nodes tell.
#[must_use]
pub fn check(resources: &Resources<ClusterResource>, nodes: &Nodes) -> Option<Problem> {
    match resources.get(&ResourceKey::new("self", "")) {
        Some(ClusterResource::Itself(itself)) => differs(itself, nodes),
        _ => None,
    }
}

fn differs(itself: &SelfSpec, nodes: &Nodes) -> Option<Problem> {
    let regions: BTreeSet<&str> = nodes.values().filter_map(|node| node.region.as_deref()).collect();
    let first = regions.first()?;
    let found = regions.iter().copied().collect::<Vec<_>>().join(", ");
    let wrong = match itself.locality.region.as_deref() {
        Some(region) if regions.contains(region) => return None,
        Some(region) => format!("the cluster is said to stand in {region}, and its nodes stand in {found}"),
        None => {
            format!("the cluster has no region, so nothing is near to it, and its nodes stand in {found}")
        }
    };
    let message = format!(
        "{wrong}; apply it: `kind: Cluster, metadata: {{ name: {} }}, spec: {{ locality: {{ region: {first} }} }}` \
         with `tombolo apply -f`",
        itself.cluster
    );
    Some(Problem { subject: "region".to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::snapshot::Resource as _;

    fn at(region: Option<&str>, zone: Option<&str>) -> Locality {
        Locality { region: region.map(str::to_owned), zone: zone.map(str::to_owned) }
    }

    #[test]
    fn where_the_nodes_stand() {
        let nodes: Nodes = [("a", Some("eu")), ("b", None), ("c", Some("us"))]
            .map(|(name, region)| (name.parse().unwrap(), at(region, None)))
            .into();
        let itself = |said: Option<&str>| SelfSpec {
            cluster: "east".parse().unwrap(),
            trust_domain: "acme.tombolo.internal".parse().unwrap(),
            locality: at(said, None),
        };
        let wrong = |said: Option<&str>| {
            let resource = ClusterResource::Itself(itself(said).into());
            check(&[(resource.key(), resource)].into(), &nodes).map(|problem| problem.message)
        };
        assert_eq!(wrong(Some("eu")), None);
        assert_eq!(wrong(Some("us")), None);
        assert!(wrong(Some("ap")).unwrap().contains("stand in ap, and its nodes stand in eu, us"));
        let none = wrong(None).unwrap();
        assert!(none.contains("region: eu") && none.contains("name: east"), "{none}");
        assert_eq!(differs(&itself(None), &Nodes::new()), None);
        assert_eq!(check(&Resources::new(), &nodes), None, "there is no snapshot yet");
    }

    #[test]
    fn the_region_of_most() {
        let (eu_a, eu_b, us) =
            (at(Some("eu"), Some("a")), at(Some("eu"), Some("b")), at(Some("us"), Some("a")));
        assert_eq!(stands([]), Locality::default());
        assert_eq!(stands([at(None, Some("a"))]), Locality::default());
        assert_eq!(stands([us.clone(), eu_a.clone(), eu_a.clone()]), eu_a);
        assert_eq!(stands([eu_a.clone(), eu_b, us.clone()]), at(Some("eu"), None));
        assert_eq!(
            stands([us, eu_a.clone()]),
            eu_a,
            "of two alike the first by name, so that every replica says the same"
        );
    }
}
