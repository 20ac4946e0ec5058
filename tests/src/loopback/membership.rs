//! Clusters that are admitted, removed, and admitted again.

use super::{SOON, World, join};
use serde_json::json;
use std::collections::BTreeSet;
use tombolo_testkit::wait::until_ok;

impl World {
    /// Makes a cluster, or makes it again where it was removed, and has its agent join.
    pub async fn admit(&self, cluster: u8) {
        let region = if cluster == 3 { "north" } else { "south" };
        let locality = json!({ "region": region, "zone": format!("{region}-a") });
        let body = json!({ "name": format!("cluster-{cluster}"), "locality": locality });
        let make = || async {
            match self.api.try_post("/organizations/acme/clusters", &body).await {
                // made by the call before, whose answer was lost
                Err(error) if error.starts_with("409") => Ok(()),
                made => made.map(drop),
            }
        };
        until_ok("the cluster is made", SOON, make).await;
        self.join(cluster).await;
    }

    /// Has the agent of a cluster join, as its operator would: the first time, or again while it runs.
    pub async fn join(&self, cluster: u8) {
        let (name, data) = (format!("cluster-{cluster}"), self.site.home(cluster).join("agent"));
        let mut api = self.api.clone();
        if let Some(wire) = self.wires.get(&format!("controller-{cluster}")) {
            api.url = format!("https://{}", wire.address());
        }
        let once = || async {
            let token = self.api.try_join_token(&name).await?;
            let joined = join(&api, &name, &data, &token).await;
            if joined.status.success() { Ok(()) } else { Err(format!("{joined:?}")) }
        };
        until_ok("the cluster joins", SOON, once).await;
    }

    /// Removes a cluster.
    pub async fn revoke(&self, cluster: u8) {
        let path = format!("/organizations/acme/clusters/cluster-{cluster}");
        until_ok("the cluster is removed", SOON, || self.api.remove(&path)).await;
    }

    /// The clusters that a gateway knows as peers.
    pub async fn peers(&self, gateway: &str) -> BTreeSet<String> {
        let state = self.state(gateway).await;
        state["peers"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }
}
