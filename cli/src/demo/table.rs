//! The closing table: where everything is, what to try, and what is going on.

use super::{
    layout::{DOMAIN, Layout},
    lines::lines,
    names::{self, Over},
    steps::{Demo, until},
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
    let mut rows = Vec::new();
    for service in &services {
        let served: Vec<String> = service["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|t| format!("{} ({} ready)", text(t, "cluster"), text(t, "ready")))
            .collect();
        let name = text(service, "name");
        // What programs in cluster-1 are told, which is what works there: these machines have no route to virtual IPs.
        let here = until(&format!("DNS answers {name}"), || async {
            let found = names::ask(layout, &name, Over::Udp).await?;
            Ok((!found.is_empty())
                .then(|| found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
        })
        .await?;
        rows.push(vec![cell(name), cell(here), cell(text(&service["vip"], "v4")), cell(served.join(", "))]);
    }
    out.line(&out.table(&["name", "address in cluster-1", "virtual IP", "served in"], rows));
    out.line(&format!("\nthe shop's page:   {}\n\ntry:", layout.page()));
    for line in lines(demo, layout)? {
        out.line(&format!("  {}", line.text));
    }
    out.line("");
    out.line(&edges(demo, out).await?);
    Ok(())
}

/// What was counted on an edge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) ok: u64,
    pub(crate) open: u64,
    pub(crate) failed: u64,
}

/// Who called, which name, and which cluster served.
type Edge = (String, String, String);

/// Requests per edge, as the sidecars counted them: each from the moment in which its path is open. (The shop has a connection for each
/// request.)
pub(crate) async fn counts(demo: &Demo) -> Result<BTreeMap<Edge, Count>> {
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
            let entry: &mut Count = counts.entry(key).or_default();
            entry.ok += edge["ok"].as_u64().unwrap_or(0);
            entry.open += edge["open"].as_u64().unwrap_or(0);
            entry.failed += edge["failed"].as_u64().unwrap_or(0);
        }
    }
    Ok(counts)
}

async fn edges(demo: &Demo, out: &Output) -> Result<String> {
    let rows = counts(demo).await?.into_iter().map(|((source, name, cluster), count)| {
        let numbers = [count.ok, count.open, count.failed].map(|number| cell(number.to_string()));
        [cell(source), cell(name), cell(cluster)].into_iter().chain(numbers).collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(format!("no request under {DOMAIN} yet: open the page"));
    }
    Ok(out.table(&["from", "to", "served by", "requests", "open now", "failed"], rows))
}

/// Shows the edges' counts live, until the demo is ended.
pub(crate) async fn live(demo: &Demo, out: &Output) -> Result<()> {
    out.line("\nCtrl-C ends the demo; counts per edge follow as they change");
    let mut shown = String::new();
    let mut height = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
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

/// Requests to a name that a cluster served.
pub(crate) fn total(counts: &BTreeMap<Edge, Count>, name: &str, cluster: &str) -> u64 {
    counts.iter().filter(|((_, n, c), _)| n == name && c == cluster).map(|(_, count)| count.ok).sum()
}
