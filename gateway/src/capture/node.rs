//! Capture mode `node`: one proxy for all pods of a node, in the node's own network. Who calls is known by the connection's source address: it
//! is that of a pod which the agent says is on this node, and nobody else can finish a handshake from there.
//!
//! Where the node allows it, connections come by a socket lookup ([`lookup`]), else by an nftables redirect ([`rules`]). Either way there are
//! rules that stand before those of kube-proxy, which may hold the same virtual addresses for pods without a proxy: of the translations that
//! match a connection, the first one counts. They name the pods, so connections of others pass as before. They follow the table; when the
//! proxy ends in order they are taken away, and its pods' connections go as those of pods without a proxy. Where it is killed they stay:
//! connections are refused until it is back.

mod rules;

use super::{
    explicit::{AGAIN, Problems},
    listener::Listener,
    lookup::{self, Routes, Steering, ipvs},
};
use crate::{
    config::{Bring, Way},
    state::Shared,
};
use ipnet::IpNet;
use nftables::helper::NftablesError;
use rules::{Rules, To};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tombolo_runtime::{drain, telemetry};

/// How long a connection may be under way from the rules to the socket, on a machine that is busy.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// The proxy's sockets, and what brings connections to them.
pub(super) struct Node {
    listeners: Vec<Listener>,
    vips: Vec<IpNet>,
    routes: Arc<Routes>,
    problems: watch::Sender<Problems>,
}

/// What is in force.
#[derive(Default)]
struct InForce {
    /// The pods that rules name.
    pods: Option<BTreeSet<IpAddr>>,
    steering: Option<Steering>,
    /// The lookup was given up.
    redirects: bool,
    /// And why.
    why: Option<String>,
    /// What was said last.
    way: Option<Way>,
}

impl Node {
    pub(super) fn new(
        listeners: Vec<Listener>,
        vips: Vec<IpNet>,
        routes: Arc<Routes>,
        problems: watch::Sender<Problems>,
    ) -> Self {
        Self { listeners, vips, routes, problems }
    }

    /// Brings the connections of the table's pods, until the draining. What a proxy before this one left is in force until there is a
    /// table. The local routes are whose who drains: connections that go on need them.
    pub(super) async fn follow(
        self,
        by: Bring,
        shared: Arc<Shared>,
        followed: watch::Sender<u64>,
        drain: drain::Watch,
    ) {
        let mut changed = shared.changed();
        let mut force = InForce::default();
        // what this machine's own programs send to virtual addresses comes from the address that it always came from
        let source = Some(shared.config.tunnel.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
        loop {
            let number = *changed.borrow_and_update();
            let table = shared.table.load_full();
            let result = match by {
                _ if table.itself().is_none() => Ok(None),
                Bring::Redirect => self.redirect(table.pods().collect(), &mut force).await.map(Some),
                Bring::Lookup => self.steer(source, &mut force).map(Some),
                Bring::Auto => self.either(table.pods().collect(), source, &mut force).await.map(Some),
            };
            let failed = result.is_err();
            match result {
                Ok(way) => {
                    self.tell(None);
                    if let Some(way) = way.filter(|way| force.way.replace(*way) != Some(*way)) {
                        tracing::info!(way = way.as_str(), "connections of this node's pods are captured");
                        shared.captures(way, force.why.clone());
                    }
                }
                Err(error) => self.tell(Some(error)),
            }
            shared.metrics.capture_problems(usize::from(failed));
            followed.send_replace(number);
            tokio::select! {
                biased;
                () = drain.signaled() => break,
                table = changed.changed() => if table.is_err() { break },
                () = sleep(AGAIN), if failed => {}
            }
        }
        if by != Bring::Lookup
            && let Err(error) = blocking(Rules::remove).await
        {
            tracing::warn!(
                error,
                "the rules stay; connections of this node's pods are refused until a proxy is back"
            );
        }
        if by != Bring::Lookup {
            // whose first packet still met the rules finds somebody who accepts
            sleep(UNDER_WAY).await;
        }
        drop(force);
        for listener in self.listeners {
            listener.close().await;
        }
    }

    /// The port is the same for both families.
    fn local(&self) -> SocketAddr {
        self.listeners.first().map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), Listener::local)
    }

    /// By the lookup, unless this node does not allow it; what it did once it is trusted to do again.
    async fn either(
        &self,
        pods: BTreeSet<IpAddr>,
        source: Option<IpAddr>,
        force: &mut InForce,
    ) -> Result<Way, String> {
        if !force.redirects {
            let why = match ipvs::in_the_way() {
                Some(why) => why,
                None => match self.beside_others(pods.clone(), source, force).await {
                    Ok(way) => return Ok(way),
                    Err(why) if force.way.is_some() => return Err(why),
                    Err(why) => why,
                },
            };
            tracing::warn!(why, "this node allows no socket lookup; its pods' connections are redirected");
            // connections that came by the lookup need the routes
            if force.way.is_none() {
                self.routes.remove();
            }
            *force = InForce { redirects: true, why: Some(why), way: force.way, ..InForce::default() };
        }
        self.redirect(pods, force).await
    }

    /// By the lookup, with rules that keep kube-proxy from the pods' connections.
    async fn beside_others(
        &self,
        pods: BTreeSet<IpAddr>,
        source: Option<IpAddr>,
        force: &mut InForce,
    ) -> Result<Way, String> {
        self.steer(source, force)?;
        self.install(To::Itself, pods, force).await?;
        Ok(Way::Lookup)
    }

    async fn redirect(&self, pods: BTreeSet<IpAddr>, force: &mut InForce) -> Result<Way, String> {
        self.install(To::Port(self.local().port()), pods, force).await?;
        Ok(Way::Redirect)
    }

    async fn install(&self, to: To, pods: BTreeSet<IpAddr>, force: &mut InForce) -> Result<(), String> {
        if force.pods.as_ref() == Some(&pods) {
            return Ok(());
        }
        let wanted = Rules { vips: self.vips.clone(), to, pods: pods.clone() };
        blocking(move || wanted.install()).await?;
        force.pods = Some(pods);
        Ok(())
    }

    fn steer(&self, source: Option<IpAddr>, force: &mut InForce) -> Result<Way, String> {
        if force.steering.is_none() {
            let sockets: Vec<_> = self.listeners.iter().map(Listener::socket).collect();
            let steering = lookup::steer(&self.vips, &sockets, &self.routes, source);
            force.steering = Some(steering.map_err(|error| error.to_string())?);
        }
        Ok(Way::Lookup)
    }

    fn tell(&self, problem: Option<String>) {
        let problems: Problems = problem.map(|text| (self.local(), text)).into_iter().collect();
        self.problems.send_if_modified(|before| {
            let differs = *before != problems;
            if differs && let Some(problem) = problems.values().next() {
                tracing::warn!(problem, "connections of this node's pods can't be captured; trying again");
            }
            *before = problems;
            differs
        });
    }
}

/// Runs `nft`, which takes a few milliseconds, beside the connections.
async fn blocking(work: impl FnOnce() -> Result<(), NftablesError> + Send + 'static) -> Result<(), String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| telemetry::chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}
