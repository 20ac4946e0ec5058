//! Tells the agent how this gateway is: at once where something matters, every two seconds where only counts moved, and
//! every five seconds in any case.

use super::paths::Paths;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tombolo_feed::{Requests, Status as FeedStatus};
use tombolo_runtime::telemetry;
use tombolo_wire::message::GatewayStatus;

/// How often is looked whether something changed; what changes within it goes in one report.
const LOOK: Duration = Duration::from_millis(250);
/// How old counts may get.
const COUNTS: Duration = Duration::from_secs(2);
/// How long the agent hears nothing at most.
const MOST: Duration = Duration::from_secs(5);

/// Reports for as long as it is polled.
pub(super) async fn report(
    requests: Requests,
    paths: Paths,
    feed: tokio::sync::watch::Receiver<FeedStatus>,
    now: impl Fn() -> GatewayStatus,
) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent: Option<(GatewayStatus, Instant)> = None;
    let mut short = false;
    loop {
        look.tick().await;
        if !feed.borrow().connected {
            // the agent that comes back knows nothing of us
            sent = None;
            continue;
        }
        let mut status = now();
        if short {
            status.edges.clear();
        }
        if sent.as_ref().is_some_and(|(last, at)| !due(last, &status, at.elapsed())) {
            continue;
        }
        match requests.post::<_, ()>(&paths.status, &status).await {
            Ok(()) => sent = Some((status, Instant::now())),
            Err(error) if !short && error.status() == Some(http::StatusCode::PAYLOAD_TOO_LARGE) => {
                tracing::warn!(
                    edges = status.edges.len(),
                    "the status is longer than the agent takes; from now on it is sent without the counts of edges"
                );
                short = true;
            }
            Err(error) => {
                tracing::debug!(error = telemetry::chain(&error), "could not report to the agent");
                sent = None;
                tokio::time::sleep(COUNTS).await;
            }
        }
    }
}

fn due(last: &GatewayStatus, now: &GatewayStatus, age: Duration) -> bool {
    age >= MOST || matters(last) != matters(now) || (age >= COUNTS && last != now)
}

/// What people wait for: the rest are counts and times.
fn matters(status: &GatewayStatus) -> impl PartialEq {
    let peers: Vec<_> = status
        .peers
        .iter()
        .flat_map(|(cluster, addresses)| {
            addresses.iter().map(move |(address, peer)| {
                (cluster.clone(), address.clone(), peer.health, peer.handshake, peer.error.clone())
            })
        })
        .collect();
    (status.generation, status.leaving, peers, status.problems.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tombolo_model::{ClusterName, Generation, health::Health};
    use tombolo_wire::message::PeerState;

    #[test]
    fn what_matters_goes_at_once_and_counts_wait() {
        let last = GatewayStatus { generation: Generation::new(3), ..GatewayStatus::default() };
        assert!(!due(&last, &last, Duration::from_secs(4)));
        assert!(due(&last, &last, MOST));
        let counts = GatewayStatus { connections: 9, ..last.clone() };
        assert!(!due(&last, &counts, Duration::from_millis(500)));
        assert!(due(&last, &counts, COUNTS));
        let applied = GatewayStatus { generation: Generation::new(4), ..last.clone() };
        assert!(due(&last, &applied, Duration::ZERO));
        let peer = PeerState { health: Health::Dead, handshake: true, rtt_us: None, error: None };
        let peers =
            BTreeMap::from([(ClusterName::parse("c2").unwrap(), BTreeMap::from([("a:1".to_owned(), peer)]))]);
        let dead = GatewayStatus { peers, ..last.clone() };
        assert!(due(&last, &dead, Duration::ZERO));
    }
}
