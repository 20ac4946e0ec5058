//! Half-open connections: one end is gone, without a word that reaches the other.

use crate::{
    Load, WHOLE_AGAIN, World,
    cut::{Cut, Lost},
    gateways::LATE,
    look::{addresses, followed, lag_is_shown, news},
};
use tokio::time::{Instant, sleep};
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::SOON;

/// Of two. Nobody resets its tunnels: they fall silent.
pub(crate) async fn a_gateway_is_gone_and_nothing_says_so(world: &mut World, load: &Load) {
    load.whole().await;
    world.all_go_near().await;
    let begin = Instant::now();
    let cut = Cut::new(&addresses(world, &["ingress-2"]), Lost::Both);
    world.kill("cluster-2-ingress");
    load.since(begin, Instant::now()).await.no_request_failed(world);
    world.restart("cluster-2-ingress").await;
    drop(cut);
    let healed = Instant::now();
    until("it is in use again", SOON, || world.health("cluster-2"), |health| health != "dead").await;
    let took = healed.elapsed();
    eprintln!("  in use {took:?} after");
    assert!(took < WHOLE_AGAIN, "{took:?}");
    sleep(LATE).await;
}

/// The controller's end of its feed stays open; another agent comes beside it.
pub(crate) async fn an_agent_is_gone_and_nothing_says_so(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    let cut = Cut::new(&addresses(world, &["controller-1"]), Lost::Both);
    world.kill("cluster-1-agent");
    let name = news(world, "agent-vanished").await;
    lag_is_shown(world, 1).await;
    world.restart("cluster-1-agent").await;
    drop(cut);
    let took = followed(world, &[1], &name, Instant::now()).await;
    assert!(took < WHOLE_AGAIN, "{took:?}");
    load.since(begin, begin).await.nothing_noticed(world);
}

/// The agents' ends stay open, until they miss its word.
pub(crate) async fn the_controller_is_gone_and_nothing_says_so(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    let wires = ["controller-1", "controller-2", "controller-3"];
    let cut = Cut::new(&addresses(world, &wires), Lost::Both);
    world.kill("controller");
    world.kill("controller-b");
    let own = || async { world.state("cluster-1-agent").await["controller"]["connected"].clone() };
    until("the agent misses it", SOON, own, |connected| connected == false).await;
    world.restart("controller").await;
    world.restart("controller-b").await;
    drop(cut);
    let healed = Instant::now();
    let name = news(world, "controller-vanished").await;
    let took = followed(world, &[1, 2, 3], &name, healed).await;
    assert!(took < WHOLE_AGAIN, "{took:?}");
    load.since(begin, begin).await.nothing_noticed(world);
}
