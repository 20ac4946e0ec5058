//! When an agent is ready to be asked.

use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tombolo_model::snapshot::ClusterResource;
use tombolo_runtime::admin::Readiness;

/// How long the controller may take to say whether a kept snapshot still stands.
const CONFIRMED: Duration = Duration::from_secs(5);

/// Ready once there is a snapshot to serve: the controller's, or a kept one where the controller does not answer. A replica
/// that is new must not answer from what was kept a while ago while others know better.
pub(super) async fn ready(
    readiness: Readiness,
    mut snapshot: watch::Receiver<Arc<tombolo_feed::State<ClusterResource>>>,
    mut feed: watch::Receiver<tombolo_feed::Status>,
) {
    readiness.set_not_ready("no snapshot from the controller yet");
    if snapshot.wait_for(|state| state.generation.get() > 0).await.is_ok() {
        let confirmed = feed.wait_for(|status| !status.from_cache);
        let _ = tokio::time::timeout(CONFIRMED, confirmed).await;
        readiness.set_ready();
    }
    std::future::pending().await
}
