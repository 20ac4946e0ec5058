//! How clusters stand: with the controller, as its API shows it, and with each other.

use super::{SOON, World};
use serde_json::Value;
use tombolo_testkit::wait::until;

impl World {
    /// How a cluster is.
    pub async fn status(&self, cluster: u8) -> Value {
        self.api.get(&format!("/organizations/acme/clusters/cluster-{cluster}/status")).await
    }

    /// Waits until clusters are connected and have applied all that is published for them.
    pub async fn all_follow(&self, clusters: &[u8]) {
        for cluster in clusters {
            let look = || self.status(*cluster);
            until(&format!("cluster-{cluster} follows"), SOON, look, follows).await;
        }
    }

    /// Waits until the callers' egress gateways have so many addresses of a cluster in rotation.
    pub async fn until_in_rotation(&self, cluster: &str, count: usize) {
        let what = format!("{count} of {cluster} in rotation");
        until(&what, SOON, || self.in_rotation(cluster), |alive| *alive == count).await;
    }

    /// How many they have, all together.
    async fn in_rotation(&self, cluster: &str) -> usize {
        let mut alive = 0;
        for gateway in self.programs.keys().filter(|name| name.starts_with("cluster-1-egress")) {
            let state = self.state(gateway).await;
            let peers = state["peers"][cluster].as_object().into_iter().flatten();
            alive += peers
                .filter(|(_, peer)| !matches!(peer["health"].as_str(), Some("dead" | "unknown")))
                .count();
        }
        alive
    }
}

/// Whether a cluster is connected and has applied all; a later generation without news for it may be applied, too.
fn follows(status: &Value) -> bool {
    status["state"] == "connected"
        && status["lag_ms"] == 0
        && status["applied_generation"].as_u64() >= status["current_generation"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_is_behind_does_not_follow() {
        let status = |state: &str, applied: u64, lag: u64| json!({ "state": state, "applied_generation": applied, "current_generation": 5, "lag_ms": lag });
        assert!(follows(&status("connected", 5, 0)) && follows(&status("connected", 6, 0)));
        assert!(!follows(&status("connected", 4, 1)) && !follows(&status("disconnected", 5, 0)));
    }
}
