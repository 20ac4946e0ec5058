//! Links that are slow: each byte takes its time, and few go at once.

use crate::{
    Load, World,
    gateways::{ALL, OUT, WIRES},
    look::{followed, news, told},
};
use std::time::Duration;
use tokio::time::Instant;
use tombolo_tests::loopback::Flow;

fn slow(ms: u64, rate: u32) -> Flow {
    Flow::Slow { delay: Duration::from_millis(ms), rate }
}

fn set(world: &World, wires: &[&str], flow: Flow) {
    wires.iter().for_each(|wire| world.wire(wire).set(flow, flow));
}

pub(crate) async fn the_way_to_the_controller_is_slow(world: &mut World, load: &Load) {
    let wires = ["controller-1", "controller-2", "controller-3"];
    load.whole().await;
    let begin = Instant::now();
    set(world, &wires, slow(300, 32 << 10));
    let name = news(world, "slow-control").await;
    let took = followed(world, &[1, 2, 3], &name, begin).await;
    eprintln!("  300 ms there, as much back, 32 KiB/s: news are known after {took:?}");
    load.since(begin, begin).await.nothing_noticed(world);
    set(world, &wires, Flow::Open);
}

pub(crate) async fn the_way_to_the_agents_is_slow(world: &mut World, load: &Load) {
    let wires = ["agent-1", "agent-2"];
    load.whole().await;
    let begin = Instant::now();
    set(world, &wires, slow(300, 32 << 10));
    let name = news(world, "slow-agents").await;
    let took = told(world, &["cluster-1-egress", "cluster-2-ingress"], &name, begin).await;
    eprintln!("  300 ms there, as much back, 32 KiB/s: news are known after {took:?}");
    load.since(begin, begin).await.nothing_noticed(world);
    set(world, &wires, Flow::Open);
}

/// Far, and narrow: it stays in use.
pub(crate) async fn the_way_between_clusters_is_slow(world: &mut World, load: &Load) {
    load.whole().await;
    world.all_go_near().await;
    let begin = Instant::now();
    set(world, &WIRES, slow(40, 4 << 20));
    load.since(begin, begin).await.nothing_noticed(world);
    world.until_in_rotation("cluster-2", ALL).await;
    set(world, &WIRES, Flow::Open);
}

/// What answers no ping in half a second is as good as dead, where another cluster serves; what it carries goes on.
pub(crate) async fn the_way_between_clusters_is_too_slow(world: &mut World, load: &Load) {
    load.whole().await;
    world.all_go_near().await;
    let begin = Instant::now();
    set(world, &WIRES, slow(400, 1 << 20));
    let fault = Instant::now();
    world.until_in_rotation("cluster-2", 0).await;
    let out = fault.elapsed();
    eprintln!("  800 ms there and back: out of rotation after {out:?}");
    let report = load.since(begin, fault).await.no_request_failed(world);
    assert_eq!((report.cut, report.streams), (0, 0), "what is slow still arrives");
    assert!(out < OUT, "{out:?}");
    set(world, &WIRES, Flow::Open);
    world.until_in_rotation("cluster-2", ALL).await;
}
