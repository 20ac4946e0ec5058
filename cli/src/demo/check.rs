//! The demo, looked at from outside: only what a user could see counts.

use super::{
    layout::{CATALOG, DOMAIN, Layout},
    steps::{self, Demo, until},
    table,
};
use crate::output::{Mood, Output};
use anyhow::{Context as _, Result, ensure};
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use std::{net::IpAddr, path::Path};

fn passed(out: &Output, what: &str) {
    out.line(&out.paint(Mood::Good, &format!("    ✓ {what}")));
}

/// Before the global namespace: the page works, but for the catalog.
pub(crate) async fn before(layout: &Layout, out: &Output) -> Result<()> {
    let page = steps::answers(&layout.page()).await?;
    ensure!(
        page.contains("The catalog can't be reached"),
        "the page does not say that its catalog is missing: {page}"
    );
    ensure!(!page.contains(steps::FROM_CLUSTER_2), "the page shows a catalog that it can't reach yet");
    passed(out, "the page answers, and says that its catalog is missing");
    Ok(())
}

/// After it.
pub(crate) async fn after(demo: &Demo, layout: &Layout, out: &Output) -> Result<()> {
    let page = steps::answers(&layout.page()).await?;
    ensure!(page.contains(steps::FROM_CLUSTER_2), "the page does not say who served the catalog");
    passed(out, "the page shows the products, served by cluster-2");

    let name = CATALOG.trim_end_matches(":8082");
    let udp = ask(layout, name, ConnectionConfig::udp).await?;
    let tcp = ask(layout, name, ConnectionConfig::tcp).await?;
    ensure!(udp == tcp, "DNS answers {udp:?} over UDP but {tcp:?} over TCP");
    let inside = udp.first().is_some_and(|ip| layout.in_prefix(1, *ip));
    ensure!(udp.len() == 1 && inside, "{name} is {udp:?}, not one address in {}", layout.prefix(1));
    passed(out, &format!("DNS answers {name} with {} over UDP and TCP", udp[0]));

    let this = std::env::current_exe()?;
    let explain = [
        "--server",
        &demo.context.server,
        "--ca-fingerprint",
        &demo.context.ca_fingerprint,
        "--organization",
        "acme",
        "--token-file",
        &layout.path("token").display().to_string(),
        "explain",
        "--from",
        "cluster-1/default/shopping",
        CATALOG,
    ]
    .map(str::to_owned);
    until("explain says yes at every hop", || async {
        super::process::run(&this, &explain, None).await.map(Some)
    })
    .await?;
    passed(out, "explain walks the request, and every hop says yes");

    let source = "/cluster/cluster-1/ns/default/sa/shopping";
    let log = layout.cluster_dir(2).join("sidecar-access.log");
    until("the server's log names the caller", || async { Ok(logged(&log, source)?.then_some(())) }).await?;
    passed(out, &format!("the log of cluster-2's sidecar names the caller: …{source}"));

    until("the edges are counted", || async {
        let counts = table::counts(demo).await?;
        Ok((table::total(&counts, name, "cluster-2") > 0).then_some(()))
    })
    .await?;
    passed(out, &format!("the edge shopping → catalog.{DOMAIN} is counted"));

    if let Some(curl) = super::manifests::curl() {
        let resolve = format!("{CATALOG}:{}", udp[0]);
        let url = format!("http://{CATALOG}/products");
        let args = ["-sS", "--fail", "--max-time", "10", "--noproxy", "*", "--resolve", &resolve, &url]
            .map(str::to_owned);
        let body = super::process::run(Path::new(&curl), &args, None)
            .await
            .context("curl from the closing table")?;
        ensure!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "curl got no products: {body}");
        passed(out, "curl of this machine gets the products too");
    }
    Ok(())
}

async fn ask(layout: &Layout, name: &str, connection: fn() -> ConnectionConfig) -> Result<Vec<IpAddr>> {
    let server = layout.dns(1);
    let mut connection = connection();
    connection.port = server.port();
    let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
    let config = ResolverConfig::from_parts(None, vec![], servers);
    let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        .build()
        .context("make a resolver")?;
    let found =
        resolver.ipv4_lookup(format!("{name}.")).await.with_context(|| format!("ask {server} for {name}"))?;
    let mut addresses: Vec<IpAddr> = found.answers().iter().filter_map(|r| r.data.ip_addr()).collect();
    addresses.sort();
    Ok(addresses)
}

fn logged(log: &Path, source: &str) -> Result<bool> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    Ok(text.lines().any(|line| {
        serde_json::from_str::<serde_json::Value>(line)
            .is_ok_and(|entry| entry["source"].as_str().is_some_and(|s| s.ends_with(source)))
    }))
}

/// Processes of the demo that are still there.
pub(crate) fn left_over(pids: &[u32]) -> Vec<u32> {
    // A pid may be another process's by now: only those whose parent we are, or were, count.
    let ours = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.contains("tombolo"))
    };
    pids.iter().copied().filter(ours).collect()
}
