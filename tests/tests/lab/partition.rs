//! Cables that are cut: between a cluster and the controller, and between two clusters, both ways or one.

use crate::{
    SOON,
    clusters::{Cluster, Clusters, NAME},
    talk::greeting,
};
use std::{
    io::Write as _,
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};
use tombolo_testkit::{
    netlab::Namespace,
    wait::{until, until_ok},
};

/// The controller's address.
const CONTROLLER: &str = "198.51.100.254";
/// The ingress gateway of the second cluster.
const TWO: &str = "198.51.100.2";

/// Which packets are lost, seen from the machine that loses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Sent,
    Received,
    Both,
}

/// A cut at a machine, healed when this is dropped.
struct Cut<'a>(&'a Namespace);

impl<'a> Cut<'a> {
    fn new(at: &'a Namespace, peer: &str, lost: Lost) -> Self {
        let received = if lost == Lost::Sent { String::new() } else { format!("ip saddr {peer} drop") };
        let sent = if lost == Lost::Received { String::new() } else { format!("ip daddr {peer} drop") };
        let rules = format!(
            "table inet cut {{
                chain received {{ type filter hook input priority 0; {received}; }}
                chain sent {{ type filter hook output priority 0; {sent}; }}
            }}"
        );
        let mut nft =
            at.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft (make deps-test)");
        nft.stdin.take().expect("its stdin").write_all(rules.as_bytes()).expect("rules are read");
        assert!(nft.wait().expect("nft ends").success(), "{rules}");
        Self(at)
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.run("nft", &["delete", "table", "inet", "cut"]);
    }
}

async fn resolves(cluster: &Cluster, name: &str) -> Duration {
    let start = Instant::now();
    let look = || std::future::ready(cluster.resolve(name).ok_or("no answer"));
    until_ok(&format!("{} resolves {name}", cluster.name), SOON, look).await;
    start.elapsed()
}

/// Inside what still connects nothing stops; what was missed is there after the healing.
pub(crate) async fn a_cluster_is_cut_off_from_the_controller(clusters: &Clusters, vip: SocketAddr) {
    for (lost, gns) in [(Lost::Both, "both"), (Lost::Sent, "sent"), (Lost::Received, "received")] {
        let cut = Cut::new(&clusters.one.gateway, CONTROLLER, lost);
        let domain = format!("{gns}.example.com");
        clusters.user(&["gns", "create", gns, "--domain", &domain]);
        let new = format!("echo.{domain}");
        resolves(&clusters.two, &new).await;
        for _ in 0..5 {
            assert_eq!(clusters.one.resolve(NAME), Some(vip), "{lost:?}: the name resolves as before");
            assert_eq!(greeting(&clusters.one.pod, vip).expect("a new connection"), "c2", "{lost:?}");
        }
        if lost == Lost::Both {
            let state = || async {
                let shown = clusters.user(&["cluster", "show", "c1", "-o", "json"]);
                let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
                shown["state"].as_str().unwrap_or_default().to_owned()
            };
            until("the cut is shown", SOON, state, |state| state == "disconnected").await;
            assert_eq!(greeting(&clusters.one.pod, vip).expect("a new connection"), "c2");
        }
        if lost != Lost::Sent {
            assert_eq!(clusters.one.resolve(&new), None, "{lost:?}: the cut cluster can't have heard of it");
        }
        drop(cut);
        eprintln!(
            "  {lost:?}: all is known {:.1} s after the healing",
            resolves(&clusters.one, &new).await.as_secs_f64()
        );
    }
}

/// Who serves alone can't be reached meanwhile: a call fails (after 15 s at the latest, here the caller's own 10 s), and that is over with the cut.
pub(crate) async fn two_clusters_are_cut_off_from_each_other(clusters: &Clusters, vip: SocketAddr) {
    for lost in [Lost::Both, Lost::Sent, Lost::Received] {
        let cut = Cut::new(&clusters.one.gateway, TWO, lost);
        let refused = || std::future::ready(greeting(&clusters.one.pod, vip));
        let error = until("a call is refused", SOON, refused, Result::is_err).await.err();
        eprintln!("  {lost:?}: {error:?}");
        assert_eq!(
            clusters.one.resolve(NAME),
            Some(vip),
            "{lost:?}: a name without an answer is still a name"
        );
        drop(cut);
        let start = Instant::now();
        until_ok("calls are answered again", SOON, || std::future::ready(greeting(&clusters.one.pod, vip)))
            .await;
        eprintln!("  {lost:?}: calls are answered {:.1} s after the healing", start.elapsed().as_secs_f64());
    }
}
