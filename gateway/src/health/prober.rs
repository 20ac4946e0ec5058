//! Probes one address: a tunnel of its own, kept, and a ping on it again and again.
//!
//! A tunnel of its own because a ping behind megabytes of an application's bytes measures those.

use super::state::Event;
use crate::{pool::Key, state::Shared, tunnel::ALPN};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tombolo_model::GatewayRole;
use tombolo_mtls::{Expect, client_config};

/// The longest pause between two attempts to reach a dead address.
const LONGEST: Duration = Duration::from_secs(2);

/// An egress gateway that no call went to for so long is asked less often.
const QUIET: Duration = Duration::from_secs(30);

/// Probes until `stop`. `key` says who is expected where.
pub(crate) async fn run(shared: Arc<Shared>, key: Key, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = forever(&shared, &key) => {}
    }
    shared.health_of(key.role).forget(&key.cluster, &key.address);
}

async fn forever(shared: &Shared, key: &Key) {
    let timing = shared.config.timing;
    let mut pause = timing.probe;
    let mut demand = shared.health_of(key.role).demand();
    loop {
        demand.mark_unchanged();
        let mut begin = Instant::now();
        let mut ended = probe(shared, key, timing.dead * 4).await;
        // A tunnel that worked may end for a reason that says nothing of the peer (no stream used it): dial again, and
        // only where that fails, soon, the peer is dead.
        while matches!(ended, Ended::Closed(_)) && begin.elapsed() > timing.dead * 4 {
            begin = Instant::now();
            ended = probe(shared, key, timing.dead).await;
        }
        let error = match ended {
            // What was true of the last handshake need not be of the next one: with other certificates, or after a while.
            Ended::Due => continue,
            Ended::Closed(error) | Ended::Dead(error) => error,
        };
        tell(shared, key, Event::Failed(error));
        // One that worked for a while is tried again at once, for instance after its restart.
        pause = if begin.elapsed() > timing.dead * 4 { timing.probe } else { (pause * 2).min(LONGEST) };
        // Never a storm, also where many connections ask for it.
        sleep(timing.probe.mul_f64(0.1 + rand::random::<f64>() / 10.0)).await;
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
            _ = demand.changed() => {}
        }
    }
}

/// Why a probe's tunnel is no more, for people.
enum Ended {
    /// The connection ended.
    Closed(String),
    /// Nobody answers there, or somebody else does.
    Dead(String),
    /// It is well, and time for another handshake.
    Due,
}

/// Connects, within `patience`, and pings until that fails.
async fn probe(shared: &Shared, key: &Key, patience: Duration) -> Ended {
    match dial_and_ping(shared, key, patience).await {
        Ok(None) => Ended::Due,
        Ok(Some(error)) => Ended::Closed(error),
        Err(error) => Ended::Dead(error),
    }
}

async fn dial_and_ping(shared: &Shared, key: &Key, patience: Duration) -> Result<Option<String>, String> {
    let timing = shared.config.timing;
    // An egress gateway takes tunnels of workloads alone.
    let known = || match key.role {
        GatewayRole::Egress => shared.credentials.any(),
        GatewayRole::Ingress | GatewayRole::Sidecar => shared.credentials.own(),
    };
    let credentials = loop {
        match known() {
            Some(credentials) => break credentials,
            None => sleep(timing.probe).await,
        }
    };
    credentials.wait_ready().await;
    let mut rotated = credentials.subscribe();
    rotated.mark_unchanged();
    let expect = Expect::Gateway { cluster: Some(key.cluster.clone()), role: key.role };
    let config = client_config(&shared.bundle, &credentials, expect, &[ALPN]);
    let dial = async {
        let reach = shared.pool.dialer().reach(key.role);
        let tcp = reach.connect(&key.address).await.map_err(|error| error.to_string())?;
        crate::socket::prepare(&tcp);
        let name = crate::tunnel::server_name(&key.address);
        let (tls, peer) = tombolo_mtls::connect(tcp, config, name)
            .await
            .map_err(|error| tombolo_runtime::telemetry::chain(&error))?;
        let (send, connection) = crate::tunnel::client_builder(&shared.config.limits)
            .handshake::<_, bytes::Bytes>(tls)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((send, connection, peer))
    };
    // The first handshake of a far peer needs three round trips; it gets longer than a ping. The own gateways are near.
    let patience = if key.role == GatewayRole::Egress { timing.dead } else { patience };
    let (_send, mut connection, peer) = match timeout(patience, dial).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(format!("no handshake within {patience:?}")),
    };
    let ticket = shared
        .conns
        .admit(crate::conns::Kind::Tunnel, shared.conns.number())
        .map_err(|refusal| refusal.to_string())?;
    ticket.relies_on(&peer, shared.bundle.get().as_deref()).map_err(|refusal| refusal.to_string())?;
    let Some(mut pings) = connection.ping_pong() else { return Err("no pings".to_owned()) };
    let mut calls = shared.calls();
    let pinging = async {
        loop {
            let begin = Instant::now();
            match timeout(timing.dead, pings.ping(h2::Ping::opaque())).await {
                Ok(Ok(_)) => tell(shared, key, Event::Answered(begin.elapsed())),
                // The connection says how it ended.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return format!("no answer to a ping within {:?}", timing.dead),
            }
            if key.role == GatewayRole::Egress && calls.borrow_and_update().elapsed() > QUIET {
                let _ = timeout(timing.keepalive, calls.changed()).await;
            } else {
                sleep(timing.probe.saturating_sub(begin.elapsed())).await;
            }
        }
    };
    tokio::select! {
        biased;
        reason = ticket.ended() => Err(reason.to_string()),
        result = &mut connection => {
            Ok(Some(result.map_or_else(|error| error.to_string(), |()| "the peer ended the tunnel".to_owned())))
        }
        Ok(()) = rotated.changed() => Ok(None),
        () = sleep(timing.proof.mul_f64(0.75 + rand::random::<f64>() / 4.0)) => Ok(None),
        error = pinging => Err(error),
    }
}

fn tell(shared: &Shared, key: &Key, event: Event) {
    let error = match &event {
        Event::Failed(error) => error.clone(),
        _ => String::new(),
    };
    match shared.health_of(key.role).on(&key.cluster, &key.address, event) {
        Some(true) => {
            tracing::info!(cluster.name = %key.cluster, address = %key.address, "peer is back in rotation");
        }
        Some(false) => {
            tracing::warn!(cluster.name = %key.cluster, address = %key.address, error, "peer is out of rotation");
            shared.pool.retire(&key.address);
        }
        None => {}
    }
}
