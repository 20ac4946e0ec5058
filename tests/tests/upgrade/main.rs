//! An upgrade of each part one by one, under load: from an older build (`TOMBOLO_OLD_BIN` names the folder of its programs; `make test-upgrade` makes
//! one) to this one, the controller first, and once more with the gateways first. Old works with new all the while.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

#[expect(dead_code, reason = "what a long run needs of it")]
#[path = "../chaos/load.rs"]
mod load;

use load::Load;
use nix::sys::signal::Signal;
use std::{fs, path::PathBuf};
use tokio::{sync::Mutex, time::Instant};
use tombolo_tests::loopback::{Lives, SOON, Setup, Shape, World};

static TURN: Mutex<()> = Mutex::const_new(());

const CONTROLLERS: [&str; 2] = ["controller", "controller-b"];
const AGENTS: [&str; 3] = ["cluster-1-agent", "cluster-2-agent", "cluster-3-agent"];
/// What answers names: nobody asks cluster-2's and cluster-3's.
const NAMES: [&str; 2] = ["cluster-2-dns", "cluster-3-dns"];
/// Of each pair first one, then the other.
const GATEWAYS: [&str; 6] = [
    "cluster-1-egress",
    "cluster-1-egress-b",
    "cluster-2-ingress",
    "cluster-2-ingress-b",
    "cluster-3-ingress",
    "cluster-3-egress",
];
/// Of these there is one alone: what goes through it ends with it.
const SIDECARS: [&str; 3] = ["cluster-3-sidecar", "cluster-2-sidecar", "cluster-1-sidecar"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_first() {
    upgraded(&[&CONTROLLERS[..], &AGENTS, &NAMES, &GATEWAYS, &SIDECARS].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_first() {
    upgraded(&[&SIDECARS[..], &GATEWAYS, &NAMES, &AGENTS, &CONTROLLERS].concat()).await;
}

async fn upgraded(order: &[&str]) {
    // A world takes all that a machine has: one at a time.
    let _turn = TURN.lock().await;
    let old =
        PathBuf::from(std::env::var_os("TOMBOLO_OLD_BIN").expect("TOMBOLO_OLD_BIN (make test-upgrade)"));
    assert!(old.join("tombolo-controller").is_file(), "{} has no programs", old.display());
    let old = old.canonicalize().unwrap();
    let setup = Setup { shape: Shape::Twins, lives: Lives::Usual, wires: false, old: Some(old.clone()) };
    let mut world = World::set_up(setup).await;
    let load = Load::start(&world).await;
    for name in order {
        eprintln!("{name}");
        load.whole().await;
        assert!(executable(&world, name).starts_with(&old), "{name} is of the older build");
        let begin = Instant::now();
        // As a supervisor does it: it is told to end, takes nothing new, and lets go of nothing.
        world.program(name).signal(Signal::SIGTERM);
        if SIDECARS.contains(name) {
            next(&mut world, name).await;
            load.since(begin, Instant::now()).await.no_request_failed(&world);
            continue;
        }
        if GATEWAYS.contains(name) {
            load.since(begin, begin).await.nothing_noticed(&world);
            next(&mut world, name).await;
            continue;
        }
        world.program_mut(name).wait(SOON).await;
        next(&mut world, name).await;
        load.since(begin, begin).await.nothing_noticed(&world);
    }
    for name in order {
        assert!(!executable(&world, name).starts_with(&old), "{name} is not of the older build any more");
    }
    // All is told to all of them still.
    load.whole().await;
    world.all_follow(&[1, 2, 3]).await;
    load.stop().await;
}

/// What runs under a name.
fn executable(world: &World, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", world.program(name).pid())).unwrap()
}

/// The new one in its place. What the old one still carries would keep it for as long as it waits.
async fn next(world: &mut World, name: &str) {
    world.kill(name);
    world.upgrade(name);
    world.restart(name).await;
}
