//! Two clusters that have joined and have all installed, a pod in each that calls `catalog`, and servers of it where they are asked for.
//!
//! To join and to install takes a minute, so a test that leaves the pair as it found it parks it for the next one. A test that wants clusters
//! without anything in them takes it down first; where none follows, the clusters count as littered.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{
    lab::{Cluster, Lab, Turn, littered, tidied},
    onboard::{SHOP, run, who},
    world::{SOON, World},
};
use std::{sync::Mutex, time::Instant};
use tombolo_testkit::wait::until_ok;

/// The controller of the clusters in which something is installed, while no test has it.
static PARKED: Mutex<Option<World>> = Mutex::new(None);

pub(crate) struct Pair {
    pub(crate) world: World,
    pub(crate) lab: Lab,
    since: Instant,
}

impl Pair {
    /// With so many servers in the one and the other.
    pub(crate) async fn up(servers: [usize; 2]) -> Self {
        let (turn, since) = (Lab::turn().await, Instant::now());
        let pair = if Self::is_parked() {
            let pair = Self::unparked(turn).await;
            let [one, other] = pair.clusters();
            tokio::join!(run(one, servers[0]), run(other, servers[1]));
            tokio::join!(stands(one), stands(other));
            pair
        } else {
            let lab = Lab::up_in(turn, 2).await;
            littered();
            let world = World::start().await;
            let gns = ["gns", "create", "acme", "--domain", "acme.example.com", "--namespace", SHOP];
            world.tombolo(&gns).await.expect("a global namespace");
            let pair = Self { world, lab, since };
            let [one, other] = pair.clusters();
            tokio::join!(pair.onboard(one, servers[0]), pair.onboard(other, servers[1]));
            pair
        };
        for cluster in pair.clusters() {
            until_ok("calls are answered", SOON, || who(cluster)).await;
        }
        println!("the pair is up after {} s", since.elapsed().as_secs());
        pair
    }

    /// Whether one is parked; only whose turn it is may ask.
    pub(crate) fn is_parked() -> bool {
        PARKED.lock().expect("nobody fails with it").is_some()
    }

    /// The one that is parked.
    pub(crate) async fn unparked(turn: Turn) -> Self {
        let since = Instant::now();
        let world = PARKED.lock().expect("nobody fails with it").take().expect("one is parked");
        // or else they would be made anew
        tidied();
        let lab = Lab::up_in(turn, 2).await;
        littered();
        Self { world, lab, since }
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

    /// Left for the next test: joined, installed, without servers.
    pub(crate) async fn park(self) {
        if !self.lab.is_ours() {
            return self.down().await;
        }
        let clear = async |cluster: &Cluster| {
            let delete = ["-n", SHOP, "delete", "deploy,service", "catalog", "--ignore-not-found"];
            cluster.kubectl(&[&delete[..], &["--timeout=120s"]].concat()).await.expect("the servers go");
        };
        let [one, other] = self.clusters();
        tokio::join!(clear(one), clear(other));
        println!("the pair is parked after {} s", self.since.elapsed().as_secs());
        PARKED.lock().expect("nobody fails with it").replace(self.world);
    }

    /// All is taken out again.
    pub(crate) async fn down(self) {
        let [one, other] = self.clusters();
        tokio::join!(taken_out(&self.world, one), taken_out(&self.world, other));
        tidied();
        println!("the pair is down after {} s", self.since.elapsed().as_secs());
    }
}

/// The agent and the gateways have all their replicas.
async fn stands(cluster: &Cluster) {
    for name in ["tombolo-agent", "tombolo-egress", "tombolo-ingress"] {
        let deployment = format!("deploy/{name}");
        let status = ["-n", "tombolo-system", "rollout", "status", &deployment, "--timeout=180s"];
        cluster.kubectl(&status).await.expect("it stands");
    }
}

async fn taken_out(world: &World, cluster: &Cluster) {
    let kubeconfig = cluster.kubeconfig.display().to_string();
    let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
    let delete = ["delete", "namespace", SHOP, "--ignore-not-found", "--timeout=180s"];
    let (out, deleted) = tokio::join!(world.tombolo(&uninstall), cluster.kubectl(&delete));
    out.expect("it is taken out");
    deleted.expect("the application goes");
}
