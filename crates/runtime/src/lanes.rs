//! Threads with a runtime each. What belongs together (a connection, and the tunnel that carries it) runs on one of them, so that
//! handing over from one to the other wakes no thread, and what many tasks have to say is said together.

use crate::task;
use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// The lane of this thread; the first one where it has none.
#[must_use]
pub fn here() -> usize {
    HERE.get()
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    load: AtomicUsize,
}

/// All lanes. Clones share them. None: whatever is started runs where it is started.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<[Lane]>);

/// The threads of all lanes but the first.
#[derive(Debug)]
pub struct Threads {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// Something that runs on a lane.
#[derive(Debug)]
pub struct Placed {
    lanes: Lanes,
    at: usize,
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(lane) = self.lanes.0.get(self.at) {
            lane.load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Lanes {
    /// So many, one at least. The first is the runtime that is returned: it is the caller's to drive. The others are threads.
    ///
    /// # Errors
    /// Where the system has no thread, or no descriptor.
    pub fn start(name: &str, count: usize) -> io::Result<(Runtime, Self, Threads)> {
        let one = || Builder::new_current_thread().thread_name(name).enable_all().build();
        let first = one()?;
        let mut lanes = vec![Lane { handle: first.handle().clone(), load: AtomicUsize::new(0) }];
        let mut threads = Threads { stop: CancellationToken::new(), threads: Vec::new() };
        for at in 1..count {
            let runtime = one()?;
            lanes.push(Lane { handle: runtime.handle().clone(), load: AtomicUsize::new(0) });
            let stop = threads.stop.clone();
            let run = move || {
                HERE.set(at);
                runtime.block_on(stop.cancelled());
                runtime.shutdown_background();
            };
            threads.threads.push(std::thread::Builder::new().name(format!("{name}-{at}")).spawn(run)?);
        }
        Ok((first, Self(lanes.into()), threads))
    }

    /// How many there are; one where there is none.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len().max(1)
    }

    /// A place on the lane that has least to do; of equal ones on this one.
    fn place(&self) -> Placed {
        let here = here();
        let load = |at: usize| self.0[at].load.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(|at| (load(*at), *at != here)).unwrap_or(here);
        if let Some(lane) = self.0.get(least) {
            lane.load.fetch_add(1, Ordering::Relaxed);
        }
        Placed { lanes: self.clone(), at: least }
    }

    /// Serves a connection on the lane that has least to do. One that can't be taken there is dropped, and so closed.
    pub fn serve<F>(
        &self,
        stream: tokio::net::TcpStream,
        serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let placed = self.place();
        let lane = self.0.get(placed.at).filter(|_| placed.at != here());
        let Some(lane) = lane else {
            let serving = serve(stream);
            task::spawn_bare(async move {
                let _placed = placed;
                serving.await;
            });
            return;
        };
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection can't be handed over"),
        };
        lane.handle.spawn(async move {
            let _placed = placed;
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection can't be taken over"),
            }
        });
    }
}

impl Threads {
    /// Ends them, whatever still runs there.
    pub fn stop(self) {
        self.stop.cancel();
        for thread in self.threads {
            // one that panicked has said so
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, time::Duration};
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    #[test]
    fn connections_are_shared_out_and_counted() {
        let (first, lanes, threads) = Lanes::start("test", 3).unwrap();
        assert_eq!(lanes.count(), 3);
        let counts = first.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (say, mut said) = mpsc::channel(16);
            let mut ends = Vec::new();
            for _ in 0..9 {
                let (near, far) =
                    tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
                let say = say.clone();
                lanes.serve(far.unwrap().0, move |mut stream| async move {
                    say.send(here()).await.unwrap();
                    // works where it is
                    let _ = stream.read_u8().await;
                });
                ends.push(near.unwrap());
            }
            let mut counts = BTreeMap::new();
            for _ in 0..9 {
                let at = tokio::time::timeout(Duration::from_secs(20), said.recv()).await.unwrap().unwrap();
                *counts.entry(at).or_insert(0) += 1;
            }
            let load = || lanes.0.iter().map(|lane| lane.load.load(Ordering::Relaxed)).sum::<usize>();
            assert_eq!(load(), 9);
            drop(ends);
            let begin = std::time::Instant::now();
            while load() > 0 {
                assert!(begin.elapsed() < Duration::from_secs(20));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            counts
        });
        assert_eq!(counts, [(0, 3), (1, 3), (2, 3)].into());
        threads.stop();
    }

    #[tokio::test]
    async fn without_lanes_all_runs_here() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (say, said) = tokio::sync::oneshot::channel();
        let lanes = Lanes::default();
        lanes.serve(far.unwrap().0, |_stream| async {
            say.send(std::thread::current().id()).unwrap();
        });
        assert_eq!(said.await.unwrap(), std::thread::current().id());
        assert_eq!(lanes.count(), 1);
        drop(near);
    }
}
