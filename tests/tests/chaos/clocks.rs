//! Clocks that are ten minutes off: what one program signs or shows, others believe all the same.

use crate::{Load, World};
use tokio::time::Instant;

/// Starts a program anew, with its clock off by so much. Connections through it are cut; nothing else fails.
async fn starts(world: &mut World, load: &Load, name: &str, off: Option<&'static str>) {
    load.whole().await;
    let begin = Instant::now();
    world.kill(name);
    world.set_clock(name, off);
    world.restart(name).await;
    load.since(begin, Instant::now()).await.no_request_failed(world);
}

const ALL: [u8; 3] = [1, 2, 3];
const AGENTS: [&str; 2] = ["cluster-1-agent", "cluster-2-agent"];
const GATEWAYS: [[&str; 2]; 2] =
    [["cluster-1-egress", "cluster-1-egress-b"], ["cluster-2-ingress", "cluster-2-ingress-b"]];
/// Callers and servers are off in opposite directions, one way and the other.
const OFF: [[&str; 2]; 2] = [["+10m", "-10m"], ["-10m", "+10m"]];

/// The agent signs for all of its cluster; so both gateways get new certificates of it.
pub(crate) async fn an_agents_clock_is_off(world: &mut World, load: &Load) {
    for offs in OFF {
        for ((agent, off), gateways) in AGENTS.into_iter().zip(offs).zip(GATEWAYS) {
            starts(world, load, agent, Some(off)).await;
            for gateway in gateways {
                starts(world, load, gateway, None).await;
            }
        }
        world.all_follow(&ALL).await;
        world.all_go_near().await;
    }
    for agent in AGENTS {
        starts(world, load, agent, None).await;
    }
}

/// What others signed is as good to it as to everybody else.
pub(crate) async fn a_gateways_clock_is_off(world: &mut World, load: &Load) {
    for offs in OFF.map(|offs| offs.map(Some)).into_iter().chain([[None; 2]]) {
        for (off, gateways) in offs.into_iter().zip(GATEWAYS) {
            for gateway in gateways {
                starts(world, load, gateway, off).await;
            }
        }
        world.all_go_near().await;
    }
}

/// Of two replicas one is ahead and one behind; a cluster joins again, with what they sign.
pub(crate) async fn the_controllers_clocks_are_off(world: &mut World, load: &Load) {
    starts(world, load, "controller", Some("+10m")).await;
    starts(world, load, "controller-b", Some("-10m")).await;
    world.all_follow(&ALL).await;
    crate::joined::a_cluster_is_revoked_and_joins_again(world, load).await;
    world.all_follow(&ALL).await;
    for name in ["controller", "controller-b"] {
        starts(world, load, name, None).await;
    }
    world.all_follow(&ALL).await;
}
