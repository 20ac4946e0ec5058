//! A service in two clusters, and the nearer one loses its ingress gateway under requests.

use std::time::Instant;
use tombolo_testkit::wait::until;
use tombolo_tests::loopback::{FAR, NEAR, SOON, World};

async fn becomes(world: &World, cluster: &str, health: &str) {
    let what = format!("{cluster} becomes {health}");
    until(&what, SOON, || world.health(cluster), |now| now == health).await;
}

/// Request after request goes to the cluster in the same zone. On a machine so busy that it takes a quarter second to answer, the other one is
/// asked too, and may win: then it is counted anew.
async fn all_go_near(world: &World) {
    let begin = Instant::now();
    let mut row = 0;
    while row < 15 {
        row = match world.greeting().await.expect("no request fails") {
            NEAR => row + 1,
            _ => 0,
        };
        assert!(begin.elapsed() < SOON, "{row} in a row went to the cluster in the same zone");
    }
}

pub(crate) async fn the_nearer_cluster_dies_and_returns(world: &mut World) {
    becomes(world, "cluster-2", "healthy").await;
    becomes(world, "cluster-3", "healthy").await;
    all_go_near(world).await;

    world.kill("cluster-2-ingress");
    // Request after request, from the very moment on; none may fail.
    let begin = Instant::now();
    let mut asked = 0;
    loop {
        assert_eq!(world.greeting().await.expect("no request fails"), FAR);
        asked += 1;
        if world.health("cluster-2").await == "dead" {
            break;
        }
        assert!(begin.elapsed() < SOON, "the dead gateway is still in rotation");
    }
    // The bound of it, one second, is in `health::prober`'s own test: with a clock that no busy machine moves.
    eprintln!("  out of rotation after {:?}, in which {asked} requests went well", begin.elapsed());
    for _ in 0..5 {
        assert_eq!(world.greeting().await.expect("no request fails"), FAR);
    }

    world.restart("cluster-2-ingress").await;
    becomes(world, "cluster-2", "slow_start").await;
    let (mut near, mut far) = (0, 0);
    while world.health("cluster-2").await == "slow_start" {
        match world.greeting().await.expect("no request fails") {
            NEAR => near += 1,
            _ => far += 1,
        }
        assert!(begin.elapsed() < SOON * 2, "the slow start does not end");
    }
    eprintln!("  slow start: {near} requests near, {far} far");
    assert!(near > 0 && far > 0, "a growing share, not all at once");
    assert_eq!(world.health("cluster-2").await, "healthy");
    all_go_near(world).await;
}
