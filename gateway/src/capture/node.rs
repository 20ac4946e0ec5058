//! Capture mode `node`: one proxy for all pods of a node, in the node's own network. Who calls is known by the connection's source address: it
//! is that of a pod which the agent says is on this node, and nobody else can finish a handshake from there.
//!
//! The rules stand before those of kube-proxy, which may hold the same virtual addresses for pods without a proxy: of the redirects that
//! match a connection, the first one counts. They name the pods, so connections of others pass as before. They follow the table; when the
//! proxy ends in order they are taken away, and its pods' connections go as those of pods without a proxy. Where it is killed they stay:
//! connections are refused until it is back.

use super::{
    explicit::{AGAIN, Problems},
    listener::Listener,
    lookup::{self, Steering},
    nft::{Place, address_field, any_of, cleared, is, is_tcp, prefix, redirect, table},
};
use crate::{config::Bring, state::Shared};
use ipnet::IpNet;
use nftables::{
    expr::Expression,
    helper::{self, NftablesError},
    schema::Nftables,
    types::NfHook,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{sync::watch, time::sleep};
use tombolo_runtime::{drain, telemetry};

const TABLE: &str = "tombolo_node";
/// Before kube-proxy's, which are at -100.
const PREROUTING: Place =
    Place { table: TABLE, chain: "prerouting", hook: NfHook::Prerouting, priority: -110 };

/// The proxy's sockets, and what brings connections to them.
pub(super) struct Node {
    listeners: Vec<Listener>,
    vips: Vec<IpNet>,
    problems: watch::Sender<Problems>,
}

/// What is in force.
#[derive(Default)]
struct InForce {
    pods: Option<BTreeSet<IpAddr>>,
    steering: Option<Steering>,
}

impl Node {
    pub(super) fn new(listeners: Vec<Listener>, vips: Vec<IpNet>, problems: watch::Sender<Problems>) -> Self {
        Self { listeners, vips, problems }
    }

    /// Brings the connections of the table's pods, until the draining. What a proxy before this one left is in force until there is a
    /// table.
    pub(super) async fn follow(
        self,
        by: Bring,
        shared: Arc<Shared>,
        followed: watch::Sender<u64>,
        drain: drain::Watch,
    ) {
        let mut changed = shared.changed();
        let mut force = InForce::default();
        loop {
            let number = *changed.borrow_and_update();
            let table = shared.table.load_full();
            let result = match by {
                _ if table.itself().is_none() => Ok(()),
                Bring::Redirect => self.redirect(table.pods().collect(), &mut force).await,
                Bring::Lookup => self.steer(&mut force),
            };
            let failed = result.is_err();
            self.tell(result.err());
            shared.metrics.capture_problems(usize::from(failed));
            followed.send_replace(number);
            tokio::select! {
                biased;
                () = drain.signaled() => break,
                table = changed.changed() => if table.is_err() { break },
                () = sleep(AGAIN), if failed => {}
            }
        }
        if by == Bring::Redirect
            && let Err(error) = blocking(NodeRedirect::remove).await
        {
            tracing::warn!(
                error,
                "the rules stay; connections of this node's pods are refused until a proxy is back"
            );
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

    async fn redirect(&self, pods: BTreeSet<IpAddr>, force: &mut InForce) -> Result<(), String> {
        if force.pods.as_ref() == Some(&pods) {
            return Ok(());
        }
        let wanted = NodeRedirect { vips: self.vips.clone(), port: self.local().port(), pods: pods.clone() };
        blocking(move || wanted.install()).await?;
        force.pods = Some(pods);
        Ok(())
    }

    fn steer(&self, force: &mut InForce) -> Result<(), String> {
        if force.steering.is_none() {
            let sockets: Vec<_> = self.listeners.iter().map(Listener::socket).collect();
            force.steering = Some(lookup::steer(&self.vips, &sockets).map_err(|error| error.to_string())?);
        }
        Ok(())
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

/// What to redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRedirect {
    /// The virtual addresses.
    pub(super) vips: Vec<IpNet>,
    /// The proxy's port.
    pub(super) port: u16,
    /// The pods whose connections are redirected.
    pub(super) pods: BTreeSet<IpAddr>,
}

impl NodeRedirect {
    /// Installs the rules in place of those before. Runs `nft`; needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// What `nft` said. The rules before stay in force then.
    pub(super) fn install(&self) -> Result<(), NftablesError> {
        helper::apply_ruleset(&self.rules())
    }

    /// Takes the rules away, whether they are there or not.
    ///
    /// # Errors
    /// What `nft` said.
    pub(super) fn remove() -> Result<(), NftablesError> {
        helper::apply_ruleset(&cleared(TABLE).to_nftables())
    }

    fn rules(&self) -> Nftables<'static> {
        let mut batch = cleared(TABLE);
        batch.add(table(TABLE));
        PREROUTING.add_to(&mut batch);
        for vips in &self.vips {
            let ipv6 = matches!(vips, IpNet::V6(_));
            let pods = self.pods.iter().filter(|pod| pod.is_ipv6() == ipv6);
            let pods: Vec<Expression<'static>> =
                pods.map(|pod| Expression::String(pod.to_string().into())).collect();
            if pods.is_empty() {
                continue;
            }
            batch.add(PREROUTING.rule(vec![
                is_tcp(),
                is(address_field(ipv6, "saddr"), any_of(pods)),
                is(address_field(ipv6, "daddr"), prefix(vips)),
                redirect(self.port),
            ]));
        }
        batch.to_nftables()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_pods_of_each_family() {
        let mut wanted = NodeRedirect {
            vips: vec!["240.0.0.0/4".parse().unwrap(), "fd74:6f6d:6265:6c6f::/64".parse().unwrap()],
            port: 15001,
            pods: ["10.244.0.7".parse().unwrap(), "fd00::7".parse().unwrap()].into(),
        };
        let text = serde_json::to_string(&wanted.rules()).unwrap();
        let order = [
            "-110",
            "l4proto",
            "saddr",
            "10.244.0.7",
            "240.0.0.0",
            "15001",
            "ip6",
            "fd00::7",
            "fd74",
            "15001",
        ];
        let mut at = 0;
        for needle in order {
            let found = text[at..].find(needle);
            assert!(found.is_some(), "{needle} after byte {at} in {text}");
            at += found.unwrap();
        }
        wanted.pods.clear();
        assert!(!serde_json::to_string(&wanted.rules()).unwrap().contains("redirect"), "nobody is captured");
    }
}
