//! Faults under load: three clusters with two of each part that may be doubled; new connections and long-lived ones go through every fault, every
//! byte is compared, and what fails is counted by reason. One world, the faults one after the other, each ending with everything whole again.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

mod certificates;
mod clocks;
mod clusters;
mod control;
mod gateways;
mod joined;
mod kills;
mod load;
mod soak;
mod writers;

use load::Load;
use tokio::sync::Mutex;
use tombolo_tests::{
    faults,
    loopback::{Lives, SOON, Shape, World},
};

/// A world takes all that a machine has, and which addresses are free is seen by looking: one at a time.
static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_fails_alone_costs_a_request() {
    let _turn = TURN.lock().await;
    let mut world = World::start(Shape::Twins).await;
    let load = Load::start(&world).await;
    faults! { &mut world, &load;
        control::a_replica_of_the_controller_is_killed,
        control::both_replicas_are_killed,
        control::postgres_is_killed,
        control::an_agent_is_killed,
        control::an_agent_starts_without_a_controller,
        kills::many_are_killed_at_random,
        gateways::an_egress_gateway_is_killed,
        gateways::an_ingress_gateway_is_killed,
        gateways::an_egress_gateway_drains,
        gateways::an_ingress_gateway_drains,
        gateways::an_egress_gateway_hangs,
        gateways::an_ingress_gateway_hangs,
        clusters::the_servers_sidecar_is_killed,
        clusters::all_ingress_gateways_are_killed,
        clusters::a_whole_cluster_is_killed,
        joined::a_cluster_is_revoked_and_joins_again,
        clocks::an_agents_clock_is_off,
        clocks::a_gateways_clock_is_off,
        clocks::the_controllers_clocks_are_off,
    }
    load.stop().await;
    eprintln!(
        "  refused by the caller's sidecar, all in all: {:?}",
        world.refused("cluster-1/sidecar-access.log")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_certificates_end() {
    let _turn = TURN.lock().await;
    let mut world = World::start_with(Shape::Twins, Lives::Short).await;
    let load = Load::start(&world).await;
    faults! { &mut world, &load;
        certificates::the_controller_is_away_for_the_life_of_a_certificate,
        certificates::the_root_is_rotated,
    }
    load.stop().await;
}
