//! Probes one address: a tunnel of its own, kept, and a ping on it again and again.
//!
//! A tunnel of its own because a ping behind megabytes of an application's bytes measures those.

use super::state::Event;
use crate::{pool::Key, reason::Reason, state::Shared, tunnel::ALPN};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tombolo_mtls::{Expect, client_config};

/// The longest pause between two attempts to reach a dead address.
const LONGEST: Duration = Duration::from_secs(2);

/// Probes until `stop`. `key` says who is expected where.
pub(crate) async fn run(shared: Arc<Shared>, key: Key, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = forever(&shared, &key) => {}
    }
    shared.health.forget(&key.cluster, &key.address);
}

async fn forever(shared: &Shared, key: &Key) {
    let timing = shared.config.timing;
    let mut pause = timing.probe;
    let mut demand = shared.health.demand();
    loop {
        demand.mark_unchanged();
        let begin = Instant::now();
        let error = probe(shared, key).await;
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

/// Connects and pings until that fails; says how.
async fn probe(shared: &Shared, key: &Key) -> String {
    let timing = shared.config.timing;
    let Some(credentials) = shared.credentials.own() else {
        sleep(timing.probe).await;
        return "this gateway has no certificate yet".to_owned();
    };
    credentials.wait_ready().await;
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
    // The first handshake of a far peer needs three round trips; it gets longer than a ping.
    let (_send, mut connection, peer) = match timeout(timing.dead * 4, dial).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return error,
        Err(_) => return format!("no handshake within {:?}", timing.dead * 4),
    };
    let ticket = match shared.conns.admit(crate::conns::Kind::Tunnel, shared.conns.number()) {
        Ok(ticket) => ticket,
        Err(refusal) => return refusal.to_string(),
    };
    if let Err(refusal) = ticket.relies_on(&peer, shared.bundle.get().as_deref()) {
        return refusal.to_string();
    }
    let Some(mut pings) = connection.ping_pong() else { return "no pings".to_owned() };
    let mut rotated = credentials.subscribe();
    rotated.mark_unchanged();
    let pinging = async {
        loop {
            let begin = Instant::now();
            match timeout(timing.dead, pings.ping(h2::Ping::opaque())).await {
                Ok(Ok(_)) => tell(shared, key, Event::Answered(begin.elapsed())),
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no answer to a ping within {:?}", timing.dead),
            }
            sleep(timing.probe.saturating_sub(begin.elapsed())).await;
        }
    };
    tokio::select! {
        biased;
        reason = ticket.ended() => if reason == Reason::Revoked { "revoked".to_owned() } else { reason.to_string() },
        result = &mut connection => match result {
            Ok(()) => "the peer ended the tunnel".to_owned(),
            Err(error) => error.to_string(),
        },
        error = pinging => error,
    }
}

fn tell(shared: &Shared, key: &Key, event: Event) {
    let error = match &event {
        Event::Failed(error) => error.clone(),
        _ => String::new(),
    };
    match shared.health.on(&key.cluster, &key.address, event) {
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
