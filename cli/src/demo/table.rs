//! The closing table: where everything is, what to try, and what is going on.

use super::{
    layout::{CATALOG, DOMAIN, Layout, ORGANIZATION},
    steps::Demo,
};
use crate::{
    org::text,
    output::{Output, cell},
};
use anyhow::Result;
use std::{collections::BTreeMap, time::Duration};

/// Prints it.
pub(crate) async fn print(demo: &Demo, layout: &Layout, out: &Output) -> Result<()> {
    out.line("5/5 ready\n");
    let mut services = demo.client.list(&demo.client.in_org("/services")?).await?;
    services.retain(|s| s["kind"] == "service");
    let rows = services.iter().map(|s| {
        let served: Vec<String> = s["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|t| format!("{} ({} ready)", text(t, "cluster"), text(t, "ready")))
            .collect();
        vec![cell(text(s, "name")), cell(text(&s["vip"], "v4")), cell(served.join(", "))]
    });
    out.line(&out.table(&["name", "virtual IP", "served in"], rows.collect()));
    let this = std::env::current_exe().map_or_else(|_| "tombolo".into(), |p| p.display().to_string());
    let dns = layout.dns(1);
    out.line(&format!(
        "\nthe shop's page:   {}\n\ntry:\n  dig @{} -p {} {} +short\n  curl -s --resolve {CATALOG}:$(dig @{} -p {} {} +short) http://{CATALOG}/products\n  {this} --server {} --ca-fingerprint {} \\\n    --organization {ORGANIZATION} --token-file {} explain --from cluster-1/default/shopping {CATALOG}\n",
        layout.page(),
        dns.ip(),
        dns.port(),
        CATALOG.trim_end_matches(":8082"),
        dns.ip(),
        dns.port(),
        CATALOG.trim_end_matches(":8082"),
        demo.context.server,
        demo.context.ca_fingerprint,
        layout.path("token").display(),
    ));
    out.line(&edges(demo, out).await?);
    Ok(())
}

/// Connections per edge, as the sidecars counted them.
pub(crate) async fn counts(demo: &Demo) -> Result<BTreeMap<(String, String, String), (u64, u64)>> {
    let mut counts = BTreeMap::new();
    for cluster in demo.client.list(&demo.client.in_org("/clusters")?).await? {
        let path = demo.client.in_org(&format!("/clusters/{}/status", text(&cluster, "name")))?;
        let status = demo.client.get(&path).await?.body;
        let gateways = status["gateways"].as_array().into_iter().flatten();
        for edge in gateways
            .filter(|g| g["role"] == "sidecar")
            .filter_map(|g| g["status"]["edges"].as_array())
            .flatten()
        {
            let key = (text(edge, "source"), text(edge, "name"), text(edge, "cluster"));
            let entry: &mut (u64, u64) = counts.entry(key).or_default();
            entry.0 += edge["ok"].as_u64().unwrap_or(0);
            entry.1 += edge["failed"].as_u64().unwrap_or(0);
        }
    }
    Ok(counts)
}

async fn edges(demo: &Demo, out: &Output) -> Result<String> {
    let rows = counts(demo).await?.into_iter().map(|((source, name, cluster), (ok, failed))| {
        vec![cell(source), cell(name), cell(cluster), cell(ok.to_string()), cell(failed.to_string())]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(format!("no connection under {DOMAIN} yet: open the page"));
    }
    Ok(out.table(&["from", "to", "served by", "connections", "failed"], rows))
}

/// Shows the edges' counts live, until the demo is ended.
pub(crate) async fn live(demo: &Demo, out: &Output) -> Result<()> {
    out.line("\nCtrl-C ends the demo; counts per edge follow as they change");
    let mut shown = String::new();
    let mut height = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        // A hiccup of the controller must not end the demo: the next look will do.
        let Ok(text) = edges(demo, out).await else { continue };
        if text == shown {
            continue;
        }
        if out.is_terminal() && height > 0 {
            out.line(&format!("\x1b[{}A\x1b[J{text}", height));
        } else {
            out.line(&text);
        }
        height = text.lines().count();
        shown = text;
    }
}

/// A status value, for checks.
pub(crate) fn total(
    counts: &BTreeMap<(String, String, String), (u64, u64)>,
    name: &str,
    cluster: &str,
) -> u64 {
    counts.iter().filter(|((_, n, c), _)| n.starts_with(name) && c == cluster).map(|(_, (ok, _))| ok).sum()
}
