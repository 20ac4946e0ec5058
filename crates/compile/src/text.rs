//! Snapshots for people: one block per resource, one fact per line.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write as _},
};
use tombolo_model::{
    Locality,
    install::{Exposure, InstallOrder, InstallSpec},
    inventory::Protocol,
    mcs::{ExportedPort, ImportSpec},
    snapshot::{ClusterResource, NameSpec, ResourceKey, Resources},
};

/// A snapshot as text.
#[must_use]
pub fn text(resources: &Resources<ClusterResource>) -> String {
    let mut out = String::new();
    for (key, resource) in resources {
        let _ = writeln!(out, "{key}");
        for line in facts(resource) {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

/// What differs between two snapshots: `+` came, `-` went. Empty where nothing does.
#[must_use]
pub fn diff(old: &Resources<ClusterResource>, new: &Resources<ClusterResource>) -> String {
    let keys: BTreeSet<&ResourceKey> = old.keys().chain(new.keys()).collect();
    let mut out = String::new();
    for key in keys {
        let (was, now) = (old.get(key), new.get(key));
        if was == now {
            continue;
        }
        let sign = match (was, now) {
            (None, _) => '+',
            (_, None) => '-',
            _ => ' ',
        };
        let _ = writeln!(out, "{sign} {key}");
        let (was, now) = (was.map(facts).unwrap_or_default(), now.map(facts).unwrap_or_default());
        for line in was.iter().filter(|line| !now.contains(line)) {
            let _ = writeln!(out, "-     {line}");
        }
        for line in now.iter().filter(|line| !was.contains(line)) {
            let _ = writeln!(out, "+     {line}");
        }
    }
    out
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn place(locality: &Locality) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "?".to_owned());
    format!("{}/{}", part(&locality.region), part(&locality.zone))
}

fn facts(resource: &ClusterResource) -> Vec<String> {
    match resource {
        ClusterResource::Itself(itself) => vec![
            format!("cluster: {}", itself.cluster),
            format!("trust domain: {}", itself.trust_domain),
            format!("place: {}", place(&itself.locality)),
        ],
        ClusterResource::Bundle(bundle) => {
            let mut lines =
                vec![format!("trust domain: {}, {} roots", bundle.trust_domain, bundle.roots.len())];
            for (cluster, prints) in &bundle.clusters {
                let short = prints.iter().map(|print| print.to_string()[..12].to_owned());
                lines.push(format!("believes {cluster}: {}", list(short)));
            }
            lines
        }
        ClusterResource::Peer(peer) => {
            vec![format!("near: {:?}", peer.proximity), format!("ingress: {}", list(&peer.ingress))]
        }
        ClusterResource::Domain(domain) => {
            vec![format!("of: {}", domain.gns), format!("members: {}", list(&domain.members))]
        }
        ClusterResource::Name(name) => name_facts(name),
        ClusterResource::Install(order) => match &**order {
            InstallOrder::Installed(spec) => install_facts(spec),
            InstallOrder::Removed { revision } => vec![format!("removed, order {revision}")],
        },
        ClusterResource::Trial(trial) => {
            let mut facts = vec![format!("trial {}", trial.number)];
            facts.extend(install_facts(&trial.spec));
            facts
        }
        ClusterResource::Import(import) => import_facts(import),
        ClusterResource::Capture(capture) => {
            let against = capture.against.iter().map(|(gns, mode)| format!("{mode} ({gns})"));
            vec![format!("mode: {}, of {}; not {}", capture.mode, capture.gns, list(against))]
        }
    }
}

fn install_facts(spec: &InstallSpec) -> Vec<String> {
    let way = |way: &Exposure| match way {
        Exposure::LoadBalancer { .. } => "a load balancer".to_owned(),
        Exposure::NodePort { port } => {
            port.map_or("a node port".to_owned(), |port| format!("node port {port}"))
        }
        Exposure::HostNetwork => "the nodes' network".to_owned(),
        Exposure::Address { addresses } => list(addresses),
    };
    let mut facts = vec![
        format!("order {}: {}, images in {}", spec.revision, spec.version, spec.registry),
        format!("namespaces: {:?}", spec.namespaces),
        format!("egress: {:?}", spec.gateways.egress.replicas),
        format!(
            "ingress: {:?} by {}",
            spec.gateways.ingress.replicas,
            list(spec.gateways.ingress.exposure.iter().map(way))
        ),
        format!(
            "corefile: {}, injector: {:?}, node: {}, mode: {:?}",
            spec.dns.corefile,
            spec.injector,
            spec.node.enabled,
            spec.capture()
        ),
    ];
    let never = &spec.gateways.egress.never_dial;
    if !never.is_empty() {
        facts.push(format!("egress never dials: {}", list(never)));
    }
    facts
}

fn import_facts(import: &ImportSpec) -> Vec<String> {
    let port = |port: &ExportedPort| {
        let name = port.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{}/{}{name}", port.port, port.protocol.as_str())
    };
    let pairs = |labels: &tombolo_model::intent::Labels| {
        list(labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let traits = &import.traits;
    let mut lines = vec![
        format!("is: {} at {}", import.kind.as_str(), import.name),
        format!("ports: {}", list(traits.ports.iter().map(port))),
        format!(
            "affinity: {:?}, internal traffic policy: {}, traffic distribution: {}",
            traits.affinity,
            text(&traits.internal_traffic_policy),
            text(&traits.traffic_distribution),
        ),
        format!("labels: {}", pairs(&import.labels)),
        format!("annotations: {}", pairs(&import.annotations)),
        format!("exported by: {}", list(&import.clusters)),
    ];
    lines
        .extend(import.conflicts.iter().map(|conflict| format!("{}: {}", conflict.reason, conflict.message)));
    lines
}

fn name_facts(name: &NameSpec) -> Vec<String> {
    let pod = name.pod.as_ref().map(|pod| format!(" {pod}")).unwrap_or_default();
    let headless = if name.headless { ", headless" } else { "" };
    let ports = name.ports.iter().map(|port| {
        let mut text = port.port.to_string();
        if port.protocol == Protocol::Udp {
            text.push_str("/UDP");
        }
        if let Some(name) = &port.name {
            let _ = write!(text, " {name}");
        }
        if let Some(app) = &port.app_protocol {
            let _ = write!(text, " ({app})");
        }
        text
    });
    let mut lines = vec![
        format!("is: {:?}{pod}{headless} in {}", name.kind, name.domain),
        format!("vip: {} {}", name.vip.v4, name.vip.v6),
        format!("ports: {}", list(ports)),
    ];
    for target in &name.targets {
        let accounts = target.accounts.iter().map(|(namespace, account)| format!("{namespace}/{account}"));
        lines.push(format!(
            "served in {} ({:?}): {} ready, end to end: {:?}, ports: {}, by {}, as {}",
            target.cluster,
            target.proximity,
            target.ready,
            target.end_to_end,
            list(&target.ports),
            list(&target.services),
            list(accounts),
        ));
    }
    lines
}
