//! A TCP load balancer before the controller's replicas: each connection goes to the next one that takes it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io,
    net::{TcpListener, TcpStream},
};
use tombolo_runtime::task;

#[derive(Clone)]
pub(super) struct Balancer {
    pub(super) address: SocketAddr,
    behind: Arc<Mutex<Vec<(String, SocketAddr)>>>,
}

impl Balancer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, behind: Arc::default() };
        let behind = Arc::clone(&this.behind);
        task::spawn("balancer", async move {
            let mut turn = 0_usize;
            while let Ok((stream, _)) = listener.accept().await {
                turn += 1;
                let mut all: Vec<SocketAddr> =
                    behind.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, at)| *at).collect();
                let count = all.len().max(1);
                all.rotate_left(turn % count);
                task::spawn("connection", carry(stream, all));
            }
        });
        this
    }

    /// A replica is there now.
    pub(super) fn set(&self, name: &str, address: SocketAddr) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.retain(|(other, _)| other != name);
        behind.push((name.to_owned(), address));
    }
}

async fn carry(mut stream: TcpStream, all: Vec<SocketAddr>) -> io::Result<()> {
    for address in all {
        if let Ok(mut controller) = TcpStream::connect(address).await {
            return io::copy_bidirectional(&mut stream, &mut controller).await.map(drop);
        }
    }
    Ok(())
}
