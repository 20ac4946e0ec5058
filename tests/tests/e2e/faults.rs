//! Traffic while parts of Tombolo are away. The order matters: nothing starts the controller again.

use crate::{SOON, world::World};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_testkit::wait::{until, until_ok};

pub(crate) async fn egress_restarted(world: &mut World) {
    world.egress.kill();
    world.restart_egress().await;
    until_ok("the new egress gateway carries", SOON, || world.greeted()).await;
}

pub(crate) async fn egress_drained(world: &mut World) {
    let mut open = world.connect("echo").await;
    // The proxy accepts before the path is there; the first byte back says that it is.
    open.write_all(b"!").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    world.egress.signal(Signal::SIGTERM);
    let log = || async { world.egress.stderr() };
    until("the gateway drains", SOON, log, |log| log.contains("draining")).await;
    for _ in 0..3 {
        open.write_all(b"!").await.unwrap();
        assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    }
    assert!(world.egress.status().is_none(), "it waits for what is under way");
    open.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, open.read_to_end(&mut rest)).await.expect("an end").unwrap();
    assert!(rest.is_empty());
    let status = world.egress.wait(SOON).await;
    assert!(status.success(), "{status}");
    assert!(!world.egress.stderr().contains("were cut"), "the connection ended by itself");
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
