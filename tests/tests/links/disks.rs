//! Disks that are full, and files that are not what was written.

use crate::{
    Load, World,
    look::{followed, news, told},
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};
use tokio::time::Instant;
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::SOON;

/// Takes all the room that there is, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn new(disk: &Path) -> Self {
        let path = disk.join("filler");
        let mut file = File::create(&path).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[1; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn agent_keeps(world: &World, agent: &str, keeps: bool) {
    let error = || async { world.state(agent).await["controller"]["cache_error"].clone() };
    until(&format!("{agent} keeps its state: {keeps}"), SOON, error, |error| error.is_null() == keeps).await;
}

/// Nothing can be kept, not by agents, not by gateways; logs neither. All of them start again all the same. New names are answered once there is
/// room: what answers reads what the agent keeps.
pub(crate) async fn the_disks_of_clusters_are_full(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    let fillers = [1, 2].map(|cluster| Filler::new(&world.disk(cluster)));
    let name = news(world, "full").await;
    world.all_follow(&[1, 2]).await;
    told(world, &["cluster-1-egress", "cluster-2-ingress"], &name, begin).await;
    for agent in ["cluster-1-agent", "cluster-2-agent"] {
        agent_keeps(world, agent, false).await;
        world.kill(agent);
        world.restart(agent).await;
    }
    load.since(begin, begin).await.nothing_noticed(world);
    for gateway in ["cluster-1-egress-b", "cluster-2-ingress-b"] {
        let begin = Instant::now();
        world.kill(gateway);
        world.restart(gateway).await;
        load.since(begin, Instant::now()).await.no_request_failed(world);
    }
    load.whole().await;
    let begin = Instant::now();
    drop(fillers);
    let name = news(world, "room-again").await;
    followed(world, &[1, 2], &name, begin).await;
    for agent in ["cluster-1-agent", "cluster-2-agent"] {
        agent_keeps(world, agent, true).await;
    }
    load.since(begin, begin).await.nothing_noticed(world);
}

/// What a disk that lies may give back.
fn damages(path: &Path) -> [Vec<u8>; 3] {
    let good = fs::read(path).unwrap();
    let half = good.get(..good.len() / 2).unwrap_or_default().to_vec();
    let other = String::from_utf8_lossy(&good).replacen("cluster-2", "cluster-9", 1);
    [half, other.into_bytes(), vec![0; good.len()]]
}

/// And no controller is there to ask: gateways and names go on with what they had, whatever the agent lost.
pub(crate) async fn what_agents_kept_is_damaged(world: &mut World, load: &Load) {
    load.whole().await;
    let begin = Instant::now();
    world.kill("controller");
    world.kill("controller-b");
    for cluster in [1, 2] {
        let agent = format!("cluster-{cluster}-agent");
        let kept = world.disk(cluster).join("agent/snapshot.json");
        for damage in damages(&kept) {
            world.kill(&agent);
            fs::write(&kept, damage).unwrap();
            fs::write(kept.with_extension("new"), "{\"format\":1,\"gen").unwrap();
            world.restart(&agent).await;
            agent_keeps(world, &agent, false).await;
        }
    }
    load.since(begin, Instant::now()).await.nothing_noticed(world);
    world.restart("controller").await;
    world.restart("controller-b").await;
    let name = news(world, "whole-again").await;
    followed(world, &[1, 2], &name, begin).await;
    for agent in ["cluster-1-agent", "cluster-2-agent"] {
        agent_keeps(world, agent, true).await;
    }
    load.since(begin, Instant::now()).await.nothing_noticed(world);
}

/// Of one of two: its agent tells it all anew.
pub(crate) async fn what_gateways_kept_is_damaged(world: &mut World, load: &Load) {
    for (cluster, name) in [(1, "egress-b"), (2, "ingress-b")] {
        let gateway = &format!("cluster-{cluster}-{name}");
        let path = world.disk(cluster).join(format!("{name}.cache"));
        for damage in damages(&path) {
            load.whole().await;
            let begin = Instant::now();
            world.kill(gateway);
            fs::write(&path, damage).unwrap();
            world.restart(gateway).await;
            let said = world.program(gateway).stderr();
            assert!(said.contains("the kept state can't be used"), "{said}");
            load.since(begin, Instant::now()).await.no_request_failed(world);
        }
    }
}
