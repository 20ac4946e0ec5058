//! Traffic while parts of Tombolo are away. The order matters: nothing starts the controller again.

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_testkit::wait::{until, until_ok};
use tombolo_tests::loopback::{SOON, World};

pub(crate) async fn egress_restarted(world: &mut World) {
    world.kill("cluster-1-egress");
    world.restart("cluster-1-egress").await;
    until_ok("the new egress gateway carries", SOON, || world.greeted()).await;
}

pub(crate) async fn egress_drained(world: &mut World) {
    let mut open = world.connect("echo").await;
    // The proxy accepts before the path is there; the first byte back says that it is.
    open.write_all(b"!").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    world.program("cluster-1-egress").signal(Signal::SIGTERM);
    let log = || async { world.program("cluster-1-egress").stderr() };
    until("the gateway drains", SOON, log, |log| log.contains("draining")).await;
    for _ in 0..3 {
        open.write_all(b"!").await.unwrap();
        assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    }
    assert!(world.program_mut("cluster-1-egress").status().is_none(), "it waits for what is under way");
    open.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, open.read_to_end(&mut rest)).await.expect("an end").unwrap();
    assert!(rest.is_empty());
    let status = world.program_mut("cluster-1-egress").wait(SOON).await;
    assert!(status.success(), "{status}");
    assert!(
        !world.program("cluster-1-egress").stderr().contains("were cut"),
        "the connection ended by itself"
    );
    world.restart("cluster-1-egress").await;
    until_ok("the new egress gateway carries", SOON, || world.greeted()).await;
}

pub(crate) async fn agent_killed(world: &mut World) {
    let mut open = world.connect("echo").await;
    world.kill("cluster-1-agent");
    // Names resolve, and new connections are made.
    for _ in 0..10 {
        world.greeted().await.expect("no agent is needed for a new connection");
    }
    open.write_all(b"!").await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, open.read_u8()).await.expect("an echo").unwrap(), b'!');
    world.restart("cluster-1-agent").await;
    until_ok("the new agent answers, and a connection stands", SOON, || world.greeted()).await;
}

pub(crate) async fn controller_stopped(world: &mut World) {
    let status = world.program_mut("controller").stop(SOON).await;
    assert!(status.success(), "{status}");
    for _ in 0..10 {
        world.greeted().await.expect("no controller is needed for a new connection");
    }
    // Nor by an agent that starts: its last good snapshot is on disk.
    world.kill("cluster-1-agent");
    world.restart("cluster-1-agent").await;
    until_ok("an agent without a controller", SOON, || world.greeted()).await;
}
