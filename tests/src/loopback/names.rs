//! What cluster-1's DNS answers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::net::UdpSocket;

/// A DNS server that is asked.
#[derive(Clone, Copy, Debug)]
pub struct Names(pub SocketAddr);

impl Names {
    /// The first address that is answered for a service.
    ///
    /// # Errors
    /// There is no answer, or none with an address.
    pub async fn resolve(&self, service: &str) -> Result<Ipv4Addr, String> {
        self.ask(&format!("{service}.acme.example.com")).await
    }

    /// The first address that is answered for a name.
    ///
    /// # Errors
    /// There is no answer, or none with an address.
    pub async fn ask(&self, name: &str) -> Result<Ipv4Addr, String> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.0).await.unwrap();
        socket.send(&query).await.map_err(|error| error.to_string())?;
        let mut answer = [0; 1500];
        let received = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
        let len = received.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        // The answer's name is a pointer (2 bytes), then type, class, TTL and length (10 bytes).
        let at = query.len() + 12;
        if answer[7] == 0 || len < at + 4 {
            return Err(format!("{name}: no address: {:02x?}", &answer[..len]));
        }
        Ok(Ipv4Addr::new(answer[at], answer[at + 1], answer[at + 2], answer[at + 3]))
    }
}
