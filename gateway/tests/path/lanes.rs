//! A data path of several threads, as a gateway's process has it: whichever takes a connection, it gets through, and each dials tunnels of
//! its own.

use crate::world::{World, echo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_runtime::lanes::Lanes;

#[test]
fn connections_get_through_on_all_threads() {
    let (first, lanes, threads) = Lanes::start("lane", 3).unwrap();
    first.block_on(async {
        let mut world = World::with(&["c1", "c2"], move |config| {
            config.lanes = lanes.clone();
            config.limits.pool_spread = 4;
        })
        .await;
        world.app("c2", echo).await;
        world.publish();
        // Open all the while: where there are so many, no thread has all of them.
        let mut kept = Vec::new();
        for number in 0..24_u8 {
            let mut client = world.call("c1").await;
            client.write_all(&[number]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), number);
            kept.push(client);
        }
        let [sidecar, egress] = [&world.sites["c1"].sidecar, &world.sites["c1"].egress];
        assert!((2..=3).contains(&sidecar.shared.pool.len()), "one to the egress gateway from each thread");
        assert!(egress.shared.pool.len() >= 2);
        // More than a read, a record and the room of a stream, both ways at once, beside those.
        let sent: Vec<u8> = (0..3_000_000).map(|at| (at * 7 + at / 251) as u8).collect();
        let asks = asked_at_once(&world, &sent).await;
        assert!(asks.iter().all(|answer| *answer == sent));
        for (number, client) in kept.iter_mut().enumerate() {
            client.write_all(&[number as u8]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, [number as u8]);
        }
    });
    threads.stop();
}

/// What eight connections at once answer to the same.
async fn asked_at_once(world: &World, sent: &[u8]) -> Vec<Vec<u8>> {
    let mut asks = Vec::new();
    for _ in 0..8 {
        let (mut read, mut write) = world.call("c1").await.into_split();
        let sent = sent.to_vec();
        asks.push(tombolo_runtime::task::spawn("asks", async move {
            let write = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut answer = Vec::new();
            let (read, ()) = tokio::join!(read.read_to_end(&mut answer), write);
            read.unwrap();
            answer
        }));
    }
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(ask.await.unwrap());
    }
    answers
}
