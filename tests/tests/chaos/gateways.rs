//! One gateway of two. What it carried when it was killed is cut, as the process that held the bytes is gone; nothing that begins afterwards fails.

use crate::{Load, World};
use nix::sys::signal::Signal;
use std::time::Duration;
use tokio::time::Instant;

/// What answers no more is used no more after so long.
const OUT: Duration = Duration::from_secs(1);

/// Waits until only so many addresses of cluster-2 are in rotation: of two gateways, at each of two others.
pub(crate) async fn out_of_rotation(world: &World, left: usize, fault: Instant) {
    world.until_in_rotation("cluster-2", left).await;
    let took = fault.elapsed();
    eprintln!("  out of rotation after {} ms", took.as_millis());
    assert!(took < OUT, "out of rotation only after {took:?}");
}

async fn killed(world: &mut World, load: &Load, name: &str) {
    load.whole().await;
    world.until_in_rotation("cluster-2", 4).await;
    let begin = Instant::now();
    world.kill(name);
    let fault = Instant::now();
    if name.starts_with("cluster-2") {
        out_of_rotation(world, 2, fault).await;
    }
    load.since(begin, fault).await.no_request_failed(world);
    let back = Instant::now();
    world.restart(name).await;
    load.since(back, back).await.nothing_noticed(world);
}

pub(crate) async fn an_egress_gateway_is_killed(world: &mut World, load: &Load) {
    for name in ["cluster-1-egress", "cluster-1-egress-b"] {
        killed(world, load, name).await;
    }
}

pub(crate) async fn an_ingress_gateway_is_killed(world: &mut World, load: &Load) {
    for name in ["cluster-2-ingress", "cluster-2-ingress-b"] {
        killed(world, load, name).await;
    }
}

/// Told to end, it takes nothing new and lets go of nothing that is under way: it waits for the long-lived ones.
async fn drains(world: &mut World, load: &Load, name: &str) {
    load.whole().await;
    let begin = Instant::now();
    world.program(name).signal(Signal::SIGTERM);
    load.since(begin, begin).await.nothing_noticed(world);
    // The long-lived connections would keep it for as long as it waits.
    world.kill(name);
    world.restart(name).await;
    load.whole().await;
}

pub(crate) async fn an_egress_gateway_drains(world: &mut World, load: &Load) {
    drains(world, load, "cluster-1-egress").await;
}

pub(crate) async fn an_ingress_gateway_drains(world: &mut World, load: &Load) {
    drains(world, load, "cluster-2-ingress").await;
}

/// Its sockets are open and nobody is there.
async fn hangs(world: &mut World, load: &Load, name: &str) {
    load.whole().await;
    world.until_in_rotation("cluster-2", 4).await;
    let begin = Instant::now();
    world.program(name).signal(Signal::SIGSTOP);
    let fault = Instant::now();
    if name.starts_with("cluster-2") {
        out_of_rotation(world, 2, fault).await;
    }
    load.since(begin, fault).await.no_request_failed(world);
    world.program(name).signal(Signal::SIGCONT);
    load.whole().await;
    assert!(world.program_mut(name).status().is_none(), "{name} ended where it should run on");
}

pub(crate) async fn an_egress_gateway_hangs(world: &mut World, load: &Load) {
    hangs(world, load, "cluster-1-egress").await;
}

pub(crate) async fn an_ingress_gateway_hangs(world: &mut World, load: &Load) {
    hangs(world, load, "cluster-2-ingress").await;
}
