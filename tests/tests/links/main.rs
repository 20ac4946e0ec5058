//! What is between the programs, and what is under them, fails under load: links that are cut (both ways, or one), slow, or open at one end only;
//! disks that are full, and damaged files on them. In a network and with mounts of the test's own; needs root, iproute2 and nftables.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod agents;
mod control;
mod cut;
mod disks;
mod gateways;
#[expect(dead_code, reason = "what a long run needs of it")]
#[path = "../chaos/load.rs"]
mod load;
mod look;
mod slow;
mod vanished;

use load::Load;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::time::Duration;
use tombolo_testkit::netlab::Lab;
use tombolo_tests::{
    faults,
    loopback::{Lives, Setup, Shape, World},
};

/// With the link, what goes over it is whole again within this time; it is printed what it took.
const WHOLE_AGAIN: Duration = Duration::from_secs(2);

/// One test alone: whatever starts a program first in this process decides in which network all of them are.
#[test]
fn what_still_connects_never_stops() {
    let mut lab = Lab::new();
    let network = lab.namespace("links");
    network.enter(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(all());
    });
}

async fn all() {
    let setup = Setup { shape: Shape::Twins, lives: Lives::Usual, wires: true, old: None };
    let mut world = World::set_up(setup).await;
    let load = Load::start(&world).await;
    faults! { &mut world, &load;
        control::clusters_are_cut_off_from_the_controller,
        agents::gateways_are_cut_off_from_their_agents,
        gateways::a_cluster_is_cut_off_from_another_one,
        slow::the_way_to_the_controller_is_slow,
        slow::the_way_to_the_agents_is_slow,
        slow::the_way_between_clusters_is_slow,
        slow::the_way_between_clusters_is_too_slow,
        vanished::a_gateway_is_gone_and_nothing_says_so,
        vanished::an_agent_is_gone_and_nothing_says_so,
        vanished::the_controller_is_gone_and_nothing_says_so,
        disks::the_disks_of_clusters_are_full,
        disks::what_agents_kept_is_damaged,
        disks::what_gateways_kept_is_damaged,
    }
    load.stop().await;
    let refused = world.refused("cluster-1/sidecar-access.log");
    eprintln!("  refused by the caller's sidecar, all in all: {refused:?}");
}
