//! A cluster is revoked, and joins again: nothing fails but what was its own.

use crate::{Load, SOON, World, certificates::addresses};
use tokio::time::Instant;
use tombolo_testkit::wait::until;

pub(crate) async fn a_cluster_is_revoked_and_joins_again(world: &mut World, load: &Load) {
    load.whole().await;
    world.all_go_near().await;
    let vips = addresses(world).await;
    assert!(vips.len() > 5, "{vips:?}");
    let mirror = world.resolve("mirror").await.unwrap();
    let begin = Instant::now();
    world.revoke(2).await;
    // What went to it until then was its own. It is told nobody any more, and is not asked.
    for gateway in ["cluster-1-egress", "cluster-1-egress-b"] {
        let peers = || world.peers(gateway);
        until("it is no peer any more", SOON, peers, |peers| !peers.contains("cluster-2")).await;
    }
    let revoked = Instant::now();
    eprintln!("  revoked within {} ms", begin.elapsed().as_millis());
    load.since(begin, revoked).await.no_request_failed(world);
    assert_eq!(world.resolve("mirror").await, Ok(mirror), "cluster-3 serves it, at the same address");

    let begin = Instant::now();
    world.admit(2).await;
    world.all_go_near().await;
    eprintln!("  it answers again {:.1} s after", begin.elapsed().as_secs_f64());
    let again = || addresses(world);
    until("each name has its address", SOON, again, |now| *now == vips).await;
    load.since(begin, begin).await.nothing_noticed(world);
}
