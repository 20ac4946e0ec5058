//! Between the gateways of two clusters, while a third one serves the name, too.

use crate::{
    Load, WHOLE_AGAIN, World,
    cut::{Cut, cuts},
    look::addresses,
};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// All that leads to cluster-2.
pub(crate) const WIRES: [&str; 2] = ["ingress-2", "ingress-b-2"];
/// What is in rotation of it: two addresses, at each of two egress gateways.
pub(crate) const ALL: usize = 4;
/// A cluster that can't be reached is out of rotation within this time; it is printed what it took.
pub(crate) const OUT: Duration = Duration::from_secs(1);
/// A connection that waits for a block gives up in this time, and is of the fault that it waits because of.
pub(crate) const LATE: Duration = Duration::from_secs(11);

pub(crate) async fn a_cluster_is_cut_off_from_another_one(world: &mut World, load: &Load) {
    for (lost, time) in cuts() {
        load.whole().await;
        world.all_go_near().await;
        let begin = Instant::now();
        let cut = Cut::new(&addresses(world, &WIRES), lost);
        let fault = Instant::now();
        world.until_in_rotation("cluster-2", 0).await;
        let out = fault.elapsed();
        sleep_until(begin + time).await;
        let healed = Instant::now();
        drop(cut);
        world.until_in_rotation("cluster-2", ALL).await;
        let took = healed.elapsed();
        eprintln!("  {lost:?}, {time:?}: out of rotation after {out:?}; back {took:?} after");
        let report = load.since(begin, fault).await.no_request_failed(world);
        assert!(out < OUT && took < WHOLE_AGAIN, "{lost:?}, {time:?}: {out:?}, {took:?}");
        if time <= Duration::from_secs(2) {
            assert!(report.cut == 0 && report.streams == 0, "{lost:?}: what waits for two seconds goes on");
        } else {
            sleep(LATE).await;
        }
    }
}
