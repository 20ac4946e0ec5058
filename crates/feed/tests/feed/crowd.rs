//! Many receivers lose one sender in the same moment: they find it again soon, and not all at once. Counted at the sender.

use crate::sender::options;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::DuplexStream,
    sync::watch,
    time::{Instant, sleep},
};
use tombolo_feed::{Client, Connector, connect::ConnectError};
use tombolo_model::snapshot::ClusterResource;
use tombolo_runtime::task;

const RECEIVERS: u32 = 500;

/// A way to a sender that is not there until the gate opens. Whoever gets through is counted, and hears nothing.
#[derive(Clone)]
struct Gate {
    open: watch::Receiver<bool>,
    came: Arc<Mutex<Vec<(Instant, DuplexStream)>>>,
    /// Who gets through is let go at once.
    drops: bool,
}

impl Connector for Gate {
    type Io = DuplexStream;
    const SCHEME: &'static str = "http";

    fn authority(&self) -> &str {
        "sender"
    }

    async fn connect(&self) -> Result<DuplexStream, ConnectError> {
        if !*self.open.borrow() {
            let source = std::io::ErrorKind::ConnectionRefused.into();
            return Err(ConnectError::Socket { to: "sender".to_owned(), source });
        }
        let (near, far) = tokio::io::duplex(1 << 16);
        if !self.drops {
            self.came.lock().unwrap().push((Instant::now(), far));
        }
        Ok(near)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_is_back_is_found_within_a_second_and_not_by_all_at_once() {
    let (opener, open) = watch::channel(false);
    let gate = Gate { open, came: Arc::default(), drops: false };
    let tasks: Vec<_> = (0..RECEIVERS)
        .map(|seed| {
            let mut options = options();
            options.seed = Some(seed.into());
            let (client, running) = Client::<ClusterResource>::build(gate.clone(), options);
            (client, task::spawn("feed", running.run()))
        })
        .collect();
    sleep(Duration::from_secs(30)).await;
    let back = Instant::now();
    opener.send_replace(true);
    sleep(Duration::from_millis(1050)).await;
    let came: Vec<u128> = gate.came.lock().unwrap().iter().map(|(at, _)| (*at - back).as_millis()).collect();
    assert_eq!(u32::try_from(came.len()).unwrap(), RECEIVERS, "each of them, and none twice");
    let mut each_moment = [0_u32; 22];
    came.iter().for_each(|ms| each_moment[usize::try_from(ms / 50).unwrap()] += 1);
    // of 50 ms; all of them in one where nothing is left to chance
    let most = each_moment.iter().max().unwrap();
    assert!(*most < RECEIVERS / 6, "{each_moment:?}");
    tasks.iter().for_each(|(_, task)| task.abort());
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_answers_and_lets_go_is_asked_less_and_less_often() {
    let (_opener, open) = watch::channel(true);
    let gate = Gate { open, came: Arc::default(), drops: true };
    let began = Instant::now();
    let (client, running) = Client::<ClusterResource>::build(gate, options());
    let task = task::spawn("feed", running.run());
    let mut status = client.status();
    let failed = |status: &tombolo_feed::Status| status.failures == 8;
    tokio::time::timeout(Duration::from_secs(120), status.wait_for(failed)).await.unwrap().unwrap();
    assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
    task.abort();
}
