//! The controller is killed, something changes in every group meanwhile, and it starts again.

use crate::{parts::SOON, world::World};
use std::time::Instant;
use tombolo_testkit::wait::until;
use tombolo_tests::scale::Restart;

pub(crate) async fn measure(world: &mut World) -> Restart {
    world.site.kill();
    let look = || async { world.agents.iter().filter(|agent| agent.status().connected).count() };
    until("agents that believe to be connected", SOON, look, |left| *left == 0).await;
    for group in 0..world.shape.groups() {
        world.flap(group, group % world.shape.services, 0);
    }
    let began = Instant::now();
    let ready = world.site.again().await;
    println!("restart: ready after {:.1} s", ready.as_secs_f64());
    let look = || async { world.agents.iter().filter(|agent| !agent.status().connected).count() };
    until("agents that are not connected", SOON, look, |left| *left == 0).await;
    let connected = began.elapsed();
    println!("restart: all connected after {:.1} s", connected.as_secs_f64());
    let look = || async { world.changes.open() };
    until("changes that did not come everywhere", SOON, look, |open| *open == 0).await;
    let converged = began.elapsed();
    println!("restart: all have what changed meanwhile after {:.1} s", converged.as_secs_f64());
    world.changes.take();
    Restart { ready, connected, converged }
}
