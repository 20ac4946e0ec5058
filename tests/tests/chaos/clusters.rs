//! All that a cluster has of something, while another one serves the name.

use crate::{Load, SOON, World};
use std::cell::Cell;
use tokio::time::Instant;
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::NEAR;

const WHOLE: [&str; 5] =
    ["cluster-2-agent", "cluster-2-dns", "cluster-2-ingress", "cluster-2-ingress-b", "cluster-2-sidecar"];

/// Until requests go to the cluster that is to be hit: after its return, they come back slowly.
pub(crate) async fn all_go_near(world: &World) {
    let row = Cell::new(0);
    let look = || async {
        row.set(if world.greeting().await == Ok(NEAR) { row.get() + 1 } else { 0 });
        row.get()
    };
    until("requests go to cluster-2", SOON, look, |row| *row >= 5).await;
}

async fn killed(world: &mut World, load: &Load, names: &[&str]) {
    load.whole().await;
    all_go_near(world).await;
    let begin = Instant::now();
    for name in names {
        world.kill(name);
    }
    load.since(begin, Instant::now()).await.no_request_failed(world);
    for name in names {
        world.restart(name).await;
    }
    load.whole().await;
}

pub(crate) async fn the_servers_sidecar_is_killed(world: &mut World, load: &Load) {
    killed(world, load, &["cluster-2-sidecar"]).await;
}

pub(crate) async fn all_ingress_gateways_are_killed(world: &mut World, load: &Load) {
    killed(world, load, &["cluster-2-ingress", "cluster-2-ingress-b"]).await;
}

pub(crate) async fn a_whole_cluster_is_killed(world: &mut World, load: &Load) {
    killed(world, load, &WHOLE).await;
}
