//! Capture mode `explicit`: this process binds the addresses of the names itself.
//!
//! Listeners follow the table by difference: what is new is bound at once, what is gone is closed, and connections that
//! are open stay. An address that can't be bound is a problem that is told and tried again; the others go on.

use super::listener::{Accept, Listener};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::Duration,
};
use tokio::sync::watch;

/// How long after a failure an address is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// Addresses that should be bound and are not, with what to do about it.
pub(crate) type Problems = BTreeMap<SocketAddr, String>;

/// The sockets of all names.
pub(super) struct Listeners {
    accept: Accept,
    wanted: BTreeSet<SocketAddr>,
    bound: BTreeMap<SocketAddr, Listener>,
    problems: watch::Sender<Problems>,
}

impl Listeners {
    pub(super) fn new(accept: Accept, problems: watch::Sender<Problems>) -> Self {
        Self { accept, wanted: BTreeSet::new(), bound: BTreeMap::new(), problems }
    }

    /// Binds these addresses, and no others.
    pub(super) async fn follow(&mut self, wanted: BTreeSet<SocketAddr>) {
        let gone: Vec<SocketAddr> = self.bound.keys().filter(|a| !wanted.contains(a)).copied().collect();
        for address in gone {
            if let Some(listener) = self.bound.remove(&address) {
                listener.close().await;
            }
        }
        self.wanted = wanted;
        self.bind_missing();
    }

    /// Tries again what could not be bound. Says whether something is still missing.
    pub(super) fn bind_missing(&mut self) -> bool {
        let mut problems = Problems::new();
        for address in &self.wanted {
            if self.bound.contains_key(address) {
                continue;
            }
            match Listener::bind(*address, self.accept.clone()) {
                Ok(listener) => {
                    self.bound.insert(*address, listener);
                }
                Err(error) => {
                    problems.insert(*address, remedy(&error));
                }
            }
        }
        let missing = !problems.is_empty();
        self.problems.send_if_modified(|before| {
            for (address, problem) in &problems {
                if before.get(address) != Some(problem) {
                    tracing::warn!(%address, problem, "an address of a name can't be captured");
                }
            }
            for address in before.keys().filter(|a| !problems.contains_key(a)) {
                tracing::info!(%address, "an address of a name is captured now, or no longer asked for");
            }
            let changed = *before != problems;
            *before = problems;
            changed
        });
        missing
    }

    /// Whether something is missing.
    pub(super) fn incomplete(&self) -> bool {
        self.bound.len() < self.wanted.len()
    }

    /// Closes every socket. Open connections stay.
    pub(super) async fn close(&mut self) {
        self.follow(BTreeSet::new()).await;
    }
}

fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens here; stop it, or bind it to an address of its own instead of all"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "the address is none of this machine; give the agent an --explicit-prefix inside 127.0.0.0/8"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; give the proxy that capability".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        time::timeout,
    };
    use tombolo_testkit::wait::until;

    const SOON: Duration = Duration::from_secs(10);

    fn listeners() -> (Listeners, mpsc::Receiver<(TcpStream, SocketAddr)>, watch::Receiver<Problems>) {
        let (taken, accepted) = mpsc::channel(16);
        let (problems, seen) = watch::channel(Problems::new());
        let accept: Accept = Arc::new(move |stream, client| taken.try_send((stream, client)).unwrap());
        (Listeners::new(accept, problems), accepted, seen)
    }

    /// Nobody takes connections there any more. A program that another test starts has every socket of this one for an instant.
    async fn closed(address: SocketAddr) {
        let refused = || async move { TcpStream::connect(address).await.is_err() };
        until("nobody listens", SOON, refused, |refused| *refused).await;
    }

    /// All that is wanted is bound, at once but for such an instant.
    async fn bound(listeners: &mut Listeners) {
        let bound = || std::future::ready(!listeners.bind_missing());
        until("all are bound", SOON, bound, |bound| *bound).await;
    }

    /// A free port on an address of loopback that nothing else uses.
    async fn free(ip: &str) -> SocketAddr {
        TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn follow_the_table_without_touching_open_connections() {
        let (mut listeners, mut accepted, problems) = listeners();
        let (one, two) = (free("127.77.0.1").await, free("127.77.0.2").await);
        listeners.follow(BTreeSet::from([one])).await;
        bound(&mut listeners).await;
        let mut client = TcpStream::connect(one).await.unwrap();
        let (mut server, from) = timeout(SOON, accepted.recv()).await.unwrap().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        closed(two).await;

        listeners.follow(BTreeSet::from([two])).await;
        closed(one).await;
        bound(&mut listeners).await;
        let _second = TcpStream::connect(two).await.unwrap();
        server.write_all(b"still here").await.unwrap();
        let mut buffer = [0; 10];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"still here");

        listeners.follow(BTreeSet::from([one, two])).await;
        bound(&mut listeners).await;
        TcpStream::connect(one).await.expect("bound again");
        assert!(problems.borrow().is_empty() && !listeners.incomplete());
    }

    #[tokio::test]
    async fn a_taken_port_is_told_and_tried_again_and_the_others_go_on() {
        let (mut listeners, _accepted, problems) = listeners();
        let holder = TcpListener::bind("127.77.0.3:0").await.unwrap();
        let (taken, other) = (holder.local_addr().unwrap(), free("127.77.0.4").await);
        listeners.follow(BTreeSet::from([taken, other])).await;
        let other = || {
            listeners.bind_missing();
            TcpStream::connect(other)
        };
        until("the other one is bound", SOON, other, Result::is_ok).await.unwrap();
        let problem = problems.borrow().get(&taken).cloned();
        assert!(problem.is_some_and(|text| text.contains("another process")));
        assert!(listeners.incomplete() && listeners.bind_missing());

        drop(holder);
        bound(&mut listeners).await;
        assert!(problems.borrow().is_empty());
        TcpStream::connect(taken).await.expect("bound now");
        listeners.close().await;
        closed(taken).await;
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_a_problem() {
        let (mut listeners, _accepted, problems) = listeners();
        let elsewhere: SocketAddr = "192.0.2.1:80".parse().unwrap();
        listeners.follow(BTreeSet::from([elsewhere])).await;
        assert!(problems.borrow()[&elsewhere].contains("--explicit-prefix"));
    }
}
