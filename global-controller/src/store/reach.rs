//! Which addresses of other clusters' ingress gateways a cluster reaches, as its egress gateways say.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tombolo_model::{ClusterName, health::Health};
use tombolo_wire::message::GatewayReport;

/// The longest reason that is kept, in characters.
const REASON: usize = 300;

/// An address of a peer, as a cluster reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// When a handshake through it was first known to be completed; none before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Whether one of its egress gateways uses it.
    pub(crate) answers: bool,
    /// Why one does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// By peer and address.
pub(crate) type Reaches = BTreeMap<ClusterName, BTreeMap<String, Reach>>;

/// What the gateways say now, under what was known before.
pub(super) fn reaches(gateways: &[GatewayReport], before: Option<&Reaches>, now: DateTime<Utc>) -> Reaches {
    let mut found = Reaches::new();
    for (peer, addresses) in gateways.iter().flat_map(|gateway| &gateway.status.peers) {
        for (address, state) in addresses {
            let reach = found.entry(peer.clone()).or_default().entry(address.clone()).or_default();
            reach.answers |= state.handshake && matches!(state.health, Health::Healthy | Health::SlowStart);
            if state.handshake {
                let known = before.and_then(|all| all.get(peer)?.get(address)?.since);
                reach.since = reach.since.or(known).or(Some(now));
            }
            let reason = || state.error.as_ref().map(|error| error.chars().take(REASON).collect());
            reach.error = reach.error.take().or_else(reason);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use tombolo_model::GatewayRole;
    use tombolo_testkit::build::name;
    use tombolo_wire::message::{GatewayStatus, PeerState};

    fn gateway(handshake: bool, health: Health, error: Option<&str>) -> GatewayReport {
        let state = PeerState { health, handshake, rtt_us: None, error: error.map(str::to_owned) };
        let peers = [(name("cluster-2"), [("192.0.2.1:1".to_owned(), state)].into())].into();
        GatewayReport {
            instance: "e".to_owned(),
            role: GatewayRole::Egress,
            software: "test".to_owned(),
            admin: None,
            status: GatewayStatus { peers, ..GatewayStatus::default() },
        }
    }

    #[test]
    fn the_first_handshake_is_remembered() {
        let (early, late) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::hours(1));
        let one = |found: &Reaches| found["cluster-2"]["192.0.2.1:1"].clone();
        let none = reaches(&[gateway(false, Health::Dead, Some("refused"))], None, early);
        assert_eq!(one(&none), Reach { since: None, answers: false, error: Some("refused".to_owned()) });
        // one gateway that reaches it is enough
        let both = [gateway(false, Health::Dead, Some("refused")), gateway(true, Health::Healthy, None)];
        let found = reaches(&both, Some(&none), early);
        assert!(one(&found).answers && one(&found).since == Some(early));
        let later = reaches(&[gateway(true, Health::Dead, Some("silent"))], Some(&found), late);
        assert_eq!(
            one(&later),
            Reach { since: Some(early), answers: false, error: Some("silent".to_owned()) }
        );
    }
}
