//! Traffic while parts of Tombolo are away. The order matters: nothing starts the controller again.

use crate::{SOON, world::World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_testkit::wait::until_ok;

pub(crate) async fn egress_restarted(world: &mut World) {
    world.egress.kill();
    world.restart_egress().await;
    until_ok("the new egress gateway carries", SOON, || world.greeted()).await;
}

pub(crate) async fn agent_killed(world: &mut World) {
    let mut open = world.connect("echo").await;
    world.agent.kill();
    // Names resolve, and new connections are made.
    for _ in 0..10 {
        world.greeted().await.expect("no agent is needed for a new connection");
    }
    open.write_all(b"!").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    world.restart_agent().await;
    until_ok("the new agent answers, and a connection stands", SOON, || world.greeted()).await;
}

pub(crate) async fn controller_stopped(world: &mut World) {
    let status = world.controller.stop(SOON).await;
    assert!(status.success(), "{status}");
    for _ in 0..10 {
        world.greeted().await.expect("no controller is needed for a new connection");
    }
    // Nor by an agent that starts: its last good snapshot is on disk.
    world.agent.kill();
    world.restart_agent().await;
    until_ok("an agent without a controller", SOON, || world.greeted()).await;
}
