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
    let mut sent: Option<Sent> = None;
    let mut short = false;
    loop {
        look.tick().await;
        let (connected, connection) = {
            let feed = feed.borrow();
            (feed.connected, feed.connections)
        };
        if !connected {
            continue;
        }
        let mut status = now();
        if short {
            status.edges.clear();
        }
        if sent.as_ref().is_some_and(|sent| !sent.is_due(connection, &status, sent.at.elapsed())) {
            continue;
        }
        match requests.post::<_, ()>(&paths.status, &status).await {
            Ok(()) => sent = Some(Sent { status, connection, at: Instant::now() }),
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

/// What the agent was told last.
struct Sent {
    status: GatewayStatus,
    /// To which of the connections: whoever is at the end of another one knows nothing of us.
    connection: u64,
    at: Instant,
}

impl Sent {
    fn is_due(&self, connection: u64, now: &GatewayStatus, age: Duration) -> bool {
        connection != self.connection
            || age >= MOST
            || matters(&self.status) != matters(now)
            || (age >= COUNTS && self.status != *now)
    }
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
    (status.generation, status.leaving, peers, status.problems.clone(), status.capture.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tombolo_model::{ClusterName, Generation, health::Health};
    use tombolo_wire::message::{CaptureWay, NodeCapture, PeerState};

    #[test]
    fn what_matters_goes_at_once_and_counts_wait() {
        let last = GatewayStatus { generation: Generation::new(3), ..GatewayStatus::default() };
        let sent = Sent { status: last.clone(), connection: 1, at: Instant::now() };
        let due = |now: &GatewayStatus, age| sent.is_due(1, now, age);
        assert!(!due(&last, Duration::from_secs(4)));
        assert!(due(&last, MOST));
        let counts = GatewayStatus { connections: 9, ..last.clone() };
        assert!(!due(&counts, Duration::from_millis(500)));
        assert!(due(&counts, COUNTS));
        let applied = GatewayStatus { generation: Generation::new(4), ..last.clone() };
        assert!(due(&applied, Duration::ZERO));
        let capture = NodeCapture { way: CaptureWay::Lookup, why: None };
        assert!(due(&GatewayStatus { capture: Some(capture), ..last.clone() }, Duration::ZERO));
        let peer = PeerState { health: Health::Dead, handshake: true, rtt_us: None, error: None };
        let peers =
            BTreeMap::from([(ClusterName::parse("c2").unwrap(), BTreeMap::from([("a:1".to_owned(), peer)]))]);
        let dead = GatewayStatus { peers, ..last.clone() };
        assert!(due(&dead, Duration::ZERO));
        assert!(sent.is_due(2, &last, Duration::ZERO), "the agent's other replica has heard nothing");
    }
}
