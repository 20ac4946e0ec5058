//! A connection from an address of its own: to the controller, a thousand clusters at one address would be one that knocks too often.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::net::{TcpSocket, TcpStream};
use tombolo_feed::{Connector, TlsConnector, connect::ConnectError};
use tombolo_mtls::connect_pinned;

/// To the controller, from this address of loopback.
#[derive(Clone)]
pub(crate) struct Way {
    source: Ipv4Addr,
    server: SocketAddr,
    authority: String,
    config: Arc<rustls::ClientConfig>,
}

impl Way {
    pub(crate) fn new(source: Ipv4Addr, server: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        Self { source, server, authority: server.to_string(), config }
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Connector for Way {
    type Io = <TlsConnector as Connector>::Io;
    const SCHEME: &'static str = "https";

    fn authority(&self) -> &str {
        &self.authority
    }

    async fn connect(&self) -> Result<Self::Io, ConnectError> {
        let to = || self.authority.clone();
        let stream = self.dial().await.map_err(|source| ConnectError::Socket { to: to(), source })?;
        connect_pinned(stream, Arc::clone(&self.config), self.server.ip().into())
            .await
            .map_err(|source| ConnectError::Handshake { to: to(), source })
    }
}
