//! Makes tunnels: the connection, both handshakes, and what a peer may be.

use super::{
    State, Tunnel, client_builder,
    drive::{Looks, Watch, drive},
};
use crate::{
    accesslog::Tls,
    budget::Budget,
    config::{Limits, Timing},
    conns::{Conns, Kind},
    error::Refusal,
    heard::{LastHeard, Listening},
    reach::Reach,
    reason::Reason,
    socket,
};
use bytes::Bytes;
use ipnet::IpNet;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};
use tokio::time::timeout;
use tombolo_model::GatewayRole;
use tombolo_mtls::{BundleStore, Wire, key_of};
use tombolo_runtime::task;

/// What dialling needs besides an address.
#[derive(Clone)]
pub struct Dialer {
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
    /// The registry, so that a revoked peer's tunnel ends.
    pub conns: Conns,
    /// Whom to believe.
    pub bundle: BundleStore,
    /// Whether gateways of other clusters are dialled on this machine.
    pub loopback: bool,
    /// Where they are never dialled: this cluster's own addresses.
    pub never: Arc<[IpNet]>,
    /// How much may wait here.
    pub budget: Budget,
}

/// A tunnel that is to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `host:port`.
    pub address: Arc<str>,
    /// Whose word that is.
    pub reach: Reach,
    /// Which identity is shown, and which is expected.
    pub config: Arc<ClientConfig>,
    /// When the one that is shown ends.
    pub not_after: Option<SystemTime>,
    /// How the tunnel is looked after.
    pub watch: Watch,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// What is dialled to reach a gateway of this role: ingress gateways are other clusters'.
    #[must_use]
    pub fn reach(&self, role: GatewayRole) -> Reach {
        match role {
            GatewayRole::Ingress => Reach::Peer { loopback: self.loopback, never: self.never.clone() },
            GatewayRole::Egress | GatewayRole::Sidecar | GatewayRole::Node => Reach::Own,
        }
    }

    /// How tunnels to gateways of this role are looked after.
    #[must_use]
    pub fn watch(role: GatewayRole) -> Watch {
        match role {
            GatewayRole::Ingress => Watch::Tunnel,
            GatewayRole::Egress | GatewayRole::Sidecar | GatewayRole::Node => Watch::Address,
        }
    }

    /// Opens a tunnel.
    ///
    /// # Errors
    /// [`Reason::PeerUnreachable`], [`Reason::WrongIdentity`] or [`Reason::Revoked`], within [`Timing::dial`].
    pub async fn dial(&self, wanted: Wanted) -> Result<Arc<Tunnel>, Refusal> {
        let address = wanted.address.clone();
        match timeout(self.timing.dial, self.try_dial(wanted)).await {
            Ok(result) => result,
            Err(_) => {
                let detail = format!("{address}: no handshake within {:?}", self.timing.dial);
                Err(Refusal::new(Reason::PeerUnreachable, detail))
            }
        }
    }

    async fn try_dial(&self, wanted: Wanted) -> Result<Arc<Tunnel>, Refusal> {
        let Wanted { address, reach, config, not_after, watch } = wanted;
        let unreachable =
            |error: &dyn fmt::Display| Refusal::new(Reason::PeerUnreachable, format!("{address}: {error}"));
        let tcp = reach.connect(&address).await.map_err(|error| unreachable(&error))?;
        socket::prepare(&tcp);
        let backlog = socket::Backlog::of(&tcp);
        let heard = LastHeard::now();
        let name = server_name(&address);
        // Below TLS, which has a buffer of its own: what the kernel takes is what counts.
        let io = Listening::new(tcp, Arc::clone(&heard));
        let (tls, peer) = tombolo_mtls::connect(io, config, name)
            .await
            .map_err(|error| Refusal::handshake(&error, &address))?;
        let agreed = Tls::of(tls.get_ref().1);
        let replica = key_of(tls.get_ref().1.peer_certificates());
        let (wire, cork) = Wire::over(tls);
        let windows = self.budget.windows();
        let (send, connection) = client_builder(&self.limits, windows.told())
            .handshake::<_, Bytes>(wire)
            .await
            .map_err(|error| unreachable(&error))?;
        // TLS 1.3 tells a client nothing of its own certificate's fate. The first answer does: wait for the peer's
        // settings, as a ping behind them, before anything relies on the tunnel.
        let ticket = self.conns.admit(Kind::Tunnel, self.conns.number())?;
        ticket.describe(format!("tunnel to {address}"));
        ticket.relies_on(&peer, self.bundle.get().as_deref())?;
        let state = Arc::new(State::new(heard));
        let (up, confirmed) = tokio::sync::oneshot::channel();
        let looks = Looks::new(self.timing, watch, backlog);
        task::spawn_bare(drive((connection, cork), state.clone(), ticket, looks, windows, up));
        match confirmed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refused_late(&address, error)),
            Err(_) => return Err(unreachable(&"the connection ended at once")),
        }
        let queue = self.limits.send_buffer;
        Ok(Arc::new(Tunnel { send, state, peer, not_after, tls: agreed, address, replica, queue }))
    }
}

/// The connection broke right after the handshake: mostly the peer refusing this side's certificate.
fn refused_late(address: &str, error: h2::Error) -> Refusal {
    if error.is_io()
        && let Some(error) = error.into_io()
    {
        let broken = tombolo_mtls::HandshakeError::of(error);
        return Refusal::handshake(&broken, address);
    }
    Refusal::new(Reason::PeerUnreachable, format!("{address}: the peer ended the tunnel at once"))
}

pub(crate) fn server_name(address: &str) -> ServerName<'static> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // It decides nothing (the identity does), so what is no name may be replaced.
    match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into())),
    }
}
