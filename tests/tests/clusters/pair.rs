//! Two clusters that have joined and have all installed, a pod in each that calls `catalog`, and servers of it where they are asked for.

use crate::{
    lab::{Cluster, Lab},
    onboard::{SHOP, run, who},
    world::{SOON, World},
};
use tombolo_testkit::wait::until_ok;

pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) lab: Lab,
}

impl Pair {
    /// With so many servers in the one and the other.
    pub(crate) async fn up(servers: [usize; 2]) -> Self {
        let lab = Lab::up(2).await;
        let world = World::start().await;
        let gns = ["gns", "create", "acme", "--domain", "acme.example.com", "--namespace", SHOP];
        world.tombolo(&gns).await.expect("a global namespace");
        let pair = Self { world, lab };
        let [one, other] = pair.clusters();
        tokio::join!(pair.onboard(one, servers[0]), pair.onboard(other, servers[1]));
        for cluster in [one, other] {
            until_ok("calls are answered", SOON, || who(cluster)).await;
        }
        pair
    }

    async fn onboard(&self, cluster: &Cluster, servers: usize) {
        let kubeconfig = cluster.kubeconfig.display().to_string();
        let join = ["cluster", "join", &cluster.name, "--kubeconfig", &kubeconfig];
        if let Err(error) = self.world.tombolo(&join).await {
            let ours = ["-n", "tombolo-system"];
            let pods = cluster.kubectl(&[&ours[..], &["describe", "pods"]].concat()).await;
            let logs =
                cluster.kubectl(&[&ours[..], &["logs", "deploy/tombolo-agent", "--tail=50"]].concat()).await;
            panic!("{error}\n{}\n{}", pods.unwrap_or_else(|e| e), logs.unwrap_or_else(|e| e));
        }
        let install = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
        let (installed, ()) = tokio::join!(self.world.tombolo(&install), run(cluster, servers));
        installed.expect("it is installed");
    }

    pub(crate) fn clusters(&self) -> [&Cluster; 2] {
        let [one, other] = self.lab.clusters.as_slice() else { panic!("two clusters") };
        [one, other]
    }

    /// All is taken out again.
    pub(crate) async fn down(self) {
        let gone = async |cluster: &Cluster| {
            let kubeconfig = cluster.kubeconfig.display().to_string();
            let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
            let delete = ["delete", "namespace", SHOP, "--ignore-not-found", "--timeout=180s"];
            let (out, deleted) = tokio::join!(self.world.tombolo(&uninstall), cluster.kubectl(&delete));
            out.expect("it is taken out");
            deleted.expect("the application goes");
        };
        let [one, other] = self.clusters();
        tokio::join!(gone(one), gone(other));
    }
}
