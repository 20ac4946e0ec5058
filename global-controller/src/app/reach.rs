//! Where a cluster's ingress gateways are, and who reaches them there. An address is published once the egress gateway of
//! another cluster completed a handshake through it: before that no request takes it.

use crate::store::reach::Reaches;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// An address of a cluster's ingress gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct GatewayAddress {
    /// `host:port`, as the cluster's agent advertises it.
    #[schema(example = "192.0.2.10:15443")]
    pub(crate) address: String,
    /// How it stands.
    pub(crate) state: AddressState,
    /// The clusters whose egress gateways completed a handshake through it, and use it.
    pub(crate) published_by: Vec<Publisher>,
    /// The clusters whose egress gateways do not get through, and why.
    pub(crate) failing: Vec<Failure>,
}

/// How an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AddressState {
    /// The cluster says so; no peer got through yet.
    Advertised,
    /// A peer uses it.
    Published,
    /// Peers tried, and none gets through.
    Failing,
}

/// A cluster that uses an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Publisher {
    /// Its name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// Since when.
    pub(crate) since: DateTime<Utc>,
}

/// A cluster that does not get through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Failure {
    /// Its name.
    #[schema(example = "cluster-1")]
    pub(crate) cluster: String,
    /// Why.
    pub(crate) reason: String,
}

/// The advertised addresses, with what other clusters say of each.
pub(super) fn addresses(advertised: &BTreeSet<String>, reached: &Reaches) -> Vec<GatewayAddress> {
    let one = |address: &String| {
        let (mut published_by, mut failing) = (Vec::new(), Vec::new());
        for (cluster, addresses) in reached {
            let Some(reach) = addresses.get(address) else { continue };
            let cluster = cluster.to_string();
            match (reach.since, &reach.error) {
                (Some(since), _) if reach.answers => published_by.push(Publisher { cluster, since }),
                (_, Some(reason)) => failing.push(Failure { cluster, reason: reason.clone() }),
                (Some(_), None) => failing.push(Failure { cluster, reason: "it does not answer".to_owned() }),
                (None, None) => {}
            }
        }
        let state = match (published_by.is_empty(), failing.is_empty()) {
            (false, _) => AddressState::Published,
            (true, false) => AddressState::Failing,
            (true, true) => AddressState::Advertised,
        };
        GatewayAddress { address: address.clone(), state, published_by, failing }
    };
    advertised.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::reach::Reach;
    use tombolo_testkit::build::name;

    #[test]
    fn an_address_is_published_by_a_handshake() {
        let advertised = BTreeSet::from(["192.0.2.1:1".to_owned()]);
        let by = |cluster: &str, reach: Reach| {
            (
                name(cluster),
                [("192.0.2.1:1".to_owned(), reach), ("192.0.2.9:1".to_owned(), Reach::default())].into(),
            )
        };
        let state = |reached: Reaches| {
            let mut found = addresses(&advertised, &reached);
            assert_eq!(found.len(), 1, "only what the cluster advertises");
            let one = found.remove(0);
            (one.state, one.published_by.len(), one.failing.into_iter().map(|f| f.reason).collect::<Vec<_>>())
        };
        let since = Some(DateTime::UNIX_EPOCH);
        let good = Reach { since, answers: true, error: None };
        let bad = Reach { since: None, answers: false, error: Some("refused".to_owned()) };
        let silent = Reach { since, answers: false, error: None };
        assert_eq!(state(Reaches::new()), (AddressState::Advertised, 0, vec![]));
        assert_eq!(state([by("a", Reach::default())].into()), (AddressState::Advertised, 0, vec![]));
        assert_eq!(
            state([by("a", bad.clone())].into()),
            (AddressState::Failing, 0, vec!["refused".to_owned()])
        );
        assert_eq!(state([by("a", silent)].into()).0, AddressState::Failing);
        assert_eq!(
            state([by("a", bad), by("b", good)].into()),
            (AddressState::Published, 1, vec!["refused".to_owned()])
        );
    }
}
