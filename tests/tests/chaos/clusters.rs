//! All that a cluster has of something, while another one serves the name.

use crate::{Load, World, gateways::out_of_rotation};
use tokio::time::Instant;

const WHOLE: [&str; 5] =
    ["cluster-2-agent", "cluster-2-dns", "cluster-2-ingress", "cluster-2-ingress-b", "cluster-2-sidecar"];

async fn killed(world: &mut World, load: &Load, names: &[&str]) {
    load.whole().await;
    world.all_go_near().await;
    let begin = Instant::now();
    for name in names {
        world.kill(name);
    }
    let fault = Instant::now();
    if names.contains(&"cluster-2-ingress") {
        out_of_rotation(world, 0, fault).await;
    }
    load.since(begin, fault).await.no_request_failed(world);
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
