//! The view as text, for a person with curl.

use super::view::{Export, Route, View};
use crate::{
    conns::{Kind, Open},
    metrics::scrape::word,
};
use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::{self, Display, Write};
use tombolo_model::{
    Proximity,
    snapshot::{EndToEnd, WorkloadSelector},
};

/// The whole view.
pub(super) fn table(view: &View) -> String {
    let mut out = String::new();
    // writing to a String does not fail
    let _ = write(&mut out, view);
    out
}

fn write(out: &mut String, view: &View) -> fmt::Result {
    let cluster = view.cluster.as_ref().map_or("a cluster not known yet", |cluster| cluster.as_str());
    writeln!(out, "{} {} of {cluster}, table {}", view.role, view.instance, view.generation)?;
    let agent = view.feed.agent.as_deref().unwrap_or("agent");
    match (&view.feed.error, view.feed.connected) {
        (_, true) => writeln!(out, "{agent} connected, {} generations behind", view.feed.lag)?,
        (Some(error), false) => {
            writeln!(out, "{agent} NOT connected ({error}); the table above stays in force")?
        }
        (None, false) => writeln!(out, "{agent} not connected yet")?,
    }
    if view.feed.from_cache {
        writeln!(out, "the table was read from disk, and not confirmed since")?;
    }
    writeln!(out, "{} connections, {} tunnels", view.connections, view.tunnels)?;
    section(out, "PROBLEMS", view.problems.iter().map(|p| format!("{}: {}", p.subject, p.message)))?;
    section(out, "ROUTES", view.routes.iter().map(route))?;
    section(out, "EXPORTS", view.exports.iter().map(export))?;
    let peers = view.peers.iter().flat_map(|(cluster, all)| {
        all.iter().map(move |(address, peer)| {
            let rtt =
                peer.rtt_us.map_or_else(|| "-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0));
            let error = peer.error.as_deref().map(|error| format!("  {error}")).unwrap_or_default();
            format!("{cluster}  {address}  {}  rtt {rtt}{error}", word(peer.health))
        })
    });
    section(out, "PEERS", peers)?;
    section(out, "EGRESS GATEWAYS", view.egress.iter())?;
    let workloads =
        view.workloads.iter().map(|w| format!("{}  {}", w.identity, list(w.selectors.iter().map(selector))));
    section(out, "WORKLOADS", workloads)?;
    let certificates = view.certificates.iter().map(|c| {
        let end = i64::try_from(c.not_after_s).ok().and_then(|s| DateTime::<Utc>::from_timestamp(s, 0));
        let end = end.map_or_else(|| "?".to_owned(), |end| end.to_rfc3339_opts(SecondsFormat::Secs, true));
        format!("{}  until {end}", c.identity)
    });
    section(out, "CERTIFICATES", certificates)
}

/// Connections and tunnels that are open; `open` may be cut short, the counts are whole.
pub(super) fn connections(open: &[Open], connections: usize, dialled: usize) -> String {
    let mut out = format!("{connections} connections, {dialled} tunnels dialled\n");
    for open in open {
        let kind = match open.kind {
            Kind::Connection => "connection",
            Kind::Tunnel => "tunnel",
        };
        let peers =
            if open.peers.is_empty() { String::new() } else { format!("  peers {}", list(&open.peers)) };
        let age = open.since.elapsed().as_secs();
        // writing to a String does not fail
        let _ = writeln!(out, "{:>8}  {kind:<10}  {age:>6} s  {}{peers}", open.number, open.label);
    }
    out
}

fn section<T: Display>(out: &mut String, title: &str, lines: impl Iterator<Item = T>) -> fmt::Result {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    lines.try_for_each(|line| writeln!(out, "  {line}"))
}

fn route(route: &Route) -> String {
    let mut text = format!("{}  {}  ports {}", route.name, list(&route.addresses), list(&route.ports));
    for target in &route.targets {
        let alive =
            target.alive.map(|(alive, all)| format!("  {alive} of {all} gateways alive")).unwrap_or_default();
        let near = match target.proximity {
            Proximity::Cluster => "this cluster",
            Proximity::Zone => "same zone",
            Proximity::Region => "same region",
            Proximity::Elsewhere => "elsewhere",
        };
        let inner = match target.end_to_end {
            EndToEnd::All => "end to end",
            EndToEnd::Some => "end to end where the endpoint can",
            EndToEnd::None => "not end to end",
        };
        text.push_str(&format!(
            "\n    -> {}  {near}  {} ready  {inner}{alive}",
            target.cluster, target.ready
        ));
    }
    if route.targets.is_empty() {
        text.push_str("\n    -> served nowhere");
    }
    text
}

fn export(export: &Export) -> String {
    let mut text = format!("{}  callers {}", export.name, list(&export.callers));
    for port in &export.ports {
        for endpoint in &port.endpoints {
            let ready = if endpoint.ready { "ready" } else { "NOT ready" };
            let tunnel =
                endpoint.tunnel.map(|tunnel| format!("  behind sidecar {tunnel}")).unwrap_or_default();
            text.push_str(&format!("\n    {} -> {}  {ready}{tunnel}", port.port, endpoint.address));
        }
        if port.endpoints.is_empty() {
            text.push_str(&format!("\n    {} -> no endpoints", port.port));
        }
    }
    text
}

fn selector(selector: &WorkloadSelector) -> String {
    match selector {
        WorkloadSelector::Uid(uid) => format!("uid={uid}"),
        WorkloadSelector::Path(path) => format!("path={path}"),
        WorkloadSelector::Cgroup(cgroup) => format!("cgroup={cgroup}"),
        WorkloadSelector::Address(address) => format!("address={address}"),
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let text = items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",");
    if text.is_empty() { "-".to_owned() } else { text }
}
