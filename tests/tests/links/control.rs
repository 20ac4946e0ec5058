//! Between clusters and the controller.

use crate::{
    Load, WHOLE_AGAIN, World,
    cut::{Cut, Lost, cuts},
    look::{addresses, followed, lag_is_shown, news},
};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::SOON;

const WIRES: [&str; 3] = ["controller-1", "controller-2", "controller-3"];
/// Connections that an agent may make when it finds the controller again: one, and what was under way beside it, or took too long on a busy machine.
const FEW: usize = 5;

pub(crate) async fn clusters_are_cut_off_from_the_controller(world: &mut World, load: &Load) {
    for (turn, (lost, time)) in cuts().into_iter().enumerate() {
        load.whole().await;
        let begin = Instant::now();
        let cut = Cut::new(&addresses(world, &WIRES), lost);
        let name = news(world, &format!("control-{turn}")).await;
        for cluster in 1..=3 {
            lag_is_shown(world, cluster).await;
        }
        if lost == Lost::Both && time >= Duration::from_secs(10) {
            let state = || async { world.status(1).await["state"].clone() };
            until("the cut is shown", SOON, state, |state| state == "disconnected").await;
            let own = || async { world.state("cluster-1-agent").await["controller"]["connected"].clone() };
            until("the agent shows it, too", SOON, own, |connected| connected == false).await;
        }
        sleep_until(begin + time).await;
        let before = WIRES.map(|wire| world.wire(wire).opened());
        let healed = Instant::now();
        drop(cut);
        let took = followed(world, &[1, 2, 3], &name, healed).await;
        let opened: Vec<usize> =
            WIRES.iter().zip(before).map(|(wire, before)| world.wire(wire).opened() - before).collect();
        eprintln!("  {lost:?}, {time:?}: connections made: {opened:?}");
        assert!(opened.iter().all(|opened| *opened <= FEW), "{opened:?}");
        assert!(took < WHOLE_AGAIN, "{lost:?}, {time:?}: {took:?}");
        load.since(begin, begin).await.nothing_noticed(world);
    }
}
